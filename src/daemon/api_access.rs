//! Who may ask the admin API on TCP, and with which certificate it is served: the configuration's word with the files that
//! it names. A broken file that has a good one before it leaves that in effect, which is said once.

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::ServerConfig;

use crate::{
    admin::auth::{ApiAccess, ApiTls, Entry, Tokens},
    config::{AdminApi, AdminEntry, CertificateFiles, Config},
    tls::{CertificateFinding, CertificateStore, Pair, PairFiles, ServerSettings, Shared, server_config},
};

/// What is in effect.
#[derive(Debug, Clone, Default)]
pub struct ApiFiles {
    access: Option<Arc<ApiAccess>>,
    tokens: Option<KnownTokens>,
    certificate: Option<Certificate>,
    /// What is broken, as it was said.
    broken: Vec<String>,
}

/// What was read, to take effect or to be dropped.
#[derive(Debug, Default)]
pub struct Prepared {
    files: ApiFiles,
    /// What is broken and has not been said.
    news: Vec<String>,
    /// What a reload says of it.
    pub changes: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// Tokens and where they are from.
#[derive(Debug, Clone)]
struct KnownTokens {
    path: Box<Path>,
    tokens: Arc<Tokens>,
}

/// A certificate and where it is from.
#[derive(Debug, Clone)]
struct Certificate {
    files: CertificateFiles,
    pair: Arc<Pair>,
    store: Arc<CertificateStore>,
    server: Arc<ServerConfig>,
}

/// Reads a file that was fetched; or why there is none.
type Read<'a> = dyn Fn(&Path) -> Result<&'a [u8], String> + 'a;

impl Prepared {
    /// What the API will go by.
    pub const fn access(&self) -> Option<&Arc<ApiAccess>> {
        self.files.access()
    }
}

impl ApiFiles {
    /// What the API goes by, if it is served on TCP.
    pub const fn access(&self) -> Option<&Arc<ApiAccess>> {
        self.access.as_ref()
    }

    /// Reads what a configuration names.
    ///
    /// # Errors
    /// A file cannot be used, and none before it could go on.
    pub fn prepare(&self, config: &Config, read: &Read<'_>, shared: &Shared) -> Result<Prepared, String> {
        let mut prepared = Prepared::default();
        let Some(api) = &config.admin.api else {
            return Ok(prepared);
        };
        let entry = match &api.entry {
            AdminEntry::Loopback(role) => Entry::Loopback(*role),
            AdminEntry::Tokens(path) => {
                let tokens = self.tokens(path, read, &mut prepared)?;
                prepared.files.tokens = Some(tokens.clone());
                Entry::Tokens(tokens.tokens)
            }
        };
        let tls = match &api.tls {
            None => None,
            Some(files) => {
                let certificate = self.certificate(files, read, shared, &mut prepared)?;
                prepared.files.certificate = Some(certificate.clone());
                Some(ApiTls {
                    config: certificate.server,
                    certificates: certificate.store,
                })
            }
        };
        prepared.files.access = Some(access(api, entry, tls));
        let is_new = |line: &&String| !self.broken.contains(line);
        prepared.news = prepared.files.broken.iter().filter(is_new).cloned().collect();
        // a reload that changes nothing else has to take effect for it
        let news = prepared.news.iter();
        (prepared.changes).extend(news.map(|_| "a file of [admin] cannot be used".to_owned()));
        // and for the end of it
        let gone = self
            .broken
            .iter()
            .any(|line| !prepared.files.broken.contains(line));
        if gone && prepared.changes.is_empty() {
            prepared
                .changes
                .push("the files of [admin] can be used again".to_owned());
        }
        Ok(prepared)
    }

    /// Puts what was read in effect; says what is broken, if that is news.
    pub fn commit(&mut self, prepared: Prepared) {
        *self = prepared.files;
        for line in prepared.news {
            tracing::error!(event = "admin_file_broken", "{line}");
        }
    }

    fn tokens(&self, path: &Path, read: &Read<'_>, prepared: &mut Prepared) -> Result<KnownTokens, String> {
        let before = self.tokens.as_ref().filter(|known| *known.path == *path);
        let parsed = read(path)
            .and_then(|bytes| Tokens::parse(bytes).map_err(|why| format!("{}: {why}", path.display())));
        match (parsed, before) {
            (Ok(tokens), before) => {
                if let Some(before) = before {
                    prepared.changes.extend(tokens.changes_since(&before.tokens));
                }
                Ok(KnownTokens {
                    path: path.into(),
                    tokens: Arc::new(tokens),
                })
            }
            (Err(why), Some(before)) => {
                let line = format!("admin tokens_file: {why}; the tokens from before stay valid");
                prepared.files.broken.push(line);
                Ok(before.clone())
            }
            (Err(why), None) => Err(format!("admin tokens_file: {why}")),
        }
    }

    fn certificate(
        &self,
        files: &CertificateFiles,
        read: &Read<'_>,
        shared: &Shared,
        prepared: &mut Prepared,
    ) -> Result<Certificate, String> {
        let before = self.certificate.as_ref().filter(|known| known.files == *files);
        let name = files.cert.display();
        let pair = match (pair(files, read), before) {
            (Ok(pair), _) => pair,
            (Err(why), Some(before)) => {
                let line = format!("admin tls: {name}: {why}; the certificate from before stays in use");
                prepared.files.broken.push(line);
                return Ok(before.clone());
            }
            (Err(why), None) => return Err(format!("admin tls: {name}: {why}")),
        };
        for finding in CertificateFinding::all(&pair, SystemTime::now()) {
            prepared.warnings.push(format!("admin API: {name}: {finding}"));
        }
        match before {
            Some(before) if before.pair.looks_like(&pair) => return Ok(before.clone()),
            Some(_) => {
                (prepared.changes).push(format!("certificate {name} of the admin API: replaced"));
            }
            None => {}
        }
        let pair = Arc::new(pair);
        let store = CertificateStore::new(vec![(name.to_string().into(), Arc::clone(&pair))]);
        let server = server_config(&settings(), &store, shared).map_err(|why| format!("admin tls: {why}"))?;
        Ok(Certificate {
            files: files.clone(),
            pair,
            store,
            server,
        })
    }
}

fn access(api: &AdminApi, entry: Entry, tls: Option<ApiTls>) -> Arc<ApiAccess> {
    Arc::new(ApiAccess {
        tls,
        entry,
        hosts: api.allowed_hosts.clone(),
        origins: api.allowed_origins.clone(),
    })
}

fn pair(files: &CertificateFiles, read: &Read<'_>) -> Result<Pair, String> {
    let pair = Pair::parse(PairFiles {
        certificate: read(&files.cert)?,
        key: files.key.as_deref().map(read).transpose()?,
        ocsp: None,
    });
    pair.map_err(|why| why.to_string())
}

/// As frontends have them that say nothing else.
fn settings() -> ServerSettings {
    ServerSettings {
        alpn: vec!["http/1.1".into()],
        tickets: false,
        // no frontend has this name: sessions of theirs are none of this one's
        ..ServerSettings::new("")
    }
}

//! TLS at frontends, and with [`tls_to_servers`] to servers: files that the broker reads become certificates and keys, in effect at once or with a reload.
//!
//! ```text
//! broker ─ bytes ─► prepare ─► Prepared ─ commit ─► certificate stores, ticket keys
//!                      │                     └────► FrontendTls of each frontend ─► snapshot
//!                      └ a broken pair that has none before it: the reload fails
//! ```

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    state::TlsViews,
    tls_to_servers::{self, Backends},
};
use crate::{
    admin::views::ReloadFailed,
    base::FrontendName,
    config::{self, CertificateFiles, ClientAuth, Config},
    privilege::{BrokerError, Channel, Client, What},
    snapshot::FrontendTls,
    tls::{
        CertificateFinding, CertificateStore, Certificates, ClientAuthSettings, Pair, PairError, PairFiles,
        ReadPair, ServerSettings, SessionCache, Shared, TicketKeyRing, TicketKeys, server_config, uncovered,
    },
};

/// The content of files by their paths; of those that could not be read, why.
type Contents = HashMap<PathBuf, Result<Vec<u8>, String>>;

/// What is in effect.
#[derive(Debug)]
pub struct TlsFrontends {
    shared: Arc<Shared>,
    /// Those of `ticket_keys_file`; `None`: our own.
    shared_keys: Option<TicketKeys>,
    frontends: HashMap<FrontendName, Served>,
    to_servers: Backends,
}

/// A frontend whose clients' TLS ends here.
#[derive(Debug, Clone)]
struct Served {
    settings: ServerSettings,
    store: Arc<CertificateStore>,
    view: Arc<FrontendTls>,
}

/// What was read, to take effect or to be dropped.
#[derive(Debug, Default)]
pub struct Prepared {
    frontends: HashMap<FrontendName, (Served, Vec<ReadPair>)>,
    /// Those that load balancers share; `None`: our own.
    shared_keys: Option<TicketKeys>,
    /// TLS to servers.
    pub to_servers: tls_to_servers::Prepared,
    /// What a reload says of it.
    pub changes: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

impl TlsFrontends {
    /// Nothing yet, with these keys of tickets.
    #[must_use]
    pub fn new(keys: &TicketKeys) -> Self {
        Self {
            shared: Arc::new(Shared {
                tickets: TicketKeyRing::new(keys),
                sessions: SessionCache::new(),
                clock: SystemTime::now,
            }),
            shared_keys: None,
            frontends: HashMap::new(),
            to_servers: Backends::default(),
        }
    }

    /// What is to be known of it when other files are read.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            shared: Arc::clone(&self.shared),
            shared_keys: self.shared_keys.clone(),
            frontends: self.frontends.clone(),
            to_servers: self.to_servers.clone(),
        }
    }

    /// The keys of tickets.
    #[must_use]
    pub fn tickets(&self) -> &TicketKeyRing {
        &self.shared.tickets
    }

    /// Puts what was read in effect; gives what the snapshot is made of, and what is broken and goes on as it was.
    pub fn commit(&mut self, mut prepared: Prepared) -> (TlsViews, Vec<String>) {
        let mut broken = std::mem::take(&mut prepared.to_servers.broken);
        let to_servers = self.to_servers.commit(prepared.to_servers);
        self.frontends = (prepared.frontends.into_iter())
            .map(|(name, (served, pairs))| {
                for fault in served.store.replace(pairs) {
                    broken.push(format!(
                        "frontend {name}: {}: {}; the certificate from before stays in use",
                        fault.name, fault.why
                    ));
                }
                (name, served)
            })
            .collect();
        if let Some(keys) = &prepared.shared_keys {
            self.shared.tickets.replace(keys);
        }
        self.shared_keys = prepared.shared_keys;
        let views = self
            .frontends
            .iter()
            .map(|(name, served)| (name.clone(), Arc::clone(&served.view)));
        let frontends = views.collect();
        (
            TlsViews {
                frontends,
                to_servers,
            },
            broken,
        )
    }
}

/// What was in effect when files were read.
#[derive(Debug, Clone)]
pub struct Known {
    shared: Arc<Shared>,
    shared_keys: Option<TicketKeys>,
    frontends: HashMap<FrontendName, Served>,
    to_servers: Backends,
}

/// Reads what a configuration names.
///
/// # Errors
/// A file cannot be used, and there is nothing before it that could go on.
pub async fn read_all(broker: &Client, config: &Arc<Config>, known: Known) -> Result<Prepared, ReloadFailed> {
    let mut contents = Contents::new();
    for path in config.tls_files() {
        if !contents.contains_key(path) {
            let read = broker.read(What::TlsFile(path.to_owned())).await;
            contents.insert(path.to_owned(), content(read.map(|file| file.source.bytes))?);
        }
    }
    let config = Arc::clone(config);
    let prepared = tokio::task::spawn_blocking(move || prepare(&config, &contents, &known));
    (prepared.await).unwrap_or_else(|_| Err(failed("internal error while certificates were read".to_owned())))
}

/// Reads what a configuration names at the start, when nothing else is to be done.
///
/// # Errors
/// As [`read_all`].
pub fn read_at_start(broker: &Channel, config: &Config, known: &Known) -> Result<Prepared, ReloadFailed> {
    let mut contents = Contents::new();
    for path in config.tls_files() {
        let read = broker.read(What::TlsFile(path.to_owned()));
        contents.insert(path.to_owned(), content(read.map(|file| file.source.bytes))?);
    }
    prepare(config, &contents, known)
}

/// Of a file that is not as it should be, why; a broker that fails is no fault of the file.
fn content(read: Result<Vec<u8>, BrokerError>) -> Result<Result<Vec<u8>, String>, ReloadFailed> {
    match read {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(BrokerError::Unreadable(why)) => Ok(Err(why)),
        Err(error) => Err(ReloadFailed {
            message: error.to_string(),
            config_error: false,
        }),
    }
}

fn prepare(config: &Config, contents: &Contents, known: &Known) -> Result<Prepared, ReloadFailed> {
    let mut prepared = Prepared::default();
    if let Some(path) = &config.global.ticket_keys_file {
        let bytes = bytes(contents, path).map_err(|why| failed(format!("ticket_keys_file: {why}")))?;
        let keys = TicketKeys::from_shared(bytes);
        prepared.shared_keys =
            Some(keys.map_err(|why| failed(format!("ticket_keys_file {}: {why}", path.display())))?);
    }
    if prepared.shared_keys != known.shared_keys {
        prepared.changes.push("keys of TLS tickets: replaced".to_owned());
    }
    let read = |path: &Path| bytes(contents, path);
    prepared.to_servers = known.to_servers.prepare(config, &read).map_err(failed)?;
    prepared.changes.append(&mut prepared.to_servers.changes);
    prepared.warnings.append(&mut prepared.to_servers.warnings);
    for (name, frontend) in &config.frontends {
        let Some(tls) = &frontend.tls else { continue };
        let in_frontend = |why: String| failed(format!("frontend {name}: {why}"));
        let settings = settings(name, tls, contents).map_err(in_frontend)?;
        let before = known.frontends.get(name);
        let pairs = pairs(tls, contents);
        for (pair, result) in &pairs {
            let is_kept =
                before.is_some_and(|before| before.store.current().pairs().any(|(name, _)| *name == **pair));
            if let (Err(why), false) = (result, is_kept) {
                return Err(in_frontend(format!("{pair}: {why}")));
            }
        }
        // its configuration may be the same, and the files of client certificates others
        if before.is_some_and(|before| before.settings.client_auth != settings.client_auth) {
            prepared.changes.push(format!(
                "client certificates of frontend {name}: another CA or revocation list"
            ));
        }
        prepared.note(name, &pairs, frontend, before);
        let store = before.map_or_else(
            || CertificateStore::new(Vec::new()),
            |before| Arc::clone(&before.store),
        );
        let same = before
            .filter(|before| before.settings == settings)
            .map(|before| &before.view);
        let server = match same {
            Some(same) => Arc::clone(&same.config),
            None => {
                server_config(&settings, &store, &known.shared).map_err(|why| in_frontend(why.to_string()))?
            }
        };
        let same = same.filter(|same| {
            same.handshake_timeout == tls.handshake_timeout && same.max_handshakes == tls.max_handshakes
        });
        let view = same.map_or_else(
            || {
                Arc::new(FrontendTls {
                    config: server,
                    handshake_timeout: tls.handshake_timeout,
                    max_handshakes: tls.max_handshakes,
                })
            },
            Arc::clone,
        );
        let served = Served {
            settings,
            store,
            view,
        };
        prepared.frontends.insert(name.clone(), (served, pairs));
    }
    Ok(prepared)
}

impl Prepared {
    /// Notes what differs from before, and what an operator should know of.
    fn note(
        &mut self,
        name: &FrontendName,
        pairs: &[ReadPair],
        frontend: &config::Frontend,
        before: Option<&Served>,
    ) {
        let now = SystemTime::now();
        let before = before.map(|before| before.store.current());
        for (path, result) in pairs {
            let Ok(pair) = result else {
                // said when it takes effect; a reload that changes nothing else has to take effect for it
                self.changes
                    .push(format!("certificate {path} of frontend {name} cannot be used"));
                continue;
            };
            let is_same = |before: &Certificates| {
                let mut known = before.pairs().filter(|(known, _)| **known == **path);
                known.any(|(_, old)| old.looks_like(pair))
            };
            if before.as_ref().is_some_and(|before| !is_same(before)) {
                self.changes
                    .push(format!("certificate {path} of frontend {name}: replaced"));
            }
            for finding in CertificateFinding::all(pair, now) {
                self.warnings.push(format!("frontend {name}: {path}: {finding}"));
            }
        }
        let names = frontend.routing.routes.iter().flat_map(|route| &route.sni);
        let good: Vec<_> = (pairs.iter())
            .filter_map(|(path, result)| Some((Arc::clone(path), Arc::clone(result.as_ref().ok()?))))
            .collect();
        for pattern in uncovered(&CertificateStore::new(good).current(), names) {
            self.warnings
                .push(format!("frontend {name}: no certificate covers {pattern}"));
        }
    }
}

fn pairs(tls: &config::FrontendTls, contents: &Contents) -> Vec<ReadPair> {
    (tls.certificates.iter())
        .map(|files| {
            (
                files.cert.display().to_string().into(),
                pair(files, contents).map(Arc::new),
            )
        })
        .collect()
}

fn pair(files: &CertificateFiles, contents: &Contents) -> Result<Pair, PairError> {
    let read = |path: &Path| bytes(contents, path).map_err(PairError::NotRead);
    Pair::parse(PairFiles {
        certificate: read(&files.cert)?,
        key: files.key.as_deref().map(read).transpose()?,
        ocsp: files.ocsp.as_deref().map(read).transpose()?,
    })
}

fn settings(
    name: &FrontendName,
    tls: &config::FrontendTls,
    contents: &Contents,
) -> Result<ServerSettings, String> {
    let auth = match (tls.client_auth, &tls.client_ca) {
        (ClientAuth::None, _) | (_, None) => None,
        (auth, Some(ca)) => Some(ClientAuthSettings {
            required: auth == ClientAuth::Required,
            ca: bytes(contents, ca)?.to_vec(),
            crls: (tls.client_crl.iter())
                .map(|path| bytes(contents, path).map(<[u8]>::to_vec))
                .collect::<Result<_, _>>()?,
            crl_policy: tls.client_crl_policy,
        }),
    };
    Ok(ServerSettings {
        frontend: name.as_str().into(),
        min_version: tls.min_version,
        max_version: tls.max_version,
        ciphers: tls.ciphers.clone(),
        groups: tls.groups.clone(),
        alpn: tls.alpn.clone(),
        strict_sni: tls.strict_sni,
        client_auth: auth,
        tickets: tls.tickets,
    })
}

fn bytes<'a>(contents: &'a Contents, path: &Path) -> Result<&'a [u8], String> {
    match contents.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(why)) => Err(why.clone()),
        None => Err(format!("{} was not read", path.display())),
    }
}

fn failed(message: String) -> ReloadFailed {
    ReloadFailed {
        message,
        config_error: true,
    }
}

//! TLS at frontends, with [`tls_to_servers`] to servers, and with [`api_access`] of the admin API: files that the broker reads become certificates and keys, in effect at once or with a reload.
//!
//! ```text
//! broker ─ bytes ─► prepare ─► Prepared ─ commit ─► certificate stores, ticket keys
//!                      │                     └────► FrontendTls of each frontend ─► snapshot
//!                      └ a broken pair that has none before it: the reload fails
//! ```

mod contents;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    api_access::{self, ApiFiles},
    key_log::KeyLogFile,
    state::TlsViews,
    tls_to_servers::{self, Backends},
};
use crate::{
    admin::{auth::ApiAccess, views::ReloadFailed},
    base::FrontendName,
    config::{self, CertificateFiles, ClientAuth, Config},
    privilege::{BrokerError, Channel, Client, What},
    snapshot::FrontendTls,
    tls::{
        CertificateFinding, CertificateStore, Certificates, Challenges, ClientAuthSettings, NamedPair, Pair,
        PairError, PairFiles, ReadPair, ServerSettings, SessionCache, Shared, StaleList, TicketKeyRing,
        TicketKeys, server_config, uncovered,
    },
};
use contents::Contents;

/// What is in effect.
#[derive(Debug)]
pub struct TlsFrontends {
    shared: Arc<Shared>,
    key_log: Arc<KeyLogFile>,
    /// What CAs are shown, by whichever frontend they ask.
    challenges: Arc<Challenges>,
    /// Those of `ticket_keys_file`; `None`: our own.
    shared_keys: Option<TicketKeys>,
    frontends: HashMap<FrontendName, Served>,
    to_servers: Backends,
    api: ApiFiles,
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
    /// Who may ask the admin API on TCP.
    pub api: api_access::Prepared,
    /// What a reload says of it.
    pub changes: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

impl TlsFrontends {
    /// Nothing yet, with these keys of tickets, and where secrets are logged if that is asked for.
    #[must_use]
    pub fn new(keys: &TicketKeys, key_log: Arc<KeyLogFile>) -> Self {
        Self {
            shared: Arc::new(Shared {
                tickets: TicketKeyRing::new(keys),
                sessions: SessionCache::new(),
                clock: SystemTime::now,
                key_log: Arc::<KeyLogFile>::clone(&key_log),
            }),
            key_log,
            challenges: Arc::default(),
            shared_keys: None,
            frontends: HashMap::new(),
            to_servers: Backends::default(),
            api: ApiFiles::default(),
        }
    }

    /// What is to be known of it when other files are read.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            shared: Arc::clone(&self.shared),
            key_log: Arc::clone(&self.key_log),
            challenges: Arc::clone(&self.challenges),
            shared_keys: self.shared_keys.clone(),
            frontends: self.frontends.clone(),
            to_servers: self.to_servers.clone(),
            api: self.api.clone(),
        }
    }

    /// The keys of tickets.
    #[must_use]
    pub fn tickets(&self) -> &TicketKeyRing {
        &self.shared.tickets
    }

    /// What CAs are shown.
    #[must_use]
    pub const fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// What the admin API on TCP goes by.
    #[must_use]
    pub const fn api(&self) -> Option<&Arc<ApiAccess>> {
        self.api.access()
    }

    /// Has frontends serve these ordered certificates besides those of the configuration, from the next handshake on.
    pub fn serve_ordered(&self, pairs: impl Fn(&FrontendName) -> Vec<NamedPair>) {
        for (name, served) in &self.frontends {
            served.store.replace_ordered(pairs(name));
        }
    }

    /// Puts what was read in effect; gives what the snapshot is made of, and what is broken and goes on as it was.
    pub fn commit(&mut self, mut prepared: Prepared) -> (TlsViews, Vec<String>) {
        let mut broken = std::mem::take(&mut prepared.to_servers.broken);
        let views = self.to_servers.commit(prepared.to_servers);
        self.api.commit(prepared.api);
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
        if !self.frontends.values().any(|served| served.settings.key_log) {
            self.key_log.close();
        }
        let frontends = self
            .frontends
            .iter()
            .map(|(name, served)| (name.clone(), Arc::clone(&served.view)));
        (
            TlsViews {
                frontends: frontends.collect(),
                to_servers: views.servers,
                checks: views.checks,
            },
            broken,
        )
    }
}

/// What was in effect when files were read.
#[derive(Debug, Clone)]
pub struct Known {
    shared: Arc<Shared>,
    key_log: Arc<KeyLogFile>,
    challenges: Arc<Challenges>,
    shared_keys: Option<TicketKeys>,
    frontends: HashMap<FrontendName, Served>,
    to_servers: Backends,
    api: ApiFiles,
}

/// Reads what a configuration names.
///
/// # Errors
/// A file cannot be used, and there is nothing before it that could go on.
pub async fn read_all(broker: &Client, config: &Arc<Config>, known: Known) -> Result<Prepared, ReloadFailed> {
    let mut contents = Contents::default();
    for what in wanted(config) {
        let read = broker.read(what.clone()).await;
        contents.add(what, content(read.map(|file| file.source.bytes))?);
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
    let mut contents = Contents::default();
    for what in wanted(config) {
        let read = broker.read(what.clone());
        contents.add(what, content(read.map(|file| file.source.bytes))?);
    }
    prepare(config, &contents, known)
}

/// What the broker is asked for: each once.
fn wanted(config: &Config) -> BTreeSet<What> {
    let files = config.tls_files().map(|path| What::TlsFile(path.to_owned()));
    let directories = (config.certificate_dirs()).map(|path| What::CertificateDir(path.to_owned()));
    let tokens = config
        .admin
        .tokens_file()
        .map(|path| What::TokensFile(path.to_owned()));
    files.chain(directories).chain(tokens).collect()
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
        let bytes = contents
            .bytes(path)
            .map_err(|why| failed(format!("ticket_keys_file: {why}")))?;
        let keys = TicketKeys::from_shared(bytes);
        prepared.shared_keys =
            Some(keys.map_err(|why| failed(format!("ticket_keys_file {}: {why}", path.display())))?);
    }
    if prepared.shared_keys != known.shared_keys {
        prepared.changes.push("keys of TLS tickets: replaced".to_owned());
    }
    let read = |path: &Path| contents.bytes(path);
    prepared.to_servers = known.to_servers.prepare(config, &read).map_err(failed)?;
    prepared.changes.append(&mut prepared.to_servers.changes);
    prepared.warnings.append(&mut prepared.to_servers.warnings);
    prepared.api = (known.api.prepare(config, &read, &known.shared)).map_err(failed)?;
    prepared.changes.append(&mut prepared.api.changes);
    prepared.warnings.append(&mut prepared.api.warnings);
    for (name, frontend) in &config.frontends {
        let Some(tls) = &frontend.tls else { continue };
        let in_frontend = |why: String| failed(format!("frontend {name}: {why}"));
        let settings = settings(name, tls, contents).map_err(in_frontend)?;
        let before = known.frontends.get(name);
        let served = before.map(|before| before.store.current());
        let Pairs { pairs, left_out } = pairs(tls, contents, served.as_deref()).map_err(in_frontend)?;
        for (path, why) in left_out {
            // as of one that has another before it: a reload that changes nothing else has to take effect for it
            prepared
                .changes
                .push(format!("certificate {path} of frontend {name} cannot be used"));
            (prepared.warnings).push(format!("frontend {name}: {path}: {why}; it is left out"));
        }
        // its configuration may be the same, and the files of client certificates others
        if before.is_some_and(|before| before.settings.client_auth != settings.client_auth) {
            prepared.changes.push(format!(
                "client certificates of frontend {name}: another CA or revocation list"
            ));
        }
        prepared.note(name, &pairs, frontend, before);
        for (path, stale) in stale_lists(tls, contents) {
            let said = stale.sentence(tls.client_crl_policy);
            (prepared.warnings).push(format!("frontend {name}: {}: {said}", path.display()));
        }
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
                    challenges: Arc::clone(known.challenges.configs()),
                    certificates: Arc::clone(&store) as _,
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
    let mut logged = prepared
        .frontends
        .values()
        .map(|(served, _)| served.settings.key_log);
    if logged.any(|is_logged| is_logged)
        && let Err(why) = known.key_log.open()
    {
        prepared.warnings.push(why);
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
            if let Some(before) = before.as_ref().filter(|before| !is_same(before)) {
                let is_new = before.pairs().all(|(known, _)| *known != **path);
                let how = if is_new { "added" } else { "replaced" };
                self.changes
                    .push(format!("certificate {path} of frontend {name}: {how}"));
            }
            for finding in CertificateFinding::all(pair, now) {
                self.warnings.push(format!("frontend {name}: {path}: {finding}"));
            }
        }
        for (path, _) in before.iter().flat_map(|before| before.pairs()) {
            if pairs.iter().all(|(other, _)| **other != *path) {
                self.changes
                    .push(format!("certificate {path} of frontend {name}: removed"));
            }
        }
        let names = frontend.routing.routes.iter().flat_map(|route| &route.sni);
        let good: Vec<_> = (pairs.iter())
            .filter_map(|(path, result)| Some((Arc::clone(path), Arc::clone(result.as_ref().ok()?))))
            .collect();
        let order = frontend.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        let certificates = CertificateStore::new(good).current();
        let of_none = uncovered(&certificates, names).into_iter();
        for pattern in of_none.filter(|pattern| !order.is_some_and(|order| order.covers(pattern))) {
            self.warnings
                .push(format!("frontend {name}: no certificate covers {pattern}"));
        }
    }
}

/// The certificates of a frontend.
#[derive(Debug, Default)]
struct Pairs {
    /// Broken ones that have another before them too.
    pairs: Vec<ReadPair>,
    /// Those that are left out, and why.
    left_out: Vec<(String, PairError)>,
}

/// Reads the certificates of a frontend.
///
/// # Errors
/// One that is named, or at the start one of a directory, cannot be used and has none before it; or there is none at all.
fn pairs(
    tls: &config::FrontendTls,
    contents: &Contents,
    served: Option<&Certificates>,
) -> Result<Pairs, String> {
    let found = match &tls.certificate_dir {
        Some(path) => contents.directory(path)?,
        None => &[],
    };
    let of_directory = found.iter().filter(|files| !tls.certificates.contains(files));
    let named = tls.certificates.iter().map(|files| (files, true));
    let (mut pairs, mut left_out) = (Vec::new(), Vec::new());
    for (files, is_named) in named.chain(of_directory.map(|files| (files, false))) {
        let name = files.cert.display().to_string();
        let result = pair(files, contents);
        let is_kept = || served.is_some_and(|served| served.pairs().any(|(other, _)| other == name));
        match result {
            Err(why) if !is_kept() => {
                // files come to a directory one by one, and a half-written one must not hold up the others
                if is_named || served.is_none() {
                    return Err(format!("{name}: {why}"));
                }
                left_out.push((name, why));
            }
            result => pairs.push((name.into(), result.map(Arc::new))),
        }
    }
    match (&tls.certificate_dir, pairs.is_empty()) {
        (Some(dir), true) if tls.acme.is_none() => Err(format!(
            "certificate_dir: {} has no certificate{}: each is a file NAME.pem or NAME.crt, with its key inside or in NAME.key",
            dir.display(),
            if left_out.is_empty() {
                ""
            } else {
                " that can be used"
            }
        )),
        _ => Ok(Pairs { pairs, left_out }),
    }
}

fn pair(files: &CertificateFiles, contents: &Contents) -> Result<Pair, PairError> {
    let read = |path: &Path| contents.bytes(path).map_err(PairError::NotRead);
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
            ca: contents.bytes(ca)?.to_vec(),
            crls: (tls.client_crl.iter())
                .map(|path| contents.bytes(path).map(<[u8]>::to_vec))
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
        key_log: tls.key_log,
    })
}

/// The revocation lists of a frontend that are out of date.
fn stale_lists<'a>(
    tls: &'a config::FrontendTls,
    contents: &Contents,
) -> impl Iterator<Item = (&'a PathBuf, StaleList)> {
    let now = SystemTime::now();
    (tls.client_crl.iter()).flat_map(move |path| {
        let lists = contents.bytes(path).map(|bytes| StaleList::all(bytes, now));
        lists
            .unwrap_or_default()
            .into_iter()
            .map(move |list| (path, list))
    })
}

fn failed(message: String) -> ReloadFailed {
    ReloadFailed {
        message,
        config_error: true,
    }
}

//! TLS to servers: files that the broker reads become what connections are opened with.

use std::{collections::HashMap, path::Path, sync::Arc, time::SystemTime};

use crate::{
    base::BackendName,
    config::{self, CertificateFiles, Config, SYSTEM_CAS, ServerAlpn, ServerTrust},
    health::TlsToServers,
    snapshot::BackendTls,
    tls::{CertificateFinding, ClientSettings, Pair, PairError, PairFiles, Trust, client_configs},
};

/// The content of a file by its path, or why it could not be read.
pub type Read<'a> = dyn Fn(&Path) -> Result<&'a [u8], String> + 'a;

/// The backends whose servers speak TLS, with clients' connections or with checks.
#[derive(Debug, Clone, Default)]
pub struct Backends(HashMap<(BackendName, Use), Known>);

/// What TLS to the servers of a backend is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Use {
    /// Clients' connections, and checks that have none of their own.
    Servers,
    /// Checks alone.
    Checks,
}

/// What is known of a backend.
#[derive(Debug, Clone)]
struct Known {
    config: config::BackendTls,
    settings: ClientSettings,
    view: Arc<BackendTls>,
}

/// What was read, to take effect or to be dropped.
#[derive(Debug, Default)]
pub struct Prepared {
    backends: Backends,
    /// What is broken, and goes on as it was.
    pub broken: Vec<String>,
    /// What a reload says of it.
    pub changes: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

impl Backends {
    /// What the files of a configuration make of them.
    ///
    /// # Errors
    /// A file cannot be used, and there is nothing before it that could go on.
    pub fn prepare(&self, config: &Config, read: &Read<'_>) -> Result<Prepared, String> {
        let mut prepared = Prepared::default();
        let all = (config.backends.iter()).flat_map(|(name, backend)| {
            let checks = backend.health_check.as_ref().and_then(|check| check.tls.as_ref());
            let of = [(Use::Servers, backend.tls.as_ref()), (Use::Checks, checks)];
            of.into_iter().filter_map(move |(of, tls)| Some((name, of, tls?)))
        });
        for (name, of, tls) in all {
            let key = (name.clone(), of);
            let before = self.0.get(&key).filter(|before| before.config == *tls);
            match (settings(tls, read), before) {
                (Ok(settings), before) => {
                    prepared.note(name, of, &settings, before);
                    let same = || before.filter(|before| is_same(&before.settings, &settings));
                    let same = prepared.shared(config, name, tls, &settings).or_else(same);
                    let known = match same {
                        Some(same) => same.clone(),
                        None => Known {
                            config: tls.clone(),
                            view: view(&settings).map_err(|why| in_backend(name, of, &why))?,
                            settings,
                        },
                    };
                    prepared.backends.0.insert(key, known);
                }
                // a reload that changes nothing else has to take effect for it to be said
                (Err(why), Some(before)) => {
                    prepared
                        .changes
                        .push(format!("{} backend {name}: a file cannot be used", of.words()));
                    let why = in_backend(name, of, &why);
                    prepared
                        .broken
                        .push(format!("{why}; what was read before stays in use"));
                    prepared.backends.0.insert(key, before.clone());
                }
                (Err(why), None) => return Err(in_backend(name, of, &why)),
            }
        }
        Ok(prepared)
    }

    /// Puts what was read in effect; gives what the snapshot and the checks are made of.
    pub fn commit(&mut self, prepared: Prepared) -> Views {
        *self = prepared.backends;
        self.views()
    }

    fn views(&self) -> Views {
        let of = |wanted: Use| {
            let known = self.0.iter().filter(move |((_, of), _)| *of == wanted);
            known.map(|((name, _), known)| (name.clone(), Arc::clone(&known.view)))
        };
        let servers: TlsToServers = of(Use::Servers).collect();
        let mut checks = servers.clone();
        checks.extend(of(Use::Checks));
        Views { servers, checks }
    }
}

/// What connections are opened with, by backend.
#[derive(Debug, Default)]
pub struct Views {
    /// Those of clients.
    pub servers: TlsToServers,
    /// Those of checks.
    pub checks: TlsToServers,
}

impl Use {
    const fn words(self) -> &'static str {
        match self {
            Self::Servers => "TLS to",
            Self::Checks => "TLS of the checks of",
        }
    }
}

impl Prepared {
    /// TLS to servers as it will be.
    #[must_use]
    pub fn views(&self) -> Views {
        self.backends.views()
    }

    /// What another backend has whose checks are shared, too, if that is the same: checks are one only where their TLS is.
    fn shared(
        &self,
        config: &Config,
        name: &BackendName,
        tls: &config::BackendTls,
        settings: &ClientSettings,
    ) -> Option<&Known> {
        let shares = |name: &BackendName| {
            let check = config
                .backends
                .get(name)
                .and_then(|backend| backend.health_check.as_ref());
            check.is_some_and(|check| check.share)
        };
        if !shares(name) {
            return None;
        }
        let mut others = self.backends.0.iter();
        let same = others.find(|((other, _), known)| {
            known.config == *tls && shares(other) && is_same(&known.settings, settings)
        });
        same.map(|(_, known)| known)
    }

    fn note(&mut self, name: &BackendName, of: Use, settings: &ClientSettings, before: Option<&Known>) {
        let words = of.words();
        if let Some(before) = before {
            if before.settings.trust != settings.trust {
                self.changes
                    .push(format!("{words} backend {name}: the file of CAs has changed"));
            }
            if !looks_like(before.settings.identity.as_deref(), settings.identity.as_deref()) {
                self.changes
                    .push(format!("{words} backend {name}: certificate replaced"));
            }
        }
        let Some(pair) = &settings.identity else { return };
        for finding in CertificateFinding::all(pair, SystemTime::now()) {
            if finding.concerns_clients() {
                self.warnings.push(format!("backend {name}: tls.cert: {finding}"));
            }
        }
    }
}

fn in_backend(name: &BackendName, of: Use, why: &str) -> String {
    match of {
        Use::Servers => format!("backend {name}: tls: {why}"),
        Use::Checks => format!("backend {name}: health_check.tls: {why}"),
    }
}

fn is_same(before: &ClientSettings, now: &ClientSettings) -> bool {
    before.trust == now.trust
        && before.alpn == now.alpn
        && looks_like(before.identity.as_deref(), now.identity.as_deref())
}

fn looks_like(before: Option<&Pair>, now: Option<&Pair>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => before.looks_like(now),
        (None, None) => true,
        _ => false,
    }
}

/// What a backend says, with the bytes of its files; that they can be used is not known yet of the CAs.
fn settings(tls: &config::BackendTls, read: &Read<'_>) -> Result<ClientSettings, String> {
    let settings = ClientSettings {
        trust: match &tls.trust {
            ServerTrust::System => Trust::System(system_cas(read)?),
            ServerTrust::Ca(path) => Trust::Ca(read(path).map_err(|why| format!("ca: {why}"))?.to_vec()),
            ServerTrust::Anybody => Trust::Anybody,
        },
        identity: (tls.identity.as_ref())
            .map(|files| pair(files, read).map(Arc::new))
            .transpose()
            .map_err(|why| format!("cert: {why}"))?,
        alpn: match &tls.alpn {
            ServerAlpn::Client | ServerAlpn::Off => Vec::new(),
            ServerAlpn::Offered(names) => names.clone(),
        },
    };
    client_configs(&settings).map_err(|why| why.to_string())?;
    Ok(settings)
}

fn system_cas(read: &Read<'_>) -> Result<Vec<u8>, String> {
    let bytes = read(Path::new(SYSTEM_CAS)).map_err(|why| {
        format!("the CAs of this host are not there: {why}; install the package ca-certificates, or set ca")
    })?;
    Ok(bytes.to_vec())
}

fn pair(files: &CertificateFiles, read: &Read<'_>) -> Result<Pair, PairError> {
    let bytes = |path: &Path| read(path).map_err(PairError::NotRead);
    Pair::parse(PairFiles {
        certificate: bytes(&files.cert)?,
        key: files.key.as_deref().map(bytes).transpose()?,
        ocsp: None,
    })
}

fn view(settings: &ClientSettings) -> Result<Arc<BackendTls>, String> {
    let made = client_configs(settings).map_err(|why| why.to_string())?;
    Ok(Arc::new(BackendTls {
        connections: made.connections,
        checks: made.checks,
        checks_of_any_name: made.checks_of_any_name,
    }))
}

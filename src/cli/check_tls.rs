//! What `convey check` says of the files that `[frontends.NAME.tls]` and `[backends.NAME.tls]` name.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    base::{BackendName, FrontendName},
    config::{
        BackendTls, CertificateFiles, Config, Diagnostic, FrontendTls, SYSTEM_CAS, ServerTrust, Severity,
    },
    privilege::TLS_FILE_BYTES,
    sys::config_file,
    tls::{self, CertificateFinding, CertificateStore, ClientSettings, Pair, PairFiles, TicketKeys, Trust},
};

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What convey would not start with.
    pub errors: Vec<Diagnostic>,
    /// What should be looked at. A file that cannot be read here is one: the configuration may be another host's.
    pub warnings: Vec<Diagnostic>,
    files: HashMap<PathBuf, Option<Vec<u8>>>,
}

/// Looks at every file about TLS.
#[must_use]
pub fn look(config: &Config) -> Found {
    let mut found = Found::default();
    for path in config.tls_files() {
        if !found.files.contains_key(path) {
            found.read(path);
        }
    }
    for (name, frontend) in &config.frontends {
        if let Some(tls) = &frontend.tls {
            found.frontend(
                name,
                tls,
                frontend.routing.routes.iter().flat_map(|route| &route.sni),
            );
        }
    }
    for (name, backend) in &config.backends {
        if let Some(tls) = &backend.tls {
            found.backend(name, tls);
        }
    }
    if let Some(path) = &config.global.ticket_keys_file
        && let Some(Some(bytes)) = found.files.get(path)
        && let Err(why) = TicketKeys::from_shared(bytes)
    {
        found.error(path, "global.ticket_keys_file", why.to_string());
    }
    found
}

impl Found {
    fn read(&mut self, path: &Path) {
        let read = config_file::read(path, TLS_FILE_BYTES);
        if let Err(error) = &read {
            let message = error.of_file_named_in("a tls section");
            let mut warning = diagnostic(Severity::Warning, path, "tls", message);
            let help = match path == Path::new(SYSTEM_CAS) {
                true => {
                    "convey does not start without it: install the package ca-certificates, or set ca in [backends.NAME.tls]"
                }
                false => {
                    "convey does not start where it cannot read it. Keys belong to root:convey with mode 0640; for certbot, \
                     /usr/share/convey/certbot-hook makes such copies"
                }
            };
            warning.help = Some(help.to_owned());
            self.warnings.push(warning);
        }
        self.files.insert(path.to_owned(), read.ok());
    }

    fn frontend<'a>(
        &mut self,
        name: &FrontendName,
        tls: &FrontendTls,
        wanted: impl Iterator<Item = &'a crate::base::HostPattern>,
    ) {
        let section = format!("frontends.{name}.tls");
        let mut pairs = Vec::new();
        for files in &tls.certificates {
            self.readable_by_others(files, &section);
            match self.pair(files) {
                // what could not be read was said
                None => {}
                Some(Ok(pair)) => {
                    for finding in CertificateFinding::all(&pair, SystemTime::now()) {
                        self.warn(&files.cert, &section, finding.to_string());
                    }
                    pairs.push((files.cert.display().to_string().into(), pair.into()));
                }
                Some(Err(why)) => self.error(&files.cert, &section, why),
            }
        }
        // one that could not be read may cover a name
        if pairs.len() == tls.certificates.len() {
            for pattern in tls::uncovered(&CertificateStore::new(pairs).current(), wanted) {
                self.warn(
                    &tls.certificates[0].cert,
                    &section,
                    format!("no certificate covers {pattern}"),
                );
            }
        }
    }

    fn backend(&mut self, name: &BackendName, tls: &BackendTls) {
        let section = format!("backends.{name}.tls");
        let ca = match &tls.trust {
            ServerTrust::System => Some((Path::new(SYSTEM_CAS), Trust::System as fn(Vec<u8>) -> Trust)),
            ServerTrust::Ca(path) => Some((path.as_path(), Trust::Ca as fn(Vec<u8>) -> Trust)),
            ServerTrust::Anybody => None,
        };
        // what could not be read was said
        if let Some((path, trust)) = ca
            && let Some(Some(bytes)) = self.files.get(path)
        {
            let settings = ClientSettings {
                trust: trust(bytes.clone()),
                identity: None,
                alpn: Vec::new(),
            };
            if let Err(why) = tls::client_configs(&settings) {
                self.error(path, &section, why.to_string());
            }
        }
        let Some(files) = &tls.identity else { return };
        self.readable_by_others(files, &section);
        match self.pair(files) {
            None => {}
            Some(Ok(pair)) => {
                for finding in CertificateFinding::all(&pair, SystemTime::now()) {
                    if finding.concerns_clients() {
                        self.warn(&files.cert, &section, finding.to_string());
                    }
                }
            }
            Some(Err(why)) => self.error(&files.cert, &section, why),
        }
    }

    fn pair(&self, files: &CertificateFiles) -> Option<Result<Pair, String>> {
        let read = |path: &PathBuf| self.files.get(path)?.as_deref();
        let parsed = Pair::parse(PairFiles {
            certificate: read(&files.cert)?,
            key: match &files.key {
                Some(key) => Some(read(key)?),
                None => None,
            },
            ocsp: match &files.ocsp {
                Some(ocsp) => Some(read(ocsp)?),
                None => None,
            },
        });
        Some(parsed.map_err(|why| why.to_string()))
    }

    fn readable_by_others(&mut self, files: &CertificateFiles, section: &str) {
        let path = files.key.as_ref().unwrap_or(&files.cert);
        let is_open = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
        if is_open {
            let text = "others can read this key: chmod 640, and root:convey as its owner".to_owned();
            self.warn(path, section, text);
        }
    }

    fn warn(&mut self, path: &Path, section: &str, message: String) {
        self.warnings
            .push(diagnostic(Severity::Warning, path, section, message));
    }

    fn error(&mut self, path: &Path, section: &str, message: String) {
        self.errors
            .push(diagnostic(Severity::Error, path, section, message));
    }
}

fn diagnostic(severity: Severity, path: &Path, section: &str, message: String) -> Diagnostic {
    Diagnostic {
        severity,
        file: path.display().to_string(),
        line: 0,
        column: 0,
        span: 0..0,
        path: section.to_owned(),
        message,
        help: None,
    }
}

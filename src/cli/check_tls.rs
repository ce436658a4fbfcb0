//! What `convey check` says of the files that `[frontends.NAME.tls]` and `[backends.NAME.tls]` name.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    base::FrontendName,
    config::{
        self, BackendTls, CertificateFiles, Config, Diagnostic, DirectoryFile, FrontendTls,
        MAX_DIRECTORY_ENTRIES, SYSTEM_CAS, ServerTrust, Severity,
    },
    privilege::{DIRECTORY_FILE_BYTES, TLS_FILE_BYTES},
    sys::{config_file, directory},
    tls::{
        self, CertificateFinding, CertificateStore, ClientSettings, Pair, PairFiles, StaleList, TicketKeys,
        Trust,
    },
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
            found.read(path, TLS_FILE_BYTES);
        }
    }
    if let Some(files) = config.admin.api.as_ref().and_then(|api| api.tls.as_ref()) {
        found.certificate(files, "admin.tls");
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
            found.servers_tls(&format!("backends.{name}.tls"), tls);
        }
        if let Some(tls) = backend.health_check.as_ref().and_then(|check| check.tls.as_ref()) {
            found.servers_tls(&format!("backends.{name}.health_check.tls"), tls);
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
    fn read(&mut self, path: &Path, limit: usize) {
        let read = config_file::read(path, limit);
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
        let mut certificates = tls.certificates.clone();
        let is_listed = match &tls.certificate_dir {
            None => true,
            Some(dir) => {
                match self.directory(dir, tls.certificates.is_empty() && tls.acme.is_none(), &section) {
                    Some(found) => {
                        certificates.extend(
                            found
                                .into_iter()
                                .filter(|files| !tls.certificates.contains(files)),
                        );
                        true
                    }
                    None => false,
                }
            }
        };
        for files in &certificates {
            let pair = self.certificate(files, &section);
            pairs.extend(pair.map(|pair| (files.cert.display().to_string().into(), pair.into())));
        }
        for path in &tls.client_crl {
            let content = self
                .files
                .get(path)
                .and_then(Option::as_deref)
                .unwrap_or_default();
            for list in StaleList::all(content, SystemTime::now()) {
                self.warn(path, &section, list.sentence(tls.client_crl_policy));
            }
        }
        // one that could not be read may cover a name
        if let Some(first) = certificates.first()
            && is_listed
            && pairs.len() == certificates.len()
        {
            for pattern in tls::uncovered(&CertificateStore::new(pairs).current(), wanted) {
                let is_ordered = tls.acme.as_ref().is_some_and(|order| order.covers(pattern));
                if !is_ordered {
                    self.warn(&first.cert, &section, format!("no certificate covers {pattern}"));
                }
            }
        }
    }

    /// A certificate, with what is wrong with it; `None` if it cannot be used, which has been said.
    fn certificate(&mut self, files: &CertificateFiles, section: &str) -> Option<Pair> {
        self.readable_by_others(files, section);
        // what could not be read was said
        match self.pair(files)? {
            Ok(pair) => {
                for finding in CertificateFinding::all(&pair, SystemTime::now()) {
                    self.warn(&files.cert, section, finding.to_string());
                }
                Some(pair)
            }
            Err(why) => {
                self.error(&files.cert, section, why);
                None
            }
        }
    }

    /// The certificates of a directory, with what is wrong with it; one that `is_alone` must have some. `None`: it cannot be
    /// listed here.
    fn directory(&mut self, dir: &Path, is_alone: bool, section: &str) -> Option<Vec<CertificateFiles>> {
        let names = match directory::names(dir, MAX_DIRECTORY_ENTRIES) {
            Ok(names) => names,
            Err(error) => {
                let mut warning = diagnostic(Severity::Warning, dir, section, error.to_string());
                warning.help = Some("convey does not start where it cannot list it".to_owned());
                self.warnings.push(warning);
                return None;
            }
        };
        let read = names.iter().filter(|name| DirectoryFile::of(name).is_read());
        for path in read.map(|name| dir.join(name)) {
            if !self.files.contains_key(&path) {
                self.read(&path, DIRECTORY_FILE_BYTES);
            }
        }
        let has_key = |name: &str| {
            let content = self.files.get(&dir.join(name)).and_then(Option::as_deref);
            content.is_some_and(tls::has_private_key)
        };
        let names = names.iter().map(String::as_str).collect();
        let (found, unused) = config::certificates_of(dir, &names, has_key);
        if found.is_empty() {
            let text = "the directory has no certificate: each is a file NAME.pem or NAME.crt, with its key inside or in NAME.key";
            match is_alone {
                true => self.error(dir, section, text.to_owned()),
                false => self.warn(dir, section, text.to_owned()),
            }
        }
        if !unused.is_empty() {
            self.warn(dir, section, left_alone(&unused));
        }
        Some(found)
    }

    fn servers_tls(&mut self, section: &str, tls: &BackendTls) {
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
                self.error(path, section, why.to_string());
            }
        }
        let Some(files) = &tls.identity else { return };
        self.readable_by_others(files, section);
        match self.pair(files) {
            None => {}
            Some(Ok(pair)) => {
                for finding in CertificateFinding::all(&pair, SystemTime::now()) {
                    if finding.concerns_clients() {
                        self.warn(&files.cert, section, finding.to_string());
                    }
                }
            }
            Some(Err(why)) => self.error(&files.cert, section, why),
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
        let content = self.files.get(path).and_then(Option::as_deref);
        if is_open && content.is_some_and(tls::has_private_key) {
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

/// That files of a directory are of no use.
fn left_alone(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names.get(..SHOWN).unwrap_or(names).join(", ");
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "not read: {shown}{more}; certificates are NAME.pem and NAME.crt, with NAME.key and NAME.ocsp beside them"
    )
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

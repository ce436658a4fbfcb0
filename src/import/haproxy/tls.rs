//! TLS that ends at a frontend: the words of `bind` about it.

use crate::import::{Files, InputFile, NoteKind, Value, names};

/// What all `bind` lines share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Where relative certificates are.
    pub crt_base: String,
    /// Where relative CAs are.
    pub ca_base: String,
    /// `ssl-default-bind-options`, `-ciphers` and so on, as words of a line.
    pub tls_words: Vec<String>,
}

/// TLS of a frontend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Files with a certificate and its key.
    pub certificates: Vec<String>,
    /// A directory of them.
    pub directory: Option<String>,
    /// Other keys of the section.
    pub keys: Vec<(&'static str, Value)>,
}

impl Ended {
    fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.keys.retain(|(known, _)| *known != key);
        self.keys.push((key, value.into()));
    }
}

/// Reads the words.
#[derive(Debug)]
pub struct Reader<'a> {
    shared: &'a Shared,
    is_http: bool,
    /// What they come to.
    pub ended: Ended,
    /// What is to be noted.
    pub notes: Vec<(String, NoteKind, String)>,
    ciphers: Vec<String>,
    suites: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Before the first word.
    pub fn new(shared: &'a Shared, is_http: bool) -> Self {
        Self {
            shared,
            is_http,
            ended: Ended::default(),
            notes: Vec::new(),
            ciphers: Vec::new(),
            suites: Vec::new(),
        }
    }

    /// Takes a word and its arguments, if it is about TLS.
    pub fn take(
        &mut self,
        word: &str,
        words: &mut std::slice::Iter<'_, String>,
        files: &mut dyn Files,
    ) -> bool {
        let mut argument = || words.next().cloned().unwrap_or_default();
        match word {
            "crt" => {
                let path = argument();
                self.certificate(&path);
            }
            "crt-list" => {
                let path = argument();
                self.list(&path, files);
            }
            "alpn" => {
                let text = argument();
                self.alpn(&text);
            }
            "ssl-min-ver" | "ssl-max-ver" => {
                let text = argument();
                self.version(word, &text);
            }
            "ciphers" => {
                let text = argument();
                self.ciphers = self.known_ciphers(word, &text);
                self.set_ciphers();
            }
            "ciphersuites" => {
                let text = argument();
                self.suites = self.known_ciphers(word, &text);
                self.set_ciphers();
            }
            "curves" | "ecdhe" => {
                let text = argument();
                self.groups(word, &text);
            }
            "ca-file" | "ca-verify-file" => {
                let path = based(&self.shared.ca_base, &argument());
                self.ended.set("client_ca", path);
            }
            "crl-file" => {
                let path = based(&self.shared.ca_base, &argument());
                self.ended.set("client_crl", path);
            }
            "verify" => match argument().as_str() {
                "none" => self.ended.set("client_auth", "none"),
                "optional" => self.ended.set("client_auth", "optional"),
                _ => self.ended.set("client_auth", "required"),
            },
            "strict-sni" => self.ended.set("strict_sni", true),
            "no-tls-tickets" => self.ended.set("tickets", false),
            "force-tlsv12" => {
                self.ended.set("min_version", "1.2");
                self.ended.set("max_version", "1.2");
            }
            "force-tlsv13" | "no-tlsv12" => self.ended.set("min_version", "1.3"),
            "no-tlsv13" => self.ended.set("max_version", "1.2"),
            // older ones there are none, nor what else these turn off
            "ssl" | "no-sslv3" | "no-tlsv10" | "no-tlsv11" | "prefer-client-ciphers" | "tls-tickets" => {}
            "force-sslv3" | "force-tlsv10" | "force-tlsv11" => {
                self.no_equal(word, "Convey speaks TLS 1.2 and 1.3");
            }
            "allow-0rtt" => self.no_equal(word, "early data could be sent again by somebody else"),
            "generate-certificates" | "ktls" => self.no_equal(word, ""),
            "ca-ignore-err" | "crt-ignore-err" | "ca-sign-file" | "ca-sign-pass" | "ocsp-update"
            | "sigalgs" | "client-sigalgs" | "ech" | "no-ca-names" | "default-crt" | "ssl-crt" => {
                let part = format!(
                    "{word} {}",
                    if word == "no-ca-names" {
                        String::new()
                    } else {
                        argument()
                    }
                );
                self.no_equal(part.trim_end(), "");
            }
            _ => return false,
        }
        true
    }

    fn no_equal(&mut self, part: &str, text: &str) {
        self.notes
            .push((part.to_owned(), NoteKind::NoEqual, text.to_owned()));
    }

    fn differs(&mut self, part: &str, text: &str) {
        self.notes
            .push((part.to_owned(), NoteKind::Differs, text.to_owned()));
    }

    /// A file or a directory, which cannot be seen from its name.
    fn certificate(&mut self, path: &str) {
        let full = based(&self.shared.crt_base, path);
        let name = full.rsplit('/').next().unwrap_or_default();
        if name.contains('.') && !name.ends_with(".d") {
            self.ended.certificates.push(full);
            return;
        }
        let text = "taken for a directory, as its name has no ending; of a directory Convey reads NAME.pem and NAME.crt, with the \
                    key inside or in NAME.key. If it is a file, write certificates = [{ cert = \"…\" }]";
        self.differs(&format!("crt {path}"), text);
        self.ended.directory = Some(full.trim_end_matches('/').to_owned());
    }

    fn list(&mut self, path: &str, files: &mut dyn Files) {
        let part = format!("crt-list {path}");
        let read = match files.read(path) {
            Ok(read) => read,
            Err(why) => {
                let text = format!("it was not read: {why}. Name its certificates in `certificates`");
                return self.no_equal(&part, &text);
            }
        };
        let mut has_more = false;
        for file in &read {
            has_more |= self.listed(file);
        }
        self.differs(&part, super::acl::READ_NOW);
        if has_more {
            let text = "its options and names for single certificates: a certificate is chosen by the names that it has";
            self.differs(&part, text);
        }
    }

    /// Takes a list's certificates; whether it says more than their paths.
    fn listed(&mut self, file: &InputFile) -> bool {
        let mut has_more = false;
        for line in file.text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            if let Some(path) = words.next() {
                self.ended.certificates.push(based(&self.shared.crt_base, path));
            }
            has_more |= words.next().is_some();
        }
        has_more
    }

    fn alpn(&mut self, text: &str) {
        let mut protocols: Vec<&str> = text.split(',').filter(|protocol| !protocol.is_empty()).collect();
        if self.is_http && protocols.contains(&"h2") {
            let text = "h2 is left out: HAProxy speaks HTTP/1 to the servers, Convey passes on what the client speaks";
            self.differs("alpn", text);
            protocols.retain(|protocol| *protocol != "h2");
        }
        if !protocols.is_empty() {
            self.ended.set("alpn", protocols);
        }
    }

    fn version(&mut self, word: &str, text: &str) {
        let key = if word == "ssl-min-ver" {
            "min_version"
        } else {
            "max_version"
        };
        match text {
            "TLSv1.2" => self.ended.set(key, "1.2"),
            "TLSv1.3" => self.ended.set(key, "1.3"),
            _ if key == "min_version" => {
                self.differs(&format!("{word} {text}"), "Convey speaks TLS 1.2 and 1.3 only");
            }
            _ => self.no_equal(&format!("{word} {text}"), "Convey speaks TLS 1.2 and 1.3 only"),
        }
    }

    fn known_ciphers(&mut self, word: &str, text: &str) -> Vec<String> {
        let names::Sorted { known, unknown } = names::ciphers(text);
        if !unknown.is_empty() {
            let part = format!("{word} {}", unknown.join(":"));
            let text = match known.is_empty() {
                true => "Convey has none of these: its own choice of suites holds",
                false => "Convey does not have these: the others hold",
            };
            self.differs(&part, text);
        }
        known
    }

    fn set_ciphers(&mut self) {
        self.ended.keys.retain(|(key, _)| *key != "ciphers");
        if let Some(suites) = names::suites(&self.suites, &self.ciphers) {
            self.ended.set("ciphers", suites);
        }
    }

    fn groups(&mut self, word: &str, text: &str) {
        let names::Sorted { known, unknown } = names::groups(text);
        if !unknown.is_empty() {
            let part = format!("{word} {}", unknown.join(":"));
            self.differs(&part, "Convey does not have these groups");
        }
        if !known.is_empty() {
            self.ended.set("groups", known);
        }
    }
}

/// A path below the base for relative ones.
pub fn based(base: &str, path: &str) -> String {
    match path.starts_with(['/', '@']) || base.is_empty() {
        true => path.to_owned(),
        false => format!("{}/{path}", base.trim_end_matches('/')),
    }
}

//! Removing secrets from texts of all kinds: by what they look like, and by what they are where that is known.

use std::{borrow::Cow, collections::BTreeSet};

use regex::bytes::{Captures, Regex};

use crate::config::without_secrets;

/// What stands in the place of a secret.
const REMOVED: &[u8] = b"[removed]";

/// Shortest text that is taken for a secret wherever it stands: shorter ones are parts of words.
const SHORTEST: usize = 4;

/// What secrets look like; the group `secret` is removed.
const LOOKS: [&str; 12] = [
    // private keys and whatever else is no certificate; one without an end goes to the end
    r"(?s-u)-----BEGIN (?:[A-Z0-9 ]*PRIVATE KEY|[A-Z0-9 ]*PARAMETERS)-----(?P<secret>.*?)(?:-----END [A-Z0-9 ]*-----|\z)",
    // tokens of the admin API, and the hashes by which they are known
    r"(?-u)cvy_(?P<secret>[A-Za-z0-9_-]{8,})",
    r"(?-u)sha256:(?P<secret>[0-9a-fA-F]{64})",
    // who asks for a URL
    r"(?-u)://(?P<secret>[^/@\s\x22']+)@",
    // queries of URLs: signatures have many names
    r"(?-u)://[^\s\x22'?]+\?(?P<secret>[^\s\x22'#]+)",
    // what commands are started with, but for the program
    r"(?s-u)\bcommand[\x22']?\s*[:=]\s*\[\s*(?:\x22(?:[^\x22\\]|\\.)*\x22|'[^']*')\s*,(?P<secret>(?:\s*(?:\x22(?:[^\x22\\]|\\.)*\x22|'[^']*')\s*,?)+)",
    // what is sent to servers, and expected of them, by checks; and what findings quote of it
    r"(?s-u)\b(?:send|expect)[a-z_]*[\x22']?\s*[:=]\s*(?P<secret>\x22{3}.*?\x22{3}|'{3}.*?'{3}|\x22(?:[^\x22\\\n]|\\.)*\x22|'[^'\n]*')",
    r"(?-u)\b(?:answered|instead of) \\?\x22(?P<secret>[^\x22]*?)\\?\x22",
    // headers
    r"(?i-u)\b(?:proxy-)?authorization[\x22']?\s*[:=]\s*[\x22']?(?:(?:bearer|basic|digest|token)\s+)?(?P<secret>[^\s\x22',;]+)",
    r"(?i-u)\bbearer\s+(?P<secret>[A-Za-z0-9._~+/=-]{6,})",
    // JSON web tokens
    r"(?-u)\b(?P<secret>eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)",
    // assignments, in TOML, JSON, YAML, the environment and queries
    r"(?i-u)[A-Za-z0-9_.-]*(?:password|passwd|passphrase|secret|token|api_?key|access_?key|hmac|credential|hash_seed)[A-Za-z0-9_-]*[\x22']?\s*[:=]\s*(?P<secret>\x22{3}(?s:.*?)\x22{3}|'{3}(?s:.*?)'{3}|\x22[^\x22\n]*\x22|'[^'\n]*'|[^\s\x22',;&\]}]+)",
];

/// Knows what is to be removed.
pub struct Scrubber {
    looks: Vec<Regex>,
    /// Secrets that were found where they are kept, the longest first.
    known: Vec<Vec<u8>>,
    environment: Option<Regex>,
}

impl Scrubber {
    /// One that also removes these secrets wherever they stand, and the values of these variables.
    pub fn new(known: impl IntoIterator<Item = Vec<u8>>, variables: &BTreeSet<String>) -> Self {
        let mut known: Vec<Vec<u8>> = (known.into_iter())
            .map(|secret| secret.trim_ascii().to_vec())
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        let names: Vec<String> = variables.iter().map(|name| regex::escape(name)).collect();
        let environment = format!(
            r"(?-u)\b(?:{})=(?P<secret>\x22[^\x22\n]*\x22|'[^'\n]*'|[^\s\x22']*)",
            names.join("|")
        );
        Self {
            // a test makes them all
            looks: LOOKS.iter().filter_map(|look| Regex::new(look).ok()).collect(),
            known,
            environment: (!names.is_empty())
                .then(|| Regex::new(&environment).ok())
                .flatten(),
        }
    }

    /// The text without secrets.
    pub fn scrub(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for secret in &self.known {
            text = without(&text, secret);
        }
        for look in self.looks.iter().chain(&self.environment) {
            if let Cow::Owned(changed) = look.replace_all(&text, |found: &Captures<'_>| replaced(found)) {
                text = changed;
            }
        }
        text
    }

    /// The text of a configuration without secrets: line by line as findings show them, too.
    pub fn scrub_config(&self, text: &[u8]) -> Vec<u8> {
        let lines = text
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(without_secrets);
        let text = lines.collect::<Vec<u8>>();
        // a comment that speaks of a secret may go on to tell it
        let commented = Regex::new(
            r"(?im-u)#(?P<secret>[^\n]*(?:password|passwd|secret|credential|hash_seed|api_?key|\bpw\b)[^\n]*)$",
        );
        let text = commented.map_or_else(
            |_| text.clone(),
            |look| {
                let replaced = look.replace_all(&text, |_: &Captures<'_>| [b"# ", REMOVED].concat());
                replaced.into_owned()
            },
        );
        self.scrub(&text)
    }
}

/// The match with its secret removed, unless that says where the secret is.
fn replaced(found: &Captures<'_>) -> Vec<u8> {
    let (Some(whole), Some(secret)) = (found.get(0), found.name("secret")) else {
        return Vec::new();
    };
    let bytes = whole.as_bytes();
    let (from, to) = (secret.start() - whole.start(), secret.end() - whole.start());
    let value = secret.as_bytes();
    let bare = value
        .strip_prefix(b"\"")
        .or(value.strip_prefix(b"'"))
        .unwrap_or(value);
    let key = bytes.get(..from).unwrap_or_default();
    let end = key
        .iter()
        .rposition(|byte| !b"=: \t\"'".contains(byte))
        .map_or(0, |at| at + 1);
    let names_a_file = key.get(..end).is_some_and(|key| key.ends_with(b"_file"));
    if names_a_file || bare.starts_with(b"file:/") || bare.starts_with(b"${") {
        return bytes.to_vec();
    }
    [bytes.get(..from), Some(REMOVED), bytes.get(to..)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .concat()
}

fn without(text: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(REMOVED);
        rest = after.get(secret.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(text: &str) -> String {
        let scrubber = Scrubber::new([b"from a file\n".to_vec()], &["CONSUL_ACL".to_owned()].into());
        String::from_utf8(scrubber.scrub(text.as_bytes())).expect("UTF-8")
    }

    #[test]
    fn every_look_is_known() {
        assert_eq!(Scrubber::new([], &BTreeSet::new()).looks.len(), LOOKS.len());
    }

    #[test]
    fn secrets_are_removed_by_what_they_look_like() {
        for (text, shown) in [
            (
                "a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b",
                "a -----BEGIN EC PRIVATE KEY-----[removed]-----END EC PRIVATE KEY----- b",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMHc",
                "-----BEGIN PRIVATE KEY-----[removed]",
            ),
            ("token cvy_abcdefgh12345 of x", "token cvy_[removed] of x"),
            ("GET http://joe:hunter2@a/x", "GET http://[removed]@a/x"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [removed]"),
            (
                "\"authorization\": \"Basic am9l\"",
                "\"authorization\": \"Basic [removed]\"",
            ),
            ("with bearer abcdefgh", "with bearer [removed]"),
            ("X-Consul-Token: 1234-5678", "X-Consul-Token: [removed]"),
            (
                "Environment=CONSUL_TOKEN=abc",
                "Environment=CONSUL_TOKEN=[removed]",
            ),
            (
                "Environment=\"CONSUL_ACL=abc\" B=1",
                "Environment=\"CONSUL_ACL=[removed]\" B=1",
            ),
            ("db_password = 'a b'  # x", "db_password = [removed]  # x"),
            ("{\"secret\":\"x\",\"b\":1}", "{\"secret\":[removed],\"b\":1}"),
            ("/path?token=abc&b=1", "/path?token=[removed]&b=1"),
            (
                "\"https://s3.example/x?sig=abc&key=1\"",
                "\"https://s3.example/x?[removed]\"",
            ),
            ("hash_seed = \"abc\"", "hash_seed = [removed]"),
            ("\"hash_seed\": \"abc\"", "\"hash_seed\": [removed]"),
            (
                "password = \"\"\"a\nb\"\"\"\nx = 1",
                "password = [removed]\nx = 1",
            ),
            (
                "command = [\"/bin/x\", \"-p\", 'a ] b'] # c",
                "command = [\"/bin/x\",[removed]] # c",
            ),
            ("command = [\"/bin/x\"]", "command = [\"/bin/x\"]"),
            ("send = \"\"\"AUTH a\nb\"\"\"\nx = 1", "send = [removed]\nx = 1"),
            ("\"send\":\"AUTH \\\"a\",\"b\":1", "\"send\":[removed],\"b\":1"),
            (
                "check: answered \"AUTH a\" instead of \"OK b\"",
                "check: answered \"[removed]\" instead of \"[removed]\"",
            ),
            (
                "\"answered \\\"AUTH a\\\" instead of \\\"OK\\\"\"",
                "\"answered \\\"[removed]\\\" instead of \\\"[removed]\\\"\"",
            ),
            ("jwt eyJhbGciOi.eyJzdWIi.c2ln!", "jwt [removed]!"),
            (
                "it is from a file, twice: from a file",
                "it is [removed], twice: [removed]",
            ),
        ] {
            assert_eq!(scrubbed(text), shown);
        }
        let hash = format!("ci operate sha256:{}", "0a".repeat(32));
        assert_eq!(scrubbed(&hash), "ci operate sha256:[removed]");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "token = \"file:/etc/convey/token\"",
            "token = \"${CONSUL_TOKEN}\"",
            "tokens_file = \"/etc/convey/tokens\"",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "https://lb1.example.com/x@y",
            "listen_addr = \"192.0.2.1:80\"",
            "a token of gratitude",
        ] {
            assert_eq!(scrubbed(text), text);
        }
    }

    #[test]
    fn a_configuration_loses_what_findings_do_not_show_either() {
        let scrubber = Scrubber::new([], &BTreeSet::new());
        let shown = scrubber.scrub_config(b"[a]\ntokn = \"hunter2\"\nb = 1\n");
        assert_eq!(shown, b"[a]\ntokn = \"*******\"\nb = 1\n");
        let shown = scrubber.scrub_config(b"# password = \"x\" old pw: y\nb = 1 # fine\n");
        assert_eq!(shown, b"# [removed]\nb = 1 # fine\n");
    }
}

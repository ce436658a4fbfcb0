//! The words of a `server` behind its address.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// What a server is told, or all of them by `default-server`.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    values: BTreeMap<&'static str, Rc<str>>,
    flags: BTreeSet<&'static str>,
    /// Words that are not known, with their arguments as far as these are.
    pub unknown: Vec<String>,
}

/// Those with one argument.
const VALUES: [&str; 61] = [
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "ca-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "cookie",
    "crl-file",
    "crt",
    "curves",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "force-tlsv12",
    "guid",
    "hash-key",
    "id",
    "init-addr",
    "init-state",
    "inter",
    "interface",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "set-proxy-v2-tlv-fmt",
    "slowstart",
    "sni",
    "socks4",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
];

/// Further ones.
const MORE_VALUES: [&str; 6] = ["verify", "verifyhost", "weight", "ws", "shard", "source"];

/// Those without.
const FLAGS: [&str; 21] = [
    "agent-check",
    "allow-0rtt",
    "backup",
    "check",
    "check-pool-conn-name",
    "check-reuse-pool",
    "check-send-proxy",
    "check-ssl",
    "check-via-socks4",
    "disabled",
    "enabled",
    "non-stick",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "sni-auto",
    "ssl",
    "ssl-reuse",
    "tfo",
    "tls-tickets",
];

impl Parameters {
    /// Takes further words; what they say replaces what was said before.
    pub fn take(&mut self, words: &[String]) {
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let value = VALUES.iter().chain(&MORE_VALUES).find(|known| *known == word);
            let flag = FLAGS.iter().find(|known| *known == word);
            let opposite = word
                .strip_prefix("no-")
                .and_then(|word| FLAGS.iter().find(|known| **known == word));
            match (value, flag, opposite) {
                (Some(&"source"), ..) => {
                    let address = words.next().cloned().unwrap_or_default();
                    self.values.insert("source", address.as_str().into());
                    if let Some(word) = words.next_if(|word| ["usesrc", "interface"].contains(&word.as_str()))
                    {
                        let key = if word == "usesrc" { "usesrc" } else { "interface" };
                        self.values
                            .insert(key, words.next().map_or("", String::as_str).into());
                    }
                }
                (Some(key), ..) => {
                    self.values
                        .insert(key, words.next().map_or("", String::as_str).into());
                }
                (_, Some(&"enabled"), _) => {
                    self.flags.remove("disabled");
                }
                (_, Some(key), _) => {
                    self.flags.insert(key);
                }
                (.., Some(key)) => {
                    self.flags.remove(key);
                }
                // older versions, and what Convey has not anyway
                _ if ["no-sslv3", "no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13"]
                    .contains(&word.as_str()) => {}
                _ => self.unknown.push(word.clone()),
            }
        }
    }

    /// The argument of a word.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| &**value)
    }

    /// Whether a word was there.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// The version of the PROXY protocol that the server gets.
    pub fn send_proxy(&self) -> Option<&'static str> {
        let v2 = ["send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"];
        if v2.iter().any(|flag| self.has(flag)) {
            Some("v2")
        } else if self.has("send-proxy") {
            Some("v1")
        } else {
            None
        }
    }

    /// What else its header says.
    pub fn tlvs(&self) -> Vec<&'static str> {
        let mut tlvs = BTreeSet::new();
        if self.has("send-proxy-v2-ssl") || self.has("send-proxy-v2-ssl-cn") {
            tlvs.insert("ssl");
        }
        for option in self.value("proxy-v2-options").unwrap_or_default().split(',') {
            tlvs.extend(match option {
                "ssl" | "cert-cn" | "ssl-cipher" | "cert-sig" | "cert-key" => Some("ssl"),
                "authority" => Some("authority"),
                "crc32c" => Some("crc32c"),
                "unique-id" => Some("unique_id"),
                _ => None,
            });
        }
        tlvs.into_iter().collect()
    }

    /// Known words that have no equal, each with why.
    pub fn without_equal(&self) -> Vec<(String, &'static str)> {
        let mut parts: Vec<(String, &'static str)> =
            self.unknown.iter().map(|word| (word.clone(), "")).collect();
        for (key, value) in &self.values {
            let why = match *key {
                "cookie" => "Convey reads no HTTP: `sticky` of the backend keeps a client at its server",
                "downinter" => "a server that is down is checked at the interval, too",
                "minconn" | "maxqueue" => "see max_connections of a server, and max_queue of the backend",
                "on-error" => {
                    "after max_failures a server is ejected for a while, whatever its checks say before and after"
                }
                "on-marked-up" => "connections to servers of a worse priority go on",
                "track" => {
                    "each server is checked: `share` in health_check spares the second check of an address"
                }
                "namespace" | "socks4" => "servers are connected from where Convey runs",
                "resolvers" | "resolve-prefer" | "resolve-net" | "resolve-opts" => {
                    "a name is resolved as this host does it; see discovery with kind = \"dns\" for resolvers"
                }
                "init-state" => "see `initial` in health_check",
                "redir" => "Convey reads no HTTP",
                "ssl-min-ver" | "ssl-max-ver" | "ciphers" | "ciphersuites" | "curves" | "crl-file"
                | "client-sigalgs" => {
                    "to servers Convey speaks TLS 1.2 and 1.3 with what both sides like best"
                }
                "check-sni" | "check-alpn" | "check-proto" => "see `tls` in health_check",
                "tcp-ut" => "see tcp_user_timeout of the frontend",
                "set-proxy-v2-tlv-fmt" => "see send_proxy_tlvs",
                "agent-addr" => "an agent is asked at the address of the server, or at its check_addr",
                _ => continue,
            };
            parts.push((format!("{key} {value}"), why));
        }
        if self.has("non-stick") {
            let why = "a client stays with it, too, where the backend has `sticky`";
            parts.push(("non-stick".to_owned(), why));
        }
        if self.has("check-send-proxy") && self.send_proxy().is_none() {
            let why = "checks have a PROXY header where connections have one: see send_proxy of the backend";
            parts.push(("check-send-proxy".to_owned(), why));
        }
        if self.has("sni-auto") {
            parts.push(("sni-auto".to_owned(), "see server_name in the backend's tls"));
        }
        parts
    }
}

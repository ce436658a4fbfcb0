//! Configurations of other load balancers: one finding says what it is, in place of one for each line.

use std::ops::Range;

/// Whose configuration a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// HAProxy's.
    HaProxy,
    /// nginx's.
    Nginx,
}

impl Foreign {
    /// What is wrong.
    pub const fn message(self) -> &'static str {
        match self {
            Self::HaProxy => "this is an HAProxy configuration: Convey has a format of its own, in TOML",
            Self::Nginx => "this is an nginx configuration: Convey has a format of its own, in TOML",
        }
    }

    /// What would be right.
    pub const fn help(self) -> &'static str {
        match self {
            Self::HaProxy => {
                "`convey import haproxy FILE` translates it, with a comment at what has no equal; or `convey init` writes a file to \
                 start from: `frontend web` is [frontends.web], `bind *:80` is listen_addr = \
                 \"0.0.0.0:80\", `default_backend app` is backend = \"app\", `backend app` is [backends.app], `server one \
                 10.0.0.11:8080` is servers.one = { addr = \"10.0.0.11:8080\" }"
            }
            Self::Nginx => {
                "`convey import nginx FILE` translates it, with a comment at what has no equal; or `convey init` writes a file to \
                 start from: `upstream app { server 10.0.0.11:8080; }` is [backends.app] with \
                 servers.one = { addr = \"10.0.0.11:8080\" }, `listen 80; proxy_pass app;` is [frontends.web] with listen_addr = \
                 \"0.0.0.0:80\" and backend = \"app\""
            }
        }
    }
}

/// Lines that speak for one of them before it is believed.
const ENOUGH: usize = 2;

/// Whose configuration a text is, and the first line that says so. It must be no TOML: there a string may say anything.
pub fn recognise(text: &str) -> Option<(Foreign, Range<usize>)> {
    let mut haproxy = Evidence::default();
    let mut nginx = Evidence::default();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split('#').next().unwrap_or_default().trim();
        let start = offset + (line.len() - line.trim_start().len());
        let place = start..start + code.len();
        offset += line.len();
        if code.contains('=') || code.starts_with('[') {
            continue;
        }
        if is_haproxy(code) {
            haproxy.add(place);
        } else if is_nginx(code) {
            nginx.add(place);
        }
    }
    let found = |foreign, evidence: Evidence| {
        let first = evidence.first.filter(|_| evidence.lines >= ENOUGH)?;
        Some((foreign, first))
    };
    match haproxy.lines >= nginx.lines {
        true => found(Foreign::HaProxy, haproxy),
        false => found(Foreign::Nginx, nginx),
    }
}

#[derive(Default)]
struct Evidence {
    lines: usize,
    first: Option<Range<usize>>,
}

impl Evidence {
    fn add(&mut self, place: Range<usize>) {
        self.lines += 1;
        self.first.get_or_insert(place);
    }
}

fn is_haproxy(code: &str) -> bool {
    let mut words = code.split_whitespace();
    let (first, second, third) = (words.next(), words.next(), words.next());
    match (first, second, third) {
        _ if code.ends_with([';', '{', '}', ':', ',']) => false,
        (Some("global" | "defaults"), None, _)
        | (Some("frontend" | "backend" | "listen" | "defaults"), Some(_), None)
        | (
            Some("bind" | "mode" | "balance" | "maxconn" | "default_backend" | "use_backend" | "option"),
            Some(_),
            _,
        )
        | (Some("timeout" | "server" | "tcp-request"), Some(_), Some(_)) => true,
        _ => false,
    }
}

fn is_nginx(code: &str) -> bool {
    let word = code.split_whitespace().next().unwrap_or_default();
    let opens = ["http", "stream", "events", "server", "upstream", "location"];
    let ends = [
        "listen",
        "server",
        "proxy_pass",
        "server_name",
        "worker_processes",
        "worker_connections",
        "least_conn",
        "proxy_timeout",
        "proxy_connect_timeout",
        "include",
        "user",
        "error_log",
        "root",
        "hash",
        "ip_hash",
        "ssl_preread",
        "proxy_protocol",
    ];
    (code.ends_with('{') && opens.contains(&word))
        || (code.ends_with(';') && ends.contains(&word.trim_end_matches(';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_no_proof_and_prose_is_none() {
        for text in [
            "",
            "mode tcp\n",
            "server {\n",
            "a = 1\nb = 2\n",
            "frontends:\n  web:\n    listen: 80\n",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_line_that_says_so_is_pointed_at() {
        let haproxy = "# ours\n\nglobal\n    maxconn 100\nfrontend web\n    bind *:80\n";
        assert_eq!(recognise(haproxy), Some((Foreign::HaProxy, 8..14)));
        let nginx = "stream {\n  upstream app {\n    server 10.0.0.1:80;\n  }\n}\n";
        assert_eq!(recognise(nginx), Some((Foreign::Nginx, 0..8)));
    }
}

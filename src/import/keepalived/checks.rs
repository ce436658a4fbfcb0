//! Checks of a server: what each asks for, in Convey's keys.

use std::{net::IpAddr, time::Duration};

use super::{
    Names,
    blocks::Entry,
    settings::{Settings, Timers, flag, seconds},
    unknown,
};
use crate::import::{DirectiveId, Draft, NoteKind, Value, paths, port_names};

/// What surrounds a check.
pub struct Outer<'a> {
    /// The server's address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Times of the blocks around.
    pub timers: &'a Timers,
    /// The name that HTTP asks for.
    pub virtualhost: Option<&'a str>,
}

/// A check.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its directive.
    pub id: DirectiveId,
    /// How much it says of a server; 0 is nothing that Convey can ask.
    pub rank: u8,
    /// Keys of `health_check`.
    pub keys: Vec<(&'static str, Value)>,
    /// Keys of `health_check.tls`.
    pub tls: Option<Vec<(&'static str, Value)>>,
    /// Where it asks, if that is not the server.
    pub target: Option<(IpAddr, u16)>,
    /// What needs a note.
    pub settings: Settings,
    /// Said instead of `kind`.
    pub instead: Option<(NoteKind, &'static str)>,
}

/// Whether a keyword is a check.
pub fn is_check(keyword: &str) -> bool {
    matches!(
        keyword,
        "TCP_CHECK"
            | "HTTP_GET"
            | "SSL_GET"
            | "SMTP_CHECK"
            | "DNS_CHECK"
            | "MISC_CHECK"
            | "UDP_CHECK"
            | "PING_CHECK"
            | "BFD_CHECK"
            | "FILE_CHECK"
    )
}

/// Reads a check.
pub fn read(
    entry: &Entry,
    id: DirectiveId,
    outer: &Outer<'_>,
    names: &Names<'_>,
    draft: &mut Draft,
) -> Check {
    let mut reader = Reader {
        kind: entry.keyword(),
        outer,
        names,
        draft,
        timers: Timers::default(),
        target: (None, None),
        timeout: None,
        virtualhost: outer.virtualhost.map(str::to_owned),
        has_sni: false,
        urls: 0,
        check: Check {
            id,
            rank: 0,
            keys: Vec::new(),
            tls: None,
            target: None,
            settings: Settings::default(),
            instead: None,
        },
    };
    for member in entry.block.iter().flatten() {
        let id = reader.names.register(member, reader.draft);
        reader.member(member, id);
    }
    reader.end()
}

struct Reader<'a, 'b> {
    kind: &'a str,
    outer: &'a Outer<'a>,
    names: &'a Names<'b>,
    draft: &'a mut Draft,
    timers: Timers,
    target: (Option<IpAddr>, Option<u16>),
    timeout: Option<Duration>,
    virtualhost: Option<String>,
    has_sni: bool,
    urls: usize,
    check: Check,
}

const UNREAD: &str = "its value cannot be read";

impl Reader<'_, '_> {
    fn key(&mut self, id: DirectiveId, key: &'static str, value: Option<impl Into<Value>>) {
        match value {
            Some(value) => {
                self.check.keys.push((key, value.into()));
                self.draft.translated(id);
            }
            None => self.check.settings.no_equal(id, UNREAD),
        }
    }

    fn member(&mut self, entry: &Entry, id: DirectiveId) {
        if self.timers.take(entry, id, &mut self.check.settings, self.draft) {
            return;
        }
        let word = entry.word(1);
        let settings = &mut self.check.settings;
        match (self.kind, entry.keyword()) {
            (_, "connect_ip") => {
                self.target.0 = word.and_then(|ip| ip.parse().ok());
                self.draft.translated(id);
            }
            (_, "connect_port") => {
                self.target.1 = word.and_then(port_names::port);
                self.draft.translated(id);
            }
            (_, "bindto") => {
                let ip = word.and_then(|ip| ip.parse::<IpAddr>().ok());
                self.key(id, "source_addr", ip.map(|ip| ip.to_string()));
            }
            (_, "bind_if") => settings.no_equal(id, "server_socket.interface of a backend is for its checks and connections alike"),
            (_, "bind_port") => settings.no_equal(id, "checks come from a port of the kernel's choice"),
            (_, "fwmark") => settings.no_equal(id, "server_socket.mark of a backend is for its checks and connections alike"),
            ("HTTP_GET" | "SSL_GET", "url") => self.url(entry, id),
            ("HTTP_GET" | "SSL_GET", "virtualhost") => {
                self.virtualhost = word.map(str::to_owned);
                self.draft.translated(id);
            }
            ("HTTP_GET" | "SSL_GET", "http_protocol") => match word {
                Some("1.1") => self.draft.translated(id),
                _ => settings.differs(id, "requests are of HTTP/1.1, with a Host header, and ask to close the connection"),
            },
            ("SSL_GET", "enable_sni") => {
                self.has_sni = flag(entry) != Some(false);
                self.draft.translated(id);
            }
            ("SMTP_CHECK", "helo_name") => settings.no_equal(id, "Convey gives a name of its own"),
            // another SMTP server, of old
            ("SMTP_CHECK", "host") => settings.no_equal(id, "a server is checked at one address: check_addr of the server names another"),
            ("DNS_CHECK", "name") => match word.map(|name| name.trim_end_matches('.')) {
                Some("") => self.draft.translated(id),
                name => self.key(id, "name", name),
            },
            ("DNS_CHECK", "type") => {
                settings.differs(id, "Convey asks for addresses (A); any answer but a failure passes");
            }
            ("MISC_CHECK", "misc_path") => self.command(entry, id),
            ("MISC_CHECK", "misc_timeout") => {
                self.timeout = word.and_then(seconds);
                self.draft.translated(id);
            }
            ("MISC_CHECK", "misc_dynamic") => settings.no_equal(
                id,
                "an exit status does not set a weight: any but 0 is down. [backends.NAME.agent_check] asks servers for their weight",
            ),
            ("MISC_CHECK", "user") => settings.no_equal(id, "commands run as Convey's user, without capabilities: see COMMANDS in convey(8)"),
            ("UDP_CHECK", "payload") => {
                let hex = hex(&entry.words).map(|hex| Value::table([("hex", hex)]));
                self.key(id, "send", hex);
            }
            ("UDP_CHECK", "require_reply") => match entry.words.len() {
                1 => self.key(id, "expect", Some(Value::table([("regex", "(?s-u).")]))),
                _ => match hex(&entry.words) {
                    Some(hex) => self.key(id, "expect", Some(Value::table([("hex", hex)]))),
                    None => settings.no_equal(id, "an answer is compared byte by byte, without gaps: expect can be { regex = \"…\" }"),
                },
            },
            ("UDP_CHECK", "min_reply_length" | "max_reply_length") => {
                settings.no_equal(id, "the length of an answer does not matter: expect says what it begins with");
            }
            ("HTTP_GET" | "SSL_GET", "fast_recovery")
            | ("BFD_CHECK", "name")
            | ("FILE_CHECK", "track_file" | "weight" | "dynamic") => self.draft.translated(id),
            (_, keyword) => settings.no_equal(id, unknown(keyword)),
        }
    }

    fn url(&mut self, entry: &Entry, id: DirectiveId) {
        self.urls += 1;
        let is_first = self.urls == 1;
        match is_first {
            true => self.draft.translated(id),
            false => self
                .check
                .settings
                .no_equal(id, "a check asks for one URL: the first one counts"),
        }
        for member in entry.block.iter().flatten() {
            let id = self.names.register(member, self.draft);
            if !is_first {
                self.draft.translated(id);
                continue;
            }
            let word = member.word(1);
            let settings = &mut self.check.settings;
            match member.keyword() {
                "path" => {
                    let path = word.filter(|path| is_path(path));
                    self.key(id, "path", path);
                }
                "virtualhost" => {
                    self.virtualhost = word.map(str::to_owned);
                    self.draft.translated(id);
                }
                "status_code" => {
                    let codes: Option<Vec<Value>> = member.words[1..].iter().map(|code| status(code)).collect();
                    let codes = codes.filter(|codes| (1..=32).contains(&codes.len())).map(Value::List);
                    self.key(id, "status", codes);
                }
                "digest" => settings.no_equal(
                    id,
                    "contents have no checksum here: name a text of the page, expect = \"…\", which is somewhere in it",
                ),
                "regex" => {
                    let pattern = word.filter(|pattern| !pattern.is_empty() && regex::Regex::new(pattern).is_ok());
                    self.key(id, "expect", pattern.map(|pattern| Value::table([("regex", pattern)])));
                }
                "regex_no_match" => settings.no_equal(id, "the page must have what expect says: an expression for what it must not have fails"),
                "regex_options" | "regex_stack" | "regex_min_offset" | "regex_max_offset" => settings.no_equal(
                    id,
                    "options are written in the expression, such as (?i); it is looked for in the first 16384 bytes",
                ),
                keyword => settings.no_equal(id, unknown(keyword)),
            }
        }
    }

    /// `misc_path`: one word with blanks in it, or several.
    fn command(&mut self, entry: &Entry, id: DirectiveId) {
        let words: Vec<String> = match &entry.words[1..] {
            [one] => split(one),
            several => several.to_vec(),
        };
        let (ip, port) = (self.outer.ip.to_string(), self.outer.port.to_string());
        let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty())
        else {
            self.check.settings.no_equal(id, UNREAD);
            return;
        };
        let (program, is_moved) = paths::program(program);
        let mut command = vec![Value::Text(program)];
        // what differs between servers in nothing but these is one command for all of them
        command.extend(arguments.iter().map(|word| match word {
            word if *word == ip => Value::from("$host"),
            word if *word == port => Value::from("$port"),
            word => Value::Text(word.clone()),
        }));
        self.key(id, "command", Some(command));
        if is_moved {
            self.check.settings.differs(id, paths::MOVED);
        }
    }

    fn end(mut self) -> Check {
        let timers = self.timers.within(self.outer.timers);
        let port = self.target.1.unwrap_or(self.outer.port);
        let ip = self.target.0.unwrap_or(self.outer.ip);
        self.check.target = ((ip, port) != (self.outer.ip, self.outer.port)).then_some((ip, port));
        let second = Duration::from_secs(1);
        let mut retries = 1;
        let mut delay = second;
        let keys = &mut self.check.keys;
        let has = |keys: &Vec<(&str, Value)>, key| keys.iter().any(|(known, _)| *known == key);
        let kind = match self.kind {
            "TCP_CHECK" => Some(("tcp", 2)),
            "HTTP_GET" | "SSL_GET" => {
                delay = 3 * second;
                if !has(keys, "status") {
                    keys.push(("status", Value::from("200-299")));
                }
                let host = self.virtualhost.filter(|host| is_host(host));
                if self.kind == "SSL_GET" {
                    let mut tls = vec![("verify", Value::Bool(false))];
                    if let Some(host) = host.as_ref().filter(|_| self.has_sni) {
                        tls.push(("server_name", Value::from(host.as_str())));
                    }
                    self.check.tls = Some(tls);
                }
                keys.extend(host.map(|host| ("host", Value::Text(host))));
                Some(("http", 5))
            }
            "SMTP_CHECK" => Some(("smtp", 5)),
            "DNS_CHECK" => {
                retries = 3;
                delay = timers.delay_loop.unwrap_or(60 * second);
                Some(("dns", 5))
            }
            "MISC_CHECK" => {
                retries = 0;
                has(keys, "command").then_some(("exec", 4))
            }
            "UDP_CHECK" => {
                keys.push(("protocol", Value::from("udp")));
                if !has(keys, "send") {
                    keys.push(("send", Value::table([("hex", "00")])));
                }
                Some(("probe", 3))
            }
            _ => None,
        };
        let Some((kind, rank)) = kind else {
            let text = match self.kind {
                "PING_CHECK" => {
                    "Convey sends no echo requests: kind = \"exec\" can run ping, command = [\"ping\", \"-c1\", \"-W1\", \"$host\"]"
                }
                "BFD_CHECK" => "Convey speaks no BFD",
                "FILE_CHECK" => {
                    "Convey reads no weights from files: [backends.NAME.discovery] kind = \"file\" names servers with weights"
                }
                _ => "a check needs its command: misc_path is missing, or no absolute path",
            };
            self.check.instead = Some((NoteKind::NoEqual, text));
            return self.check;
        };
        keys.insert(0, ("kind", Value::from(kind)));
        self.check.rank = rank;
        let interval = timers
            .delay_loop
            .unwrap_or(60 * second)
            .clamp(Duration::from_millis(1), 86_400 * second);
        let timeout = match self.kind {
            "MISC_CHECK" => self.timeout.unwrap_or(interval),
            _ => timers.connect_timeout.unwrap_or(5 * second),
        };
        let timeout = timeout.clamp(Duration::from_millis(1), 3_600 * second);
        let fall = timers.retry.unwrap_or(retries).min(999) + 1;
        let between = timers
            .delay_before_retry
            .unwrap_or(delay)
            .clamp(Duration::from_millis(1), interval);
        keys.push(("interval", Value::duration(interval)));
        keys.push(("timeout", Value::duration(timeout)));
        keys.push(("rise", Value::Integer(1)));
        keys.push(("fall", Value::from(fall)));
        keys.push(("fast_interval", Value::duration(between)));
        let initial = if timers.alpha == Some(true) { "down" } else { "up" };
        keys.push(("initial", Value::from(initial)));
        self.check
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.contains('#')
        && path.len() <= 2_048
}

fn is_host(host: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.len() <= 253 && host.bytes().all(is_known)
}

fn status(code: &str) -> Option<Value> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    match code.split_once('-') {
        None => number(code).map(Value::from),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| Value::Text(format!("{first}-{last}")))
        }
    }
}

/// Pairs of digits as keepalived takes them: a single one between blanks is a byte, too. Nothing if a digit is left open.
fn hex(words: &[String]) -> Option<String> {
    let mut out = String::new();
    for word in words.get(1..)?.iter().flat_map(|word| word.split_whitespace()) {
        if !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (pairs, rest) = word.split_at(word.len() - word.len() % 2);
        out.push_str(pairs);
        if !rest.is_empty() {
            out.push('0');
            out.push_str(rest);
        }
    }
    (!out.is_empty() && out.len() <= 8_192).then(|| out.to_ascii_lowercase())
}

/// A command line as words; single quotes join.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut is_word, mut is_quoted) = (false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                is_word = true;
            }
            c if c.is_whitespace() && !is_quoted => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            c => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

//! Health checks.

use super::{Context, file::Line, parameters::Parameters, proxies::Proxy, servers::Server, time};
use crate::import::{At, NoteKind, SectionId, Value};

/// Translates the checks of a backend.
pub fn translate(
    proxy: &Proxy,
    servers: &[Server],
    backend: &str,
    out: SectionId,
    context: &mut Context<'_>,
) {
    passive(servers, out, context);
    agent(servers, backend, context);
    let checked: Vec<&Server> = servers
        .iter()
        .filter(|server| server.parameters.has("check"))
        .collect();
    let Some(first) = checked.first() else {
        context
            .draft
            .set(out, &["health_check"], Value::table([("enabled", false)]));
        return;
    };
    let section = context.draft.section(&["backends", backend, "health_check"]);
    for server in servers
        .iter()
        .filter(|server| !server.parameters.has("check") && server.template.is_none())
    {
        let text = "it is not checked there: here all servers of a backend are";
        context.draft.differs(server.line.id, At::In(section), text);
    }
    kind(proxy, &first.parameters, section, backend, context);
    timing(proxy, &checked, section, context);
    // as HAProxy's servers are, until checks say otherwise
    context.draft.set(section, &["initial"], "up");
    let sends = first.parameters.send_proxy().is_some()
        && (first.parameters.has("check-send-proxy")
            || (first.parameters.value("port").is_none() && first.parameters.value("addr").is_none()));
    if sends {
        context.draft.set(section, &["send_proxy"], true);
    }
}

fn timing(proxy: &Proxy, checked: &[&Server], section: SectionId, context: &mut Context<'_>) {
    let Some(first) = checked.first() else { return };
    let of = |parameters: &Parameters, word: &str| parameters.value(word).and_then(time::parse);
    let interval = of(&first.parameters, "inter").unwrap_or(std::time::Duration::from_secs(2));
    let mut keys = vec![("interval", interval)];
    let line = proxy.last_of("timeout", "check");
    let timeout = line.and_then(|line| time::parse(line.word(2)));
    if let Some(line) = line {
        context.draft.translated(line.id);
    }
    keys.push((
        "timeout",
        timeout.filter(|time| !time.is_zero()).unwrap_or(interval),
    ));
    keys.push((
        "fast_interval",
        of(&first.parameters, "fastinter").unwrap_or(interval),
    ));
    for (key, time) in keys {
        context.draft.set(section, &[key], Value::duration(time));
    }
    for key in ["rise", "fall"] {
        if let Some(number) = first
            .parameters
            .value(key)
            .and_then(|text| text.parse::<u32>().ok())
        {
            context.draft.set(section, &[key], number);
        }
    }
    for server in checked {
        for word in ["inter", "fastinter", "rise", "fall"] {
            let (own, firsts) = (server.parameters.value(word), first.parameters.value(word));
            if own != firsts {
                // what it does not say has no words to quote
                let part = match own {
                    Some(own) => format!("{word} {own}"),
                    None => context.draft.text_of(server.line.id).to_owned(),
                };
                let text = match firsts {
                    Some(first) => format!(
                        "all servers of a backend are checked alike here, as the first one: {word} {first}"
                    ),
                    None => format!(
                        "all servers of a backend are checked alike here, as the first one, which has no `{word}`"
                    ),
                };
                context
                    .draft
                    .note(server.line.id, At::In(section), &part, NoteKind::Differs, &text);
            }
        }
    }
}

fn passive(servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    let observer = servers
        .iter()
        .find(|server| server.parameters.value("observe").is_some());
    let value = match observer.map(|server| &server.parameters) {
        None => Value::table([("enabled", Value::from(false))]),
        Some(parameters) => {
            let limit = parameters
                .value("error-limit")
                .and_then(|text| text.parse::<u32>().ok());
            Value::table([("max_failures", Value::from(limit.unwrap_or(10)))])
        }
    };
    context.draft.set(out, &["passive_check"], value);
}

fn agent(servers: &[Server], backend: &str, context: &mut Context<'_>) {
    let Some(server) = servers.iter().find(|server| server.parameters.has("agent-check")) else {
        return;
    };
    let section = context.draft.section(&["backends", backend, "agent_check"]);
    let parameters = &server.parameters;
    if let Some(port) = parameters
        .value("agent-port")
        .and_then(crate::import::address::port)
    {
        context.draft.set(section, &["port"], port);
    }
    if let Some(text) = parameters.value("agent-send") {
        context.draft.set(section, &["send"], text);
    }
    if let Some(time) = parameters.value("agent-inter").and_then(time::parse) {
        context.draft.set(section, &["interval"], Value::duration(time));
    }
    for other in servers
        .iter()
        .filter(|other| !other.parameters.has("agent-check"))
    {
        let text = "no agent is asked about it there: here all servers of a backend have one";
        context.draft.differs(other.line.id, At::In(section), text);
    }
}

/// What a check does.
fn kind(
    proxy: &Proxy,
    parameters: &Parameters,
    section: SectionId,
    backend: &str,
    context: &mut Context<'_>,
) {
    let options = [
        "httpchk",
        "tcp-check",
        "redis-check",
        "mysql-check",
        "pgsql-check",
        "smtpchk",
        "ldap-check",
        "ssl-hello-chk",
        "external-check",
        "spop-check",
    ];
    // of those that are set, the last one counts
    let chosen = proxy
        .lines
        .iter()
        .rev()
        .find(|line| line.name() == "option" && !line.is_negated && options.contains(&line.word(1)));
    for line in proxy
        .lines
        .iter()
        .filter(|line| line.name() == "option" && options.contains(&line.word(1)))
    {
        context.draft.translated(line.id);
    }
    let has_tls = parameters.has("ssl") || parameters.has("check-ssl");
    if parameters.has("check-ssl") && !parameters.has("ssl") {
        let tls = context
            .draft
            .section(&["backends", backend, "health_check", "tls"]);
        for (key, value) in
            super::together::tls_keys(parameters, &context.shared.ca_base, &context.shared.crt_base)
        {
            context.draft.set(tls, &[key], value);
        }
    }
    let Some(line) = chosen else { return };
    let at = if line.is_inherited {
        At::Top
    } else {
        At::In(section)
    };
    let simple = match line.word(1) {
        "httpchk" => return http(proxy, line, section, at, context),
        "tcp-check" => return tcp(proxy, section, context),
        "redis-check" => "redis",
        "mysql-check" => "mysql",
        "pgsql-check" => {
            if line.word(2) == "user" {
                context.draft.set(section, &["user"], line.word(3));
            }
            "postgresql"
        }
        "smtpchk" => "smtp",
        "ssl-hello-chk" => {
            if !has_tls {
                let tls = context
                    .draft
                    .section(&["backends", backend, "health_check", "tls"]);
                context.draft.set(tls, &["verify"], false);
            }
            "tls"
        }
        "external-check" => return external(proxy, line, section, at, context),
        _ => {
            context.draft.no_equal(
                line.id,
                at,
                "servers have to accept a connection only: see kind = \"probe\" and \"exec\"",
            );
            return;
        }
    };
    context.draft.set(section, &["kind"], simple);
}

fn external(proxy: &Proxy, line: &Line, section: SectionId, at: At, context: &mut Context<'_>) {
    let command = proxy
        .lines
        .iter()
        .rev()
        .find(|line| line.name() == "external-check" && line.word(1) == "command");
    let Some(command) = command else {
        context.draft.no_equal(line.id, at, "it names no command");
        return;
    };
    context.draft.set(section, &["kind"], "exec");
    context.draft.set(
        section,
        &["command"],
        vec![command.word(2), "-", "-", "$host", "$port"],
    );
    let text = "a command gets the server's address and port as HAProxy passes them, but not the proxy's, nor its variables";
    context.draft.differs(command.id, at, text);
}

/// `option httpchk` with `http-check`.
fn http(proxy: &Proxy, line: &Line, section: SectionId, at: At, context: &mut Context<'_>) {
    let mut request = Request::default();
    let words: Vec<&str> = line.from(2).iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {}
        [path] => request.path = (*path).to_owned(),
        [method, path, rest @ ..] => {
            request.method = (*method).to_owned();
            request.path = (*path).to_owned();
            let version = rest.join(" ");
            request.host = version
                .lines()
                .find_map(|line| line.strip_prefix("Host:"))
                .map(|host| host.trim().to_owned());
        }
    }
    for check in proxy.lines.iter().filter(|line| line.name() == "http-check") {
        let at = if check.is_inherited {
            At::Top
        } else {
            At::In(section)
        };
        let done = match check.word(1) {
            "send" => request.send(check.from(2)),
            "expect" => request.expect(check.from(2)),
            "disable-on-404" | "send-state" => Err("an agent_check says that a server is to be drained"),
            "connect" => Err("see `port` and `tls` in health_check"),
            "comment" => Ok(()),
            _ => Err("a check is one request and its answer here"),
        };
        match done {
            Ok(()) => context.draft.translated(check.id),
            Err(why) => context.draft.no_equal(check.id, at, why),
        }
    }
    context.draft.set(section, &["kind"], "http");
    match request.method.as_str() {
        "" => context.draft.set(section, &["method"], "OPTIONS"),
        "GET" => {}
        "HEAD" | "OPTIONS" => context.draft.set(section, &["method"], request.method.as_str()),
        method => {
            let text = format!("the method {method}: Convey asks with GET, HEAD or OPTIONS; GET is taken");
            context.draft.differs(line.id, at, &text);
        }
    }
    if request.path.starts_with('/') {
        context.draft.set(section, &["path"], request.path);
    }
    if let Some(host) = request.host.filter(|host| !host.is_empty()) {
        context.draft.set(section, &["host"], host);
    }
    if let Some(status) = request.status {
        context.draft.set(section, &["status"], status);
    }
    if let Some(body) = request.body {
        if request.method == "HEAD" {
            let text =
                "an answer to HEAD has no body that `expect` could look into: here the check asks with GET";
            context.draft.differs(line.id, at, text);
            context.draft.set(section, &["method"], "GET");
        }
        context.draft.set(section, &["expect"], body);
    }
}

#[derive(Default)]
struct Request {
    method: String,
    path: String,
    host: Option<String>,
    status: Option<Value>,
    body: Option<Value>,
}

impl Request {
    fn send(&mut self, words: &[String]) -> Result<(), &'static str> {
        let mut words = words.iter();
        let mut all = Ok(());
        while let Some(word) = words.next() {
            let mut next = || words.next().cloned().unwrap_or_default();
            match word.as_str() {
                "meth" => self.method = next(),
                "uri" => self.path = next(),
                "ver" => {
                    next();
                }
                "hdr" => {
                    let (name, value) = (next(), next());
                    match name.eq_ignore_ascii_case("host") {
                        true => self.host = Some(value),
                        false => all = Err("of the headers only Host is sent"),
                    }
                }
                _ => return Err("a request has no body, and nothing made of expressions"),
            }
        }
        all
    }

    fn expect(&mut self, words: &[String]) -> Result<(), &'static str> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let words = match words.as_slice() {
            [
                "min-recv" | "comment" | "ok-status" | "error-status" | "tout-status" | "on-success"
                | "on-error",
                _,
                rest @ ..,
            ] => rest,
            words => words,
        };
        match words {
            ["status", statuses] => {
                let statuses: Vec<String> = statuses.split(',').map(str::to_owned).collect();
                self.status = Some(Value::one_or_more(statuses));
                Ok(())
            }
            ["string", text] => {
                self.body = Some((*text).into());
                Ok(())
            }
            ["rstring", text] if regex::bytes::Regex::new(text).is_ok() => {
                self.body = Some(Value::table([("regex", *text)]));
                Ok(())
            }
            ["rstatus", "2.." | "^2" | "2[0-9][0-9]" | "^2.."] => {
                self.status = Some("200-299".into());
                Ok(())
            }
            ["rstatus", "(2|3)[0-9][0-9]" | "[23].." | "^[23]" | "(2|3).."] => {
                self.status = Some("200-399".into());
                Ok(())
            }
            _ => Err("see `status` and `expect` in health_check"),
        }
    }
}

/// `tcp-check`: what is sent is sent at once, and what is expected must come in its order.
fn tcp(proxy: &Proxy, section: SectionId, context: &mut Context<'_>) {
    let lines: Vec<&Line> = proxy
        .lines
        .iter()
        .filter(|line| line.name() == "tcp-check")
        .collect();
    for line in &lines {
        context.draft.translated(line.id);
    }
    let is_plain_connect = |line: &Line| line.word(1) == "connect" && line.words.len() == 2;
    let mut real = lines
        .into_iter()
        .filter(|line| line.word(1) != "comment" && !is_plain_connect(line))
        .peekable();
    let Some(first) = real.peek().copied() else { return };
    let at = if first.is_inherited {
        At::Top
    } else {
        At::In(section)
    };
    let (mut sent, mut is_text, mut expected, mut turns) = (Vec::new(), true, Vec::new(), 0);
    for line in real {
        match step(line) {
            Some(Step::Send(bytes, text)) => {
                sent.extend(bytes);
                is_text &= text;
                turns += usize::from(!expected.is_empty());
            }
            Some(Step::Expect(pattern)) => expected.push(pattern),
            None => {
                let why = "a probe sends text or bytes and finds text, bytes or an expression: servers have to accept a connection \
                           only. See the kinds \"redis\", \"postgresql\", \"mysql\", \"smtp\", and \"exec\" for a command of your own";
                return context.draft.no_equal(line.id, at, why);
            }
        }
    }
    context.draft.set(section, &["kind"], "probe");
    if turns > 0 {
        let text = "the steps of tcp-check: all is sent at once here, and the answers must come in their order. A server that wants \
                    to be asked one after another needs another kind of check";
        context.draft.differs(first.id, at, text);
    }
    match String::from_utf8(sent) {
        Ok(text) if text.is_empty() => {}
        Ok(text) if is_text => context.draft.set(section, &["send"], text),
        Ok(text) => context.draft.set(section, &["send"], hex(text.as_bytes())),
        Err(error) => context.draft.set(section, &["send"], hex(error.as_bytes())),
    }
    if !expected.is_empty() {
        let pattern = match <[String; 1]>::try_from(expected) {
            Ok([one]) => one,
            Err(all) => format!("(?s){}", all.join(".*?")),
        };
        context
            .draft
            .set(section, &["expect"], Value::table([("regex", pattern)]));
    }
}

fn hex(bytes: &[u8]) -> Value {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Value::table([("hex", digits)])
}

enum Step {
    /// What, and whether it was written as text.
    Send(Vec<u8>, bool),
    /// An expression that finds it anywhere in an answer.
    Expect(String),
}

/// What a line of `tcp-check` does; `None` if a probe cannot.
fn step(line: &Line) -> Option<Step> {
    let words: Vec<&str> = line.from(1).iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", text] | ["send", text, "comment", _] => Some(Step::Send(text.as_bytes().to_vec(), true)),
        ["send-binary", digits] | ["send-binary", digits, "comment", _] => {
            Some(Step::Send(bytes(digits)?, false))
        }
        ["expect", "string", text] => Some(Step::Expect(regex::escape(text))),
        ["expect", "rstring", text] if regex::bytes::Regex::new(text).is_ok() => {
            Some(Step::Expect(format!("(?:{text})")))
        }
        ["expect", "binary", digits] => {
            let pattern: String = bytes(digits)?
                .iter()
                .map(|byte| format!("\\x{byte:02x}"))
                .collect();
            Some(Step::Expect(format!("(?-u:{pattern})")))
        }
        _ => None,
    }
}

/// The bytes that hexadecimal digits stand for.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len())
        .step_by(2)
        .map(|at| pair(at).filter(|_| is_hex))
        .collect()
}

//! `option httpchk` with `http-check`: one request and its answer.

use crate::import::{
    At, SectionId, Value,
    haproxy::{Context, file::Line, proxies::Proxy},
};

/// Why what comes behind the first answer has no equal.
const FURTHER: &str = "a check is one request and its answer here: the first one counts";

/// Translates the request and what is expected of its answer.
pub fn translate(proxy: &Proxy, line: &Line, section: SectionId, at: At, context: &mut Context<'_>) {
    let mut request = Request::of(line.from(2));
    if !request.lost.is_empty() {
        let text = "of the headers only Host is sent, and no body";
        context.draft.no_equal(line.id, at, text);
    }
    for check in proxy.lines.iter().filter(|line| line.name() == "http-check") {
        let at = if check.is_inherited {
            At::Top
        } else {
            At::In(section)
        };
        match request.take(check) {
            Ok(()) => context.draft.translated(check.id),
            Err(why) => context.draft.no_equal(check.id, at, why),
        }
    }
    request.set(line, section, at, context);
}

#[derive(Default)]
struct Request {
    method: String,
    target: String,
    host: Option<String>,
    status: Option<Value>,
    body: Option<Value>,
    /// Lines of `option httpchk` that are not sent.
    lost: Vec<String>,
    is_sent: bool,
    /// What comes now is about another request.
    is_further: bool,
    /// Something is expected that is not looked for.
    is_expecting_more: bool,
}

impl Request {
    /// What the words of `option httpchk` say: `URI`, or `METHOD URI VERSION`, with headers behind the version.
    fn of(words: &[String]) -> Self {
        let mut request = Self::default();
        match words {
            [] => {}
            [target] => request.target.clone_from(target),
            [method, target, rest @ ..] => {
                request.method.clone_from(method);
                request.target.clone_from(target);
                for line in rest.join(" ").lines().skip(1) {
                    match line.split_once(':') {
                        Some((name, value)) if name.eq_ignore_ascii_case("host") => {
                            request.host = Some(value.trim().to_owned());
                        }
                        _ if line.trim().is_empty() => {}
                        _ => request.lost.push(line.to_owned()),
                    }
                }
            }
        }
        request
    }

    /// A line of `http-check`.
    ///
    /// # Errors
    /// It has no equal.
    fn take(&mut self, check: &Line) -> Result<(), &'static str> {
        match check.word(1) {
            "comment" => Ok(()),
            "disable-on-404" | "send-state" => Err("an agent_check says that a server is to be drained"),
            "connect" => {
                self.is_further |= self.is_sent || self.status.is_some() || self.body.is_some();
                match (self.is_further, check.words.len()) {
                    (true, _) => Err(FURTHER),
                    // the connection that there is anyway
                    (false, 2) => Ok(()),
                    (false, _) => Err("see `port` and `tls` in health_check"),
                }
            }
            "send" => {
                self.is_further |= self.is_sent;
                self.is_sent = true;
                match self.is_further {
                    true => Err(FURTHER),
                    false => self.send(check.from(2)),
                }
            }
            "expect" if self.is_further => Err(FURTHER),
            "expect" => {
                let done = self.expect(check.from(2));
                self.is_expecting_more |= done.is_err();
                done
            }
            _ => Err("a check is one request and its answer here"),
        }
    }

    fn set(self, line: &Line, section: SectionId, at: At, context: &mut Context<'_>) {
        context.draft.set(section, &["kind"], "http");
        match self.method.as_str() {
            "HEAD" if self.body.is_some() => {
                let text = "an answer to HEAD has no body in which something could be found: GET is taken";
                context.draft.differs(line.id, at, text);
            }
            "" => context.draft.set(section, &["method"], "OPTIONS"),
            "GET" => {}
            "HEAD" | "OPTIONS" => context.draft.set(section, &["method"], self.method.as_str()),
            method => {
                let text =
                    format!("the method {method}: Convey asks with GET, HEAD or OPTIONS; GET is taken");
                context.draft.differs(line.id, at, &text);
            }
        }
        let mut host = self.host.filter(|host| !host.is_empty());
        if self.target.starts_with('/') {
            context.draft.set(section, &["path"], self.target);
        } else if let Some((authority, path)) = absolute(&self.target) {
            let text = "a whole URL is asked for there; here its path, with its host in the header Host";
            context.draft.differs(line.id, at, text);
            host = host.or_else(|| Some(authority.to_owned()));
            context.draft.set(section, &["path"], path);
        } else if !self.target.is_empty() {
            let text = "a check asks for a path that begins with /: here for / itself";
            context.draft.no_equal(line.id, at, text);
        }
        if let Some(host) = host {
            context.draft.set(section, &["host"], host);
        }
        match self.status {
            Some(status) => context.draft.set(section, &["status"], status),
            // what is in the body counts alone, whatever the status
            None if self.body.is_some() && !self.is_expecting_more => {
                context.draft.set(section, &["status"], "100-599");
            }
            None => {}
        }
        if let Some(body) = self.body {
            context.draft.set(section, &["expect"], body);
        }
    }

    fn send(&mut self, words: &[String]) -> Result<(), &'static str> {
        let mut words = words.iter();
        let mut all = Ok(());
        while let Some(word) = words.next() {
            let mut next = || words.next().cloned().unwrap_or_default();
            match word.as_str() {
                "meth" => self.method = next(),
                "uri" => self.target = next(),
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
        let mut words = words.as_slice();
        // how much to wait for, and how the result is shown
        while let [
            "min-recv" | "comment" | "error-status" | "tout-status" | "on-success" | "on-error",
            _,
            rest @ ..,
        ] = words
        {
            words = rest;
        }
        let is_again = match words.first() {
            Some(&("status" | "rstatus")) => self.status.is_some(),
            _ => self.body.is_some(),
        };
        if is_again {
            return Err("of each kind one thing is expected here: the first one counts");
        }
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

/// Host and path of a whole URL.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let rest = target
        .strip_prefix("https://")
        .or_else(|| target.strip_prefix("http://"))?;
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let authority = rest.split('/').next().filter(|host| !host.is_empty())?;
    Some((authority, path))
}

//! Which connections a frontend takes, and where they go: `tcp-request`, `use_backend`, `default_backend`.

mod content;

use super::{
    Context,
    access::{self, Access, Action, Level},
    acl::{self, Acls, Term, Test},
    file::Line,
    proxies::Proxy,
    routes::{self, Route},
    time,
};
use crate::import::{At, NoteKind, SectionId, Value};

/// What the rules of a frontend come to.
#[derive(Debug, Default)]
pub struct Rules {
    /// Who may connect.
    pub access: Access,
    /// The part of it that judges who connects, before any PROXY header.
    pub before_header: Access,
    /// The rest of it.
    pub behind_header: Access,
    /// The first one that fits decides.
    pub routes: Vec<Route>,
    /// The backend of the others, by HAProxy's name.
    pub default: Option<String>,
    /// How long the ClientHello may take.
    pub hello_timeout: Option<std::time::Duration>,
    /// Connections that begin with something else are rejected.
    pub rejects_other_than_tls: bool,
    /// Networks that send a PROXY header.
    pub proxies: Option<Vec<String>>,
    /// Backends with the one that serves when none of their servers is up, by HAProxy's names.
    pub fallbacks: Vec<(String, String)>,
}

/// Reads the rules of a frontend; notes stand in its first section.
pub fn read(proxy: &Proxy, out: SectionId, context: &mut Context<'_>) -> Rules {
    let acls = acl::acls(&proxy.lines, context.files);
    let mut reader = Reader {
        rules: Rules::default(),
        acls,
        at: At::In(out),
        level: Level::default(),
        allowed: Vec::new(),
        allowed_clients: Vec::new(),
        takes_tls: false,
        takes_all: false,
        is_settled: false,
        context,
    };
    let of = |names: &[&str]| -> Vec<&Line> {
        let is = |line: &&Line| names.contains(&line.name());
        proxy.lines.iter().filter(is).collect()
    };
    for line in of(&["acl"]) {
        // what becomes of it is said where it is used
        reader.context.draft.translated(line.id);
        if acl::is_read_now(line.from(2)) {
            reader.note(line, NoteKind::Differs, acl::READ_NOW);
        }
    }
    for stage in ["connection", "session", "inspect-delay", "content"] {
        for line in of(&["tcp-request"]) {
            if line.word(1) == stage {
                reader.request(line);
            }
        }
        let is_first = stage == "connection";
        let last = proxy
            .lines
            .iter()
            .rfind(|line| line.name() == "tcp-request" && line.word(1) == stage);
        reader.end_level(is_first, last);
    }
    let http = of(&["http-request", "block"]);
    for line in &http {
        reader.http_request(line);
    }
    reader.end_level(false, http.last().copied());
    reader.both_levels(proxy);
    reader.rules.default = match proxy.last("default_backend") {
        Some(line) => reader.named(line, line.word(1)),
        None => proxy.is_backend.then(|| proxy.name.clone()),
    };
    let uses = of(&["use_backend"]);
    reader.only_allowed(uses.is_empty());
    for line in uses {
        reader.use_backend(line);
    }
    reader.rules
}

struct Reader<'a, 'c> {
    rules: Rules,
    acls: Acls,
    at: At,
    /// The rules about clients of the level that is read.
    level: Level,
    /// Conditions of which one must hold, once something rejects all others.
    allowed: Vec<(Line, Vec<Term>)>,
    /// Such conditions that ask for clients' addresses only, and so are among the rules of the level.
    allowed_clients: Vec<(Line, Vec<Term>)>,
    /// `tcp-request content accept if { req.ssl_hello_type 1 }`.
    takes_tls: bool,
    /// `tcp-request content accept` of all that are left.
    takes_all: bool,
    /// A backend takes all that are left.
    is_settled: bool,
    context: &'a mut Context<'c>,
}

impl Reader<'_, '_> {
    fn note(&mut self, line: &Line, kind: NoteKind, text: &str) {
        let at = if line.is_inherited { At::Top } else { self.at };
        let quoted = self.context.draft.text_of(line.id).to_owned();
        self.context.draft.note(line.id, at, &quoted, kind, text);
    }

    fn terms(&mut self, line: &Line, from: usize) -> Result<Vec<Term>, String> {
        if self.context.values_left == 0 {
            return Err("the conditions before it have more values than any real file".to_owned());
        }
        let terms = acl::condition(line.from(from), &self.acls, self.context.files)?;
        let values: usize = terms.iter().map(|term| 1 + acl::values(term)).sum();
        self.context.values_left = self.context.values_left.saturating_sub(values);
        if acl::is_read_now(line.from(from)) {
            self.note(line, NoteKind::Differs, acl::READ_NOW);
        }
        Ok(terms)
    }

    /// A backend that exists.
    fn named(&mut self, line: &Line, name: &str) -> Option<String> {
        if self.context.names.contains_key(name) {
            self.context.draft.translated(line.id);
            return Some(name.to_owned());
        }
        self.note(
            line,
            NoteKind::NoEqual,
            "there is no backend of this name in the file",
        );
        None
    }

    fn request(&mut self, line: &Line) {
        let stage = line.word(1);
        let done = match (stage, line.word(2)) {
            ("inspect-delay", delay) => {
                self.rules.hello_timeout = time::parse(delay);
                Ok(())
            }
            ("connection" | "session", "accept") => self.access(line, Action::Accept),
            ("connection" | "session", "reject") => self.access(line, Action::Reject),
            ("connection" | "session", "silent-drop") => {
                self.note(line, NoteKind::Differs, "refused connections are reset here");
                self.access(line, Action::Reject)
            }
            ("connection", "expect-proxy") => self.expect_proxy(line),
            ("content", "accept") => self.content_accept(line),
            ("content", "reject" | "silent-drop") => self.content_reject(line),
            (_, action) => Err(action_reason(action).to_owned()),
        };
        let consequence = match line.word(2) {
            "accept" => "connections are refused here that it accepts, if a later rule refuses them",
            "reject" | "silent-drop" => "connections are accepted here that it refuses",
            _ => "",
        };
        self.accounted(line, done, consequence);
    }

    fn accounted(&mut self, line: &Line, done: Result<(), String>, consequence: &str) {
        match done {
            Ok(()) => self.context.draft.translated(line.id),
            Err(why) if why.is_empty() || consequence.is_empty() => {
                self.note(line, NoteKind::NoEqual, &format!("{why}{consequence}"));
            }
            Err(why) => self.note(line, NoteKind::NoEqual, &format!("{why}; {consequence}")),
        }
    }

    fn access(&mut self, line: &Line, action: Action) -> Result<(), String> {
        let terms = self.terms(line, 3)?;
        self.access_by(action, &terms)
    }

    fn access_by(&mut self, action: Action, terms: &[Term]) -> Result<(), String> {
        let draft = &mut *self.context.draft;
        let lists = &mut self.context.lists;
        self.level.add(action, terms, &mut |path| lists.name(path, draft))
    }

    /// What one level accepts, the next ones may still reject.
    fn end_level(&mut self, is_first: bool, last: Option<&Line>) {
        let level = std::mem::take(&mut self.level);
        let rules = match is_first {
            true => &mut self.rules.before_header,
            false => &mut self.rules.behind_header,
        };
        match level
            .access()
            .and_then(|access| std::mem::take(rules).and(access))
        {
            Ok(access) => *rules = access,
            Err(why) => {
                *rules = Access::nobody();
                if let Some(line) = last {
                    self.note(line, NoteKind::NoEqual, &format!("{why}; {NOBODY}"));
                }
            }
        }
    }

    fn both_levels(&mut self, proxy: &Proxy) {
        let Rules {
            before_header,
            behind_header,
            ..
        } = &self.rules;
        match before_header.clone().and(behind_header.clone()) {
            Ok(access) => self.rules.access = access,
            Err(why) => {
                self.rules.access = Access::nobody();
                let text =
                    format!("what its rules accept at one level, those of another reject: {why}; {NOBODY}");
                if let Some(line) = proxy.last("tcp-request").or(proxy.last("http-request")) {
                    self.note(line, NoteKind::NoEqual, &text);
                }
            }
        }
    }

    fn expect_proxy(&mut self, line: &Line) -> Result<(), String> {
        // behind the word layer4
        let terms = self.terms(line, 4)?;
        let mut networks = Vec::new();
        for term in &terms {
            match term.as_slice() {
                [] => networks.extend(["0.0.0.0/0".to_owned(), "::/0".to_owned()]),
                [literal] if !literal.is_negated => {
                    for test in &literal.any {
                        match test {
                            Test::Source(sources) => networks.extend(sources.iter().cloned()),
                            Test::SourceFile(path) => {
                                networks.push(self.context.lists.name(path, self.context.draft)?);
                            }
                            Test::Unknown(why) => return Err(why.clone()),
                            _ => return Err("only the client's address decides that here".to_owned()),
                        }
                    }
                }
                _ => return Err("only the client's address decides that here".to_owned()),
            }
        }
        self.rules.proxies.get_or_insert_default().append(&mut networks);
        Ok(())
    }

    fn route(&mut self, term: &Term) -> Result<Option<Route>, String> {
        let draft = &mut *self.context.draft;
        let lists = &mut self.context.lists;
        routes::of_term(term, &mut |path| lists.name(path, draft))
    }

    /// Only whom it refuses by address can be said.
    fn http_request(&mut self, line: &Line) {
        let (action, from) = match (line.name(), line.word(1)) {
            ("block", _) => (Action::Reject, 1),
            (_, "deny" | "reject" | "silent-drop" | "tarpit") => (Action::Reject, 2),
            (_, "allow") => (Action::Accept, 2),
            _ => return,
        };
        let condition = line
            .words
            .iter()
            .position(|word| word == "if" || word == "unless")
            .unwrap_or(from);
        let consequence = match action {
            Action::Accept => "requests are refused here that it accepts, if a later rule refuses them",
            Action::Reject => "requests are accepted here that it refuses",
        };
        match self.terms(line, condition) {
            Ok(terms) if access::is_about_clients(&terms) => {
                let done = self.access_by(action, &terms);
                if done.is_ok() && action == Action::Reject {
                    self.note(
                        line,
                        NoteKind::Differs,
                        "their connections are reset, without an answer of HTTP",
                    );
                }
                self.accounted(line, done, consequence);
            }
            Ok(_) | Err(_) => {
                let why = format!("it asks about an HTTP request, which Convey does not read; {consequence}");
                self.note(line, NoteKind::NoEqual, &why);
            }
        }
    }

    fn use_backend(&mut self, line: &Line) {
        if self.is_settled {
            return self.context.draft.translated(line.id);
        }
        let name = line.word(1).to_owned();
        let terms = match self.terms(line, 2) {
            Ok(terms) => terms,
            Err(why) => return self.note(line, NoteKind::NoEqual, &why),
        };
        if name.contains("%[") {
            return self.use_map(line, &name, &terms);
        }
        let Some(name) = self.named(line, &name) else {
            return;
        };
        let backend = self.context.names.get(&name).cloned();
        for term in &terms {
            if let [literal] = term.as_slice()
                && let ([Test::NoServer(of)], false) = (literal.any.as_slice(), literal.is_negated)
            {
                self.rules.fallbacks.push((of.clone(), name.clone()));
                continue;
            }
            match self.route(term) {
                // without a condition it is for all that are left
                Ok(Some(route)) if route.is_empty() => {
                    self.rules.default = Some(name.clone());
                    self.is_settled = true;
                }
                Ok(Some(route)) => self
                    .rules
                    .routes
                    .push(route.to(backend.clone(), Some(name.clone()))),
                Ok(None) => {}
                Err(why) => {
                    let text = format!("{why}; such connections go on to what follows");
                    self.note(line, NoteKind::NoEqual, &text);
                }
            }
        }
    }

    fn use_map(&mut self, line: &Line, name: &str, terms: &[Term]) {
        let is_plain = terms.iter().all(|term| {
            term.iter()
                .all(|literal| !literal.is_negated && literal.any.iter().any(is_any_hello))
        });
        if !is_plain {
            return self.note(line, NoteKind::NoEqual, "a map with a condition besides");
        }
        match routes::of_map(name, &self.context.names, self.context.files) {
            Ok(mapped) => {
                self.rules.routes.extend(mapped.routes);
                self.note(line, NoteKind::Differs, acl::READ_NOW);
                if let Some(default) = mapped.default {
                    self.rules.default = self.named(line, &default);
                }
                if mapped.missing > 0 {
                    let text = format!(
                        "{} of the backends that the file names are not in the configuration",
                        mapped.missing
                    );
                    self.note(line, NoteKind::Differs, &text);
                }
            }
            Err(why) => self.note(line, NoteKind::NoEqual, &why),
        }
    }
}

/// Where it cannot be said whom rules let in.
const NOBODY: &str = "so nobody is let in here: write who may connect into `access`";

fn action_reason(action: &str) -> &'static str {
    if action.starts_with("track-sc") || action.starts_with("sc-") {
        "counters of clients are `limits.per_client` of a frontend here"
    } else if action.starts_with("set-var") || action.starts_with("unset-var") {
        "there are no variables here"
    } else {
        ""
    }
}

/// The values of `access`.
pub fn access_keys(access: &Access) -> Vec<(&'static str, Value)> {
    let mut keys = Vec::new();
    if access.denies_others() {
        keys.push(("default", "deny".into()));
    }
    let rules = access.texts();
    if !rules.is_empty() {
        keys.push(("rules", rules.into()));
    }
    keys
}

/// Whether a test asks no more than a map of names does.
fn is_any_hello(test: &Test) -> bool {
    match test {
        Test::IsTls | Test::Always => true,
        Test::Sni(names) => names.iter().any(|name| name == acl::ANY_NAME),
        _ => false,
    }
}

//! Which connections a frontend takes, and where they go: `tcp-request`, `use_backend`, `default_backend`.

use super::{
    Context,
    access::{self, Access, Action},
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
    /// Where connections may come from at all, if rules about connections say that and no more.
    pub trusted: Option<Vec<String>>,
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
        allowed: Vec::new(),
        takes_tls: false,
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
    }
    for stage in ["connection", "session", "inspect-delay", "content"] {
        for line in of(&["tcp-request"]) {
            if line.word(1) == stage {
                reader.request(line);
            }
        }
        if stage == "connection" {
            reader.rules.trusted = reader.rules.access.only_these();
        }
    }
    for line in of(&["http-request", "block"]) {
        reader.http_request(line);
    }
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
    /// Conditions of which one must hold, once something rejects all others.
    allowed: Vec<(Line, Vec<Term>)>,
    /// `tcp-request content accept if { req.ssl_hello_type 1 }`.
    takes_tls: bool,
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
            ("connection", "silent-drop") => {
                self.note(line, NoteKind::Differs, "refused connections are reset here");
                self.access(line, Action::Reject)
            }
            ("connection", "expect-proxy") => self.expect_proxy(line),
            ("content", "accept") => self.content_accept(line),
            ("content", "reject" | "silent-drop") => self.content_reject(line),
            (_, action) => Err(action_reason(action).to_owned()),
        };
        let consequence = match line.word(2) {
            "accept" | "reject" | "silent-drop" => "connections are accepted here that it refuses",
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
        self.rules
            .access
            .add(action, terms, &mut |path| lists.name(path, draft))
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

    fn content_accept(&mut self, line: &Line) -> Result<(), String> {
        let terms = self.terms(line, 3)?;
        let is = |test: Test| {
            terms
                .iter()
                .any(|term| matches!(term.as_slice(), [only] if !only.is_negated && only.any.contains(&test)))
        };
        if is(Test::IsTls) {
            self.takes_tls = true;
        } else if !is(Test::Always) && !terms.iter().any(Vec::is_empty) {
            self.allowed.push((line.clone(), terms));
        }
        Ok(())
    }

    fn content_reject(&mut self, line: &Line) -> Result<(), String> {
        let terms = self.terms(line, 3)?;
        if access::is_about_clients(&terms) {
            return self.access_by(Action::Reject, &terms);
        }
        for term in terms {
            let literals: Vec<_> = term
                .iter()
                .filter(|literal| !literal.any.contains(&Test::Always))
                .collect();
            match literals.as_slice() {
                [] if !self.allowed.is_empty() => self.rejects_others(),
                [] if self.takes_tls => self.rules.rejects_other_than_tls = true,
                [] => self.rules.routes.push(Route::default()),
                [only] if only.is_negated && only.any == [Test::IsTls] => {
                    self.rules.rejects_other_than_tls = true;
                }
                [only] if only.is_negated => {
                    let allowed = acl::Literal {
                        is_negated: false,
                        any: only.any.clone(),
                    };
                    self.allowed.push((line.clone(), vec![vec![allowed]]));
                    self.rejects_others();
                }
                _ => {
                    if let Some(route) = self.route(&term)? {
                        self.rules.routes.push(route);
                    }
                }
            }
        }
        Ok(())
    }

    /// What was allowed until now is all that is allowed; told from conditions that nothing follows by an empty one.
    fn rejects_others(&mut self) {
        if let Some((line, _)) = self.allowed.last().cloned() {
            self.allowed.push((line, Vec::new()));
        }
    }

    /// Rejects connections of which none of what is allowed holds: each such condition leads to the default backend.
    fn only_allowed(&mut self, is_alone: bool) {
        let allowed = std::mem::take(&mut self.allowed);
        if !allowed.iter().any(|(_, terms)| terms.is_empty()) {
            return;
        }
        let default = self
            .rules
            .default
            .clone()
            .and_then(|name| self.context.names.get(&name).cloned());
        for (line, terms) in allowed.iter().filter(|(_, terms)| !terms.is_empty()) {
            if !is_alone {
                let why = "where there is `use_backend` too, no route can say that the other connections are rejected: remove \
                           `backend` from the frontend if that is meant";
                self.note(line, NoteKind::NoEqual, why);
                continue;
            }
            for term in terms {
                match self.route(term) {
                    Ok(Some(route)) => self
                        .rules
                        .routes
                        .push(route.to(default.clone(), self.rules.default.clone())),
                    Ok(None) => {}
                    Err(why) => self.note(line, NoteKind::NoEqual, &why),
                }
            }
        }
        if is_alone {
            self.rules.default = None;
        }
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
                self.accounted(line, done, "requests are accepted here that it refuses");
            }
            Ok(_) | Err(_) => {
                let why = "it asks about an HTTP request, which Convey does not read; requests are accepted here that it refuses";
                self.note(line, NoteKind::NoEqual, why);
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
                self.context.draft.translated(line.id);
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
    if access.denies_others {
        keys.push(("default", "deny".into()));
    }
    if !access.rules.is_empty() {
        keys.push(("rules", access.rules.clone().into()));
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

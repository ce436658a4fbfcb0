//! From conditions to the routes of a frontend.

use std::collections::BTreeMap;

use super::{
    acl::{Literal, Term, Test},
    pattern,
};
use crate::import::{Draft, Files, Value};

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    sni: Vec<String>,
    alpn: Vec<String>,
    source: Vec<String>,
    destination: Vec<String>,
    /// The backend by its name here; `None` rejects.
    pub backend: Option<String>,
    /// The same by HAProxy's name.
    pub target: Option<String>,
}

impl Route {
    /// The same for another backend, by its name here and HAProxy's.
    pub fn to(self, backend: Option<String>, target: Option<String>) -> Self {
        Self {
            backend,
            target,
            ..self
        }
    }

    /// Whether it takes the ClientHello to decide.
    pub fn needs_hello(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty()
    }

    /// Whether it asks nothing.
    pub fn is_empty(&self) -> bool {
        !self.needs_hello() && self.source.is_empty() && self.destination.is_empty()
    }

    /// Writes it behind those that a frontend has.
    pub fn write(&self, frontend: &str, draft: &mut Draft) {
        let out = draft.item(&["frontends", frontend, "routes"]);
        let keys = [
            ("sni", &self.sni),
            ("alpn", &self.alpn),
            ("source", &self.source),
            ("destination", &self.destination),
        ];
        for (key, values) in keys {
            if !values.is_empty() {
                draft.set(out, &[key], Value::one_or_more(values.clone()));
            }
        }
        match &self.backend {
            Some(backend) => draft.set(out, &["backend"], backend.as_str()),
            None => draft.set(out, &["reject"], true),
        }
    }
}

/// What asks everything of a term.
///
/// # Errors
/// Why no route can.
pub fn of_term(
    term: &Term,
    list: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Option<Route>, String> {
    let mut route = Route::default();
    let mut is_tls = false;
    for literal in term {
        if let Some(always) = constant(literal) {
            if !always {
                return Ok(None);
            }
            continue;
        }
        if literal.is_negated {
            return Err("no route can ask for the opposite: put a route for the others before it".to_owned());
        }
        if literal.any.contains(&Test::IsTls) {
            is_tls = true;
            continue;
        }
        add(&mut route, literal, list)?;
    }
    if is_tls && !route.needs_hello() {
        let why =
            "routes ask for names and protocols of a ClientHello, not whether there is one: see non_tls";
        return Err(why.to_owned());
    }
    Ok(Some(route))
}

/// Whether a literal always or never holds.
fn constant(literal: &Literal) -> Option<bool> {
    if literal.any.contains(&Test::Always) {
        Some(!literal.is_negated)
    } else if literal.any.iter().all(|test| *test == Test::Never) {
        Some(literal.is_negated)
    } else {
        None
    }
}

fn add(
    route: &mut Route,
    literal: &Literal,
    list: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<(), String> {
    let mut parts = Route::default();
    for test in &literal.any {
        match test {
            Test::Sni(values) => parts.sni.extend(values.iter().cloned()),
            Test::Alpn(values) => parts.alpn.extend(values.iter().cloned()),
            Test::Source(values) => parts.source.extend(values.iter().cloned()),
            Test::SourceFile(path) => parts.source.push(list(path)?),
            Test::Destination(values) => parts.destination.extend(values.iter().cloned()),
            Test::NoServer(_) => return Err("see `fallback` of a backend".to_owned()),
            Test::Unknown(why) => return Err(why.clone()),
            Test::IsTls | Test::Always | Test::Never => {}
        }
    }
    let asked = [&parts.sni, &parts.alpn, &parts.source, &parts.destination];
    if asked.iter().filter(|values| !values.is_empty()).count() > 1 {
        return Err("its tests of one name ask for different things".to_owned());
    }
    let pairs = [
        (&mut route.sni, parts.sni),
        (&mut route.alpn, parts.alpn),
        (&mut route.source, parts.source),
        (&mut route.destination, parts.destination),
    ];
    for (all, new) in pairs {
        if new.is_empty() {
            continue;
        }
        if !all.is_empty() {
            return Err("it asks twice for the same thing, and both must hold".to_owned());
        }
        *all = new;
    }
    Ok(())
}

/// What `use_backend` with a map comes to: `bk_%[req.ssl_sni,lower,map(/file,default)]`.
#[derive(Debug)]
pub struct Mapped {
    /// A route for each line.
    pub routes: Vec<Route>,
    /// HAProxy's name of the backend for other names.
    pub default: Option<String>,
    /// Names in the file that no backend has.
    pub missing: usize,
}

/// Reads the file of a map.
///
/// # Errors
/// Why it cannot be translated.
pub fn of_map(text: &str, names: &BTreeMap<String, String>, files: &mut dyn Files) -> Result<Mapped, String> {
    let not = || "the name of the backend is made of something that Convey cannot ask".to_owned();
    let (prefix, rest) = text.split_once("%[").ok_or_else(not)?;
    let (inner, suffix) = rest.rsplit_once(']').ok_or_else(not)?;
    let (sample, converters) = inner.split_once(',').ok_or_else(not)?;
    if !["req.ssl_sni", "req_ssl_sni", "ssl_fc_sni"].contains(&sample) {
        return Err(not());
    }
    let converters = converters.strip_prefix("lower,").unwrap_or(converters);
    let (name, arguments) = converters
        .strip_suffix(')')
        .and_then(|text| text.split_once('('))
        .ok_or_else(not)?;
    let method = match name {
        "map" | "map_str" => "",
        name => name
            .strip_prefix("map_")
            .filter(|method| !method.contains('_'))
            .ok_or_else(not)?,
    };
    let (path, default) = match arguments.split_once(',') {
        Some((path, default)) => (path, Some(default)),
        None => (arguments, None),
    };
    let read = files
        .read(path)
        .map_err(|why| format!("{path} was not read: {why}"))?;
    let target = |value: &str| format!("{prefix}{value}{suffix}");
    let mut mapped = Mapped {
        routes: Vec::new(),
        default: default.map(target),
        missing: 0,
    };
    for line in read.iter().flat_map(|file| file.text.lines()).map(str::trim) {
        let Some((key, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        if line.starts_with('#') {
            continue;
        }
        let target = target(value.trim());
        match names.get(&target).cloned() {
            Some(backend) => mapped.routes.push(Route {
                sni: vec![pattern::host(method, key)?],
                backend: Some(backend),
                target: Some(target),
                ..Route::default()
            }),
            None => mapped.missing += 1,
        }
    }
    Ok(mapped)
}

//! HAProxy's configuration, as versions 2.x and 3.x read it.
//!
//! A proxy in mode http becomes one of TCP, and says so: what it does by requests (headers, paths, cookies) has no equal. One
//! frontend becomes several where its addresses differ in what Convey has for a whole frontend, such as TLS.

mod access;
mod acl;
mod backend;
mod bind;
mod check;
mod explain;
mod file;
mod frontend;
mod global;
mod parameters;
mod pattern;
mod proxies;
mod routes;
mod rules;
mod servers;
mod time;
mod tls;
mod together;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Draft, Files, InputFile, SectionId, Unreadable};
use proxies::Proxy;

/// Most values of all conditions together.
const MAX_VALUES: usize = 200_000;

/// What is known while a file is translated.
struct Context<'a> {
    draft: &'a mut Draft,
    files: &'a mut dyn Files,
    /// Backends: HAProxy's names, and those here.
    names: BTreeMap<String, String>,
    shared: tls::Shared,
    lists: Lists,
    /// Values that conditions may still have: each place that names an acl has all of its values.
    values_left: usize,
    /// The first section that a frontend has become, by HAProxy's name.
    frontends: BTreeMap<String, SectionId>,
    /// Ports from which clients come to a backend, by HAProxy's name: first and last, of at most two addresses.
    ports: BTreeMap<String, Vec<(u16, u16)>>,
    /// Backends with the one that serves when none of their servers is up, by HAProxy's names.
    fallbacks: Vec<(String, String)>,
}

/// Files of networks.
#[derive(Debug, Default)]
struct Lists {
    /// Their names by their paths.
    names: BTreeMap<String, String>,
}

impl Lists {
    /// What rules and routes call the list in a file.
    ///
    /// # Errors
    /// Its path cannot be used.
    fn name(&mut self, path: &str, draft: &mut Draft) -> Result<String, String> {
        if !path.starts_with('/') {
            return Err(format!(
                "the path {path} depends on where HAProxy was started: make it absolute"
            ));
        }
        if let Some(name) = self.names.get(path) {
            return Ok(format!("file:{name}"));
        }
        let stem = path
            .rsplit('/')
            .next()
            .and_then(|file| file.split('.').next())
            .unwrap_or_default();
        let name = draft.network_list_name(stem);
        let out = draft.section(&["network_lists"]);
        draft.set(out, &[&name], path);
        self.names.insert(path.to_owned(), name.clone());
        Ok(format!("file:{name}"))
    }
}

/// Translates a file.
///
/// # Errors
/// It is no configuration of HAProxy.
pub fn translate(file: &InputFile, draft: &mut Draft, files: &mut dyn Files) -> Result<(), Unreadable> {
    let sections = file::read(file, draft)?;
    let (proxies, others) = proxies::of(sections, &file.name, draft)?;
    let proxies = of_different_names(proxies, draft);
    let mut context = Context {
        draft,
        files,
        names: BTreeMap::new(),
        shared: tls::Shared::default(),
        lists: Lists::default(),
        values_left: MAX_VALUES,
        frontends: BTreeMap::new(),
        ports: BTreeMap::new(),
        fallbacks: Vec::new(),
    };
    for section in &others {
        global::read(section, &mut context);
    }
    for proxy in proxies
        .iter()
        .filter(|proxy| proxy.is_backend && has_servers(proxy))
    {
        let name = context.draft.backend_name(&proxy.name);
        context.names.insert(proxy.name.clone(), name);
    }
    let by_name: BTreeMap<&str, &Proxy> = proxies
        .iter()
        .filter(|proxy| proxy.is_backend)
        .map(|proxy| (proxy.name.as_str(), proxy))
        .collect();
    for proxy in proxies.iter().filter(|proxy| proxy.is_frontend) {
        frontend::translate(proxy, &by_name, &mut context);
    }
    backend::unsaid(&proxies, &mut context);
    for proxy in proxies.iter().filter(|proxy| proxy.is_backend) {
        backend::translate(proxy, &mut context);
    }
    explain::rest(&proxies, &others, &mut context);
    Ok(())
}

/// Without the second of two backends of one name, which HAProxy does not take.
fn of_different_names(proxies: Vec<Proxy>, draft: &mut Draft) -> Vec<Proxy> {
    let mut names = BTreeSet::new();
    let (kept, doubled): (Vec<Proxy>, Vec<Proxy>) = proxies
        .into_iter()
        .partition(|proxy| !proxy.is_backend || names.insert(proxy.name.clone()));
    for proxy in &doubled {
        let why = "there is another one of this name above it: this one is left out";
        draft.no_equal(proxy.header.id, At::Top, why);
        for line in proxy.lines.iter().filter(|line| !line.is_inherited) {
            draft.translated(line.id);
        }
    }
    kept
}

/// Whether a backend is one: `listen` sections often only show statistics.
fn has_servers(proxy: &Proxy) -> bool {
    let is_server = |name: &str| ["server", "server-template", "dispatch"].contains(&name);
    !proxy.is_frontend || proxy.lines.iter().any(|line| is_server(line.name()))
}

#[cfg(test)]
mod tests;

//! Finding what an operator named, and helping when it does not exist.

use axum::http::StatusCode;

use super::views::{Connection, ConnectionFilter, Problem};
use crate::{
    base::{BackendName, FrontendName, ServerKey},
    config::nearest,
    snapshot::{BackendView, FrontendView, ServerView, Snapshot},
};

/// Known names listed in a message; more are counted.
const LISTED: usize = 10;

/// The server that an operator means.
///
/// # Errors
/// 404 with the known names and the most similar one.
pub fn find_server<'a>(
    snapshot: &'a Snapshot,
    backend: &str,
    server: &str,
) -> Result<(&'a BackendView, &'a ServerView), Problem> {
    let view = find_backend(snapshot, backend)?;
    match view.server(server) {
        Some(found) => Ok((view, found)),
        None => Err(no_server(
            backend,
            server,
            view.servers.iter().map(|s| s.name.as_str()),
        )),
    }
}

/// The backend that an operator means.
///
/// # Errors
/// 404 with the known names and the most similar one.
pub fn find_backend<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a BackendView, Problem> {
    let known = || snapshot.backends.keys().map(BackendName::as_str);
    let found = snapshot.backends.get(name);
    (found.map(AsRef::as_ref)).ok_or_else(|| no_backend(name, known()))
}

/// The frontend that an operator means.
///
/// # Errors
/// 404 with the known names and the most similar one.
pub fn find_frontend<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a FrontendView, Problem> {
    let found = snapshot.frontends.get(name);
    (found.map(AsRef::as_ref)).ok_or_else(|| {
        let mut known: Vec<_> = snapshot.frontends.keys().map(FrontendName::as_str).collect();
        known.sort_unstable();
        no_frontend(name, known.into_iter())
    })
}

/// Whether what a filter names exists.
///
/// # Errors
/// 404 with the known names and the most similar one.
pub fn check_names(snapshot: &Snapshot, filter: &ConnectionFilter) -> Result<(), Problem> {
    if let Some(frontend) = &filter.frontend {
        find_frontend(snapshot, frontend)?;
    }
    if let Some(backend) = &filter.backend {
        find_backend(snapshot, backend)?;
    }
    match (&filter.backend, &filter.server) {
        (Some(backend), Some(server)) => find_server(snapshot, backend, server).map(|_| ()),
        (None, Some(server)) if snapshot.backends.values().all(|b| b.server(server).is_none()) => {
            let known: std::collections::BTreeSet<&str> =
                snapshot.servers().map(|(_, known)| known.name.as_str()).collect();
            let hint = hint(server, known.into_iter(), "servers", "there are no servers");
            Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("no server `{server}` in any backend{hint}"),
            ))
        }
        _ => Ok(()),
    }
}

/// Notes what of a connection is no longer configured.
pub fn mark_removed(snapshot: &Snapshot, connection: &mut Connection) {
    connection.frontend_removed = !snapshot.frontends.contains_key(&connection.frontend);
    if let (Some(backend), Some(server)) = (&connection.backend, &connection.server) {
        let key = ServerKey {
            backend: backend.clone(),
            server: server.clone(),
        };
        // at another address it is another server
        let found = snapshot.server(&key);
        connection.server_removed =
            found.is_none_or(|found| connection.server_addr.is_some_and(|addr| addr != found.addr));
    }
}

/// The answer to a backend that does not exist.
pub fn no_backend<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let hint = hint(name, known, "backends", "there are no backends");
    Problem::new(StatusCode::NOT_FOUND, format!("no backend `{name}`{hint}"))
}

/// The answer to a frontend that does not exist.
pub fn no_frontend<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let hint = hint(name, known, "frontends", "there are no frontends");
    Problem::new(StatusCode::NOT_FOUND, format!("no frontend `{name}`{hint}"))
}

/// The answer to what cannot be understood.
pub fn usage(message: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, message)
}

/// The answer to a name that neither a frontend nor a backend has.
pub fn nothing_named<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let known: std::collections::BTreeSet<&str> = known.collect();
    let hint = hint(name, known.into_iter(), "names", "there are none");
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("no frontend, backend or BACKEND/SERVER `{name}`{hint}"),
    )
}

/// The answer to a server that does not exist.
pub fn no_server<'a>(backend: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let hint = hint(name, known, "its servers", "it has no servers");
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("no server `{name}` in backend `{backend}`{hint}"),
    )
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>, what: &str, none: &str) -> String {
    let known: Vec<&str> = known.collect();
    if known.is_empty() {
        return format!(": {none}");
    }
    // every name of one letter is near every other
    let similar = nearest(name, known.iter().copied())
        .filter(|_| name.chars().count() > 1)
        .map_or_else(String::new, |candidate| format!(": did you mean `{candidate}`?"));
    let listed = known.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{similar} ({what}: {listed}{more})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest_and_the_known_ones() {
        let problem = no_backend("wbe", ["api", "web"].into_iter());
        assert_eq!(
            problem.message,
            "no backend `wbe`: did you mean `web`? (backends: api, web)"
        );
        let problem = no_server("web", "z", ["a", "b"].into_iter());
        assert_eq!(
            problem.message,
            "no server `z` in backend `web` (its servers: a, b)"
        );
    }

    #[test]
    fn a_long_list_of_names_is_cut_and_an_empty_one_is_said() {
        let names: Vec<String> = (0..13).map(|n| format!("server{n:02}")).collect();
        let problem = no_server("web", "q", names.iter().map(String::as_str));
        assert!(
            problem.message.ends_with("server09 and 3 more)"),
            "{}",
            problem.message
        );
        let problem = no_backend("web", std::iter::empty());
        assert_eq!(problem.message, "no backend `web`: there are no backends");
    }
}

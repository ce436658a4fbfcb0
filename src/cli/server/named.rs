//! Which servers an operator means, among those that there are: pure.

use std::collections::BTreeMap;

use crate::{
    admin::{
        lookup,
        views::{Backend, Problem, Server},
    },
    base::{BackendName, ServerName},
};

/// Backends by name, as the daemon tells of them.
pub type Backends = BTreeMap<BackendName, Backend>;

/// A server that there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Named<'a> {
    /// Its backend.
    pub backend: &'a BackendName,
    /// Its name.
    pub name: &'a ServerName,
    /// As it is now.
    pub server: &'a Server,
}

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

/// The servers that words name, in the order of the words and each once: BACKEND/SERVER, where a `*` stands for any text,
/// or BACKEND SERVER as two words.
///
/// # Errors
/// A word that names no server, with the names that there are; or one that several servers go by.
pub fn find<'a>(backends: &'a Backends, words: &[String]) -> Result<Vec<Named<'a>>, Problem> {
    if let [backend, server] = words
        && let Some(named) = exactly(backends, backend, server)
    {
        return Ok(vec![named]);
    }
    // two words without a slash are one server, so that a name that is not there is told as such
    if let [backend, server] = words
        && !backend.contains('/')
        && !server.contains('/')
    {
        return Err(missing(backends, backend, server));
    }
    let mut found: Vec<Named<'a>> = Vec::new();
    for word in words {
        for named in by_word(backends, word)? {
            if !found.contains(&named) {
                found.push(named);
            }
        }
    }
    Ok(found)
}

fn exactly<'a>(backends: &'a Backends, backend: &str, server: &str) -> Option<Named<'a>> {
    let (backend, view) = backends.get_key_value(backend)?;
    let (name, server) = view.servers.get_key_value(server)?;
    Some(Named {
        backend,
        name,
        server,
    })
}

fn by_word<'a>(backends: &'a Backends, word: &str) -> Result<Vec<Named<'a>>, Problem> {
    // a name may have slashes: any of them can be the one between the two
    let splits: Vec<(&str, &str)> = (word.match_indices('/'))
        .map(|(at, _)| (&word[..at], &word[at + 1..]))
        .collect();
    let exact: Vec<_> = (splits.iter())
        .filter_map(|(backend, server)| exactly(backends, backend, server))
        .collect();
    match (exact.as_slice(), splits.as_slice()) {
        ([_], _) => Ok(exact),
        ([_, _, ..], _) => Err(lookup::usage(format!(
            "`{word}` is ambiguous: pass the backend and the server as two arguments"
        ))),
        ([], []) => Err(lookup::usage(format!(
            "`{word}` does not name a server: pass BACKEND/SERVER, such as web/a, or web/* for all of a backend"
        ))),
        ([], [(backend, server), ..]) => {
            let matching = splits
                .iter()
                .flat_map(|(backend, server)| like(backends, backend, server));
            let matching: Vec<_> = matching.collect();
            if matching.is_empty() {
                return Err(missing(backends, backend, server));
            }
            Ok(matching)
        }
    }
}

/// Servers whose names match patterns of which at least one is no plain name.
fn like<'a>(backends: &'a Backends, backend: &str, server: &str) -> Vec<Named<'a>> {
    if !backend.contains('*') && !server.contains('*') {
        return Vec::new();
    }
    let fitting = backends
        .iter()
        .filter(|(name, _)| matches(backend, name.as_str()));
    let servers = fitting.flat_map(|(backend, view)| {
        view.servers.iter().map(move |(name, server)| Named {
            backend,
            name,
            server,
        })
    });
    servers
        .filter(|named| matches(server, named.name.as_str()))
        .collect()
}

/// Whether a text is like a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        // the first place leaves most for the others
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn missing(backends: &Backends, backend: &str, server: &str) -> Problem {
    match backends.get(backend) {
        Some(view) => lookup::no_server(backend, server, view.servers.keys().map(ServerName::as_str)),
        None => lookup::no_backend(backend, backends.keys().map(BackendName::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::picture::tests::backends_of;

    fn found(words: &str) -> Result<String, String> {
        let backends = backends_of(&[
            ("web", &["one", "two", "spare"]),
            ("db", &["one"]),
            ("a/b", &["c", "c/d"]),
            ("a", &["b/c"]),
        ]);
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let found = find(&backends, &words).map_err(|problem| problem.message)?;
        Ok(found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn servers_are_named_one_by_one_or_by_patterns() {
        for (words, expected) in [
            ("web/one", "web/one"),
            ("web one", "web/one"),
            ("web/two web/one db/one", "web/two web/one db/one"),
            ("web/one web/one", "web/one"),
            ("web/*", "web/one web/spare web/two"),
            ("*/one", "db/one web/one"),
            ("web/*o*", "web/one web/two"),
            ("web/t*o", "web/two"),
            ("web/two web/*", "web/two web/one web/spare"),
            // names with slashes
            ("a/b c/d", "a/b/c/d"),
            ("a/b/c/d", "a/b/c/d"),
        ] {
            assert_eq!(found(words).as_deref(), Ok(expected), "{words}");
        }
    }

    #[test]
    fn a_word_that_names_no_server_is_told_with_the_names_that_there_are() {
        for (words, expected) in [
            ("web", "`web` does not name a server"),
            (
                "web/",
                "no server `` in backend `web` (its servers: one, spare, two)",
            ),
            ("web oen", "no server `oen` in backend `web`: did you mean `one`?"),
            ("wbe/one", "no backend `wbe`: did you mean `web`?"),
            ("web/one web/x*", "no server `x*` in backend `web`"),
            ("nope/*", "no backend `nope`"),
            (
                "a/b/c",
                "`a/b/c` is ambiguous: pass the backend and the server as two arguments",
            ),
        ] {
            let message = found(words).expect_err(words);
            assert!(message.starts_with(expected), "{words}: {message}");
        }
        // as the message says
        assert_eq!(found("a b/c").as_deref(), Ok("a/b/c"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

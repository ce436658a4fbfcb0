//! What of a status was asked for: pure.

use super::picture::Totals;
use crate::{
    admin::{
        lookup,
        views::{Problem, Status},
    },
    base::{BackendName, BackendState, FrontendName, ServerState},
};

/// What is to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Frontends, backends and BACKEND/SERVER; all of them if there are none.
    pub names: &'a [String],
    /// Only what is down.
    pub down: bool,
}

impl Selection<'_> {
    /// Whether anything is left out.
    const fn is_partial(&self) -> bool {
        self.down || !self.names.is_empty()
    }

    /// Removes what was not asked for. Gives the number of servers that each backend had, if anything was to be left out.
    ///
    /// # Errors
    /// A name that is nobody's.
    pub fn apply(&self, status: &mut Status) -> Result<Option<Totals>, Problem> {
        let totals = (status.backends.iter()).map(|(name, backend)| (name.clone(), backend.servers.len()));
        let totals = totals.collect();
        if !self.names.is_empty() {
            self.keep_named(status)?;
        }
        if self.down {
            keep_down(status);
        }
        if self.is_partial()
            && let Some(packet) = &mut status.packet
        {
            let servers = status
                .backends
                .values()
                .flat_map(|backend| backend.servers.values());
            let shown: Vec<_> = servers.filter_map(|server| server.addr.ip()).collect();
            packet.next_hops.retain(|ip, _| shown.contains(ip));
        }
        Ok(self.is_partial().then_some(totals))
    }

    fn keep_named(&self, status: &mut Status) -> Result<(), Problem> {
        let is_named = |name: &str| self.names.iter().any(|named| named == name);
        let pair = |backend: &str, server: &str| is_named(&format!("{backend}/{server}"));
        for name in self.names {
            let is_known = status.frontends.contains_key(name.as_str())
                || status.backends.iter().any(|(backend, view)| {
                    let mut servers = view.servers.keys();
                    backend.as_str() == name || servers.any(|server| format!("{backend}/{server}") == *name)
                });
            if !is_known {
                let frontends = status.frontends.keys().map(FrontendName::as_str);
                let known = frontends.chain(status.backends.keys().map(BackendName::as_str));
                return Err(lookup::nothing_named(name, known));
            }
        }
        let backends_of_named: Vec<_> = (status.frontends.iter())
            .filter(|(name, _)| is_named(name.as_str()))
            .flat_map(|(_, frontend)| std::iter::once(&frontend.backend).chain(&frontend.route_backends))
            .cloned()
            .collect();
        status.backends.retain(|name, backend| {
            if is_named(name.as_str()) || backends_of_named.contains(name) {
                return true;
            }
            backend
                .servers
                .retain(|server, _| pair(name.as_str(), server.as_str()));
            !backend.servers.is_empty()
        });
        (status.frontends).retain(|name, frontend| {
            let mut backends = std::iter::once(&frontend.backend).chain(&frontend.route_backends);
            is_named(name.as_str()) || backends.any(|backend| is_named(backend.as_str()))
        });
        Ok(())
    }
}

fn keep_down(status: &mut Status) {
    status.frontends.retain(|_, frontend| !frontend.serves);
    status.backends.retain(|_, backend| {
        backend
            .servers
            .retain(|_, server| server.state == ServerState::Down);
        backend.state == BackendState::Down || !backend.servers.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::ServerName, cli::picture::tests::example};

    /// Frontends, backends and servers that are left.
    fn left(names: &[&str], down: bool) -> Result<String, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut status = example();
        let selection = Selection { names: &names, down };
        selection.apply(&mut status).map_err(|problem| problem.message)?;
        let frontends: Vec<_> = status.frontends.keys().map(FrontendName::as_str).collect();
        let backends: Vec<_> = (status.backends.iter())
            .map(|(name, backend)| {
                let servers: Vec<_> = backend.servers.keys().map(ServerName::as_str).collect();
                format!("{name}({})", servers.join(" "))
            })
            .collect();
        Ok(format!("{} | {}", frontends.join(" "), backends.join(" ")))
    }

    #[test]
    fn names_are_those_of_frontends_backends_and_servers() {
        for (names, expected) in [
            (&[][..], "mail web | empty() web(a b c d e)"),
            (&["web"], "web | web(a b c d e)"),
            (&["mail"], "mail | empty()"),
            (&["empty"], "mail | empty()"),
            (&["web/b", "web/c"], " | web(b c)"),
            (&["mail", "web/b"], "mail | empty() web(b)"),
        ] {
            assert_eq!(left(names, false).as_deref(), Ok(expected), "{names:?}");
        }
        let unknown = left(&["wbe"], false).expect_err("nobody's name");
        assert!(
            unknown.contains("`wbe`") && unknown.contains("did you mean `web`?"),
            "{unknown}"
        );
    }

    #[test]
    fn down_is_what_an_operator_is_woken_for() {
        assert_eq!(left(&[], true).as_deref(), Ok("mail | empty() web(b)"));
        assert_eq!(left(&["web"], true).as_deref(), Ok(" | web(b)"));
    }
}

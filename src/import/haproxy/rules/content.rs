//! Rules about what connections begin with: `tcp-request content`.

use super::{Reader, Route};
use crate::import::{
    NoteKind,
    haproxy::{
        access::{self, Action},
        acl::{self, Test},
        file::Line,
    },
};

/// Where rules about contents count in another order.
const SPARED: &str =
    "it counts here for connections, too, that a `tcp-request content accept` before it spares";

impl Reader<'_, '_> {
    pub(super) fn content_accept(&mut self, line: &Line) -> Result<(), String> {
        let terms = self.terms(line, 3)?;
        let is = |test: Test| {
            terms
                .iter()
                .any(|term| matches!(term.as_slice(), [only] if !only.is_negated && only.any.contains(&test)))
        };
        if self.takes_all {
            return Ok(());
        }
        if is(Test::Always) || terms.iter().any(Vec::is_empty) {
            // later ones are not reached
            self.takes_all = true;
            return self.access_by(Action::Accept, &[Vec::new()]);
        }
        if is(Test::IsTls) {
            self.takes_tls = true;
        } else if access::is_about_clients(&terms) && self.access_by(Action::Accept, &terms).is_ok() {
            self.allowed_clients.push((line.clone(), terms));
        } else {
            self.allowed.push((line.clone(), terms));
        }
        Ok(())
    }

    pub(super) fn content_reject(&mut self, line: &Line) -> Result<(), String> {
        if self.takes_all {
            return Ok(());
        }
        let terms = self.terms(line, 3)?;
        if access::is_about_clients(&terms) {
            if self.takes_tls || !self.allowed.is_empty() {
                self.note(line, NoteKind::Differs, SPARED);
            }
            return self.access_by(Action::Reject, &terms);
        }
        let is_all = terms.iter().any(|term| {
            term.iter()
                .all(|literal| !literal.is_negated && literal.any.contains(&Test::Always))
        });
        let is_only_clients = self.allowed.is_empty() && !self.takes_tls && !self.allowed_clients.is_empty();
        if is_all && is_only_clients {
            return self.access_by(Action::Reject, &[Vec::new()]);
        }
        if is_all && !self.takes_tls {
            self.allowed.append(&mut self.allowed_clients);
        } else if !self.allowed_clients.is_empty() || !(is_all || self.allowed.is_empty()) {
            self.note(line, NoteKind::Differs, SPARED);
        }
        for term in terms {
            let literals: Vec<_> = term
                .iter()
                .filter(|literal| !literal.any.contains(&Test::Always))
                .collect();
            match literals.as_slice() {
                [] if self.takes_tls => self.rules.rejects_other_than_tls = true,
                [] if !self.allowed.is_empty() => self.rejects_others(),
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
    pub(super) fn only_allowed(&mut self, is_alone: bool) {
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
                    Err(why) => {
                        let text = format!("{why}; such connections are rejected here");
                        self.note(line, NoteKind::NoEqual, &text);
                    }
                }
            }
        }
        if !is_alone {
            return;
        }
        if self.rules.routes.iter().any(|route| route.backend.is_some()) {
            self.rules.default = None;
        } else {
            // none of what is allowed can be said: all that are left are rejected
            self.rules.routes.push(Route::default());
        }
    }
}

//! Rules about who may connect.

use super::acl::{Term, Test};

/// The rules, in order.
#[derive(Debug, Default)]
pub struct Access {
    /// As `access.rules` has them.
    pub rules: Vec<String>,
    /// What becomes of clients that no rule names.
    pub denies_others: bool,
    /// Later rules have no effect.
    is_closed: bool,
    /// Later rules would have one, but cannot be said.
    is_full: bool,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Later rules of its kind are skipped.
    Accept,
    /// The connection ends.
    Reject,
}

/// Names a list of networks in a file, as rules and routes do: `file:NAME`.
pub type Listing<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

impl Access {
    /// Adds a rule with its condition.
    ///
    /// # Errors
    /// Why there is no such rule here.
    pub fn add(&mut self, action: Action, terms: &[Term], list: Listing<'_>) -> Result<(), String> {
        if self.is_closed {
            return Ok(());
        }
        if self.is_full {
            return Err(
                "the rule before it lets only some clients in, and no rule can follow that here".to_owned(),
            );
        }
        if terms.iter().any(holds_always) {
            self.is_closed = true;
            self.denies_others = action == Action::Reject;
            return Ok(());
        }
        let (mut named, mut others) = (Vec::new(), false);
        for term in terms {
            let is_opposite = term.iter().all(|literal| literal.is_negated);
            match term.as_slice() {
                // unless they come from one of these
                literals if is_opposite && terms.len() == 1 && action == Action::Reject => {
                    for literal in literals {
                        named.extend(clients(&literal.any, list)?);
                    }
                    others = true;
                }
                [literal] if !literal.is_negated => named.extend(clients(&literal.any, list)?),
                _ => return Err("access rules ask for one thing each".to_owned()),
            }
        }
        let word = if others || action == Action::Accept {
            "allow"
        } else {
            "deny"
        };
        self.rules
            .extend(named.into_iter().map(|client| format!("{word} {client}")));
        if others {
            self.denies_others = true;
            self.is_full = true;
        }
        Ok(())
    }

    /// The only networks that are let in, if the rules say that and no more.
    pub fn only_these(&self) -> Option<Vec<String>> {
        let allowed = |rule: &String| rule.strip_prefix("allow ").map(str::to_owned);
        let all: Option<Vec<String>> = self.rules.iter().map(allowed).collect();
        all.filter(|all| self.denies_others && !all.is_empty())
    }

    /// Whether there is anything to say.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.denies_others
    }
}

fn holds_always(term: &Term) -> bool {
    term.iter()
        .all(|literal| !literal.is_negated && literal.any.contains(&Test::Always))
}

fn clients(tests: &[Test], list: Listing<'_>) -> Result<Vec<String>, String> {
    let mut clients = Vec::new();
    for test in tests {
        match test {
            Test::Source(networks) => clients.extend(networks.iter().cloned()),
            Test::SourceFile(path) => clients.push(list(path)?),
            Test::Unknown(why) => return Err(why.clone()),
            _ => return Err("access rules ask for clients' addresses only".to_owned()),
        }
    }
    Ok(clients)
}

/// Whether a condition asks for clients' addresses only.
pub fn is_about_clients(terms: &[Term]) -> bool {
    let mut tests = terms.iter().flatten().flat_map(|literal| &literal.any);
    tests.all(|test| matches!(test, Test::Source(_) | Test::SourceFile(_)))
        && !terms.iter().any(Vec::is_empty)
}

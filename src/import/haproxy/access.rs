//! Rules about who may connect.

use std::net::IpAddr;

use super::acl::{Literal, Term, Test};

/// Most rules that the rules of several levels may come to.
const MAX_RULES: usize = 20_000;

/// Most pairs of networks that are compared for that.
const MAX_PAIRS: usize = 1_000_000;

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Later rules of its level are skipped.
    #[default]
    Accept,
    /// The connection ends.
    Reject,
}

/// The rules of one level: what one accepts, the rules of later levels may still reject.
#[derive(Debug, Default)]
pub struct Level {
    steps: Vec<Step>,
    /// Later rules have no effect.
    is_closed: bool,
}

/// A rule of a level.
#[derive(Debug)]
enum Step {
    /// For clients in these networks.
    These(Action, Vec<String>),
    /// For all but those.
    Others(Action, Vec<String>),
}

/// Who may connect after all: the first rule that names a client counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    rules: Vec<(Action, String)>,
    others: Action,
}

/// Names a list of networks in a file, as rules and routes do: `file:NAME`.
pub type Listing<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

impl Level {
    /// Adds a rule with its condition.
    ///
    /// # Errors
    /// Why there is no such rule here.
    pub fn add(&mut self, action: Action, terms: &[Term], list: Listing<'_>) -> Result<(), String> {
        if self.is_closed {
            return Ok(());
        }
        if terms.iter().any(holds_always) {
            self.is_closed = true;
            self.steps.push(Step::Others(action, Vec::new()));
            return Ok(());
        }
        let (mut named, mut is_others) = (Vec::new(), false);
        for term in terms {
            let asks: Vec<&Literal> = term.iter().filter(|literal| !is_always(literal)).collect();
            match asks.as_slice() {
                // unless they come from one of these
                literals if terms.len() == 1 && literals.iter().all(|literal| literal.is_negated) => {
                    for literal in literals {
                        named.extend(clients(&literal.any, list)?);
                    }
                    is_others = true;
                }
                [literal] if !literal.is_negated => named.extend(clients(&literal.any, list)?),
                _ => return Err("access rules ask for one thing each".to_owned()),
            }
        }
        self.steps.push(match is_others {
            true => Step::Others(action, named),
            false => Step::These(action, named),
        });
        Ok(())
    }

    /// What they come to.
    ///
    /// # Errors
    /// Why that cannot be said by one rule after the other.
    pub fn access(self) -> Result<Access, String> {
        // from the last one back; the rules in `rest` are the other way round
        let mut rest = Access::default();
        for step in self.steps.into_iter().rev() {
            match step {
                Step::These(action, networks) => {
                    let rules = networks.into_iter().rev().map(|network| (action, network));
                    rest.rules.extend(rules);
                }
                Step::Others(action, networks) => {
                    rest.rules.reverse();
                    let mut rules = Vec::new();
                    within(&networks, &rest, &mut rules)?;
                    rules.reverse();
                    rest = Access {
                        rules,
                        others: action,
                    };
                }
            }
        }
        rest.rules.reverse();
        Ok(rest.without_idle())
    }
}

impl Access {
    /// Whom both this level and a later one let in.
    ///
    /// # Errors
    /// Why that cannot be said by one rule after the other.
    pub fn and(self, later: Self) -> Result<Self, String> {
        let only_rejects = |access: &Self| {
            let mut rules = access.rules.iter();
            access.others == Action::Accept && rules.all(|(action, _)| *action == Action::Reject)
        };
        if only_rejects(&self) {
            return Ok(self.followed_by(later));
        }
        if only_rejects(&later) {
            return Ok(later.followed_by(self));
        }
        let mut both = Self::default();
        for (action, network) in &self.rules {
            match action {
                Action::Reject => both.rules.push((Action::Reject, network.clone())),
                Action::Accept => within(std::slice::from_ref(network), &later, &mut both.rules)?,
            }
            if both.rules.len() > MAX_RULES {
                return Err(TOO_MANY.to_owned());
            }
        }
        match self.others {
            Action::Reject => both.others = Action::Reject,
            Action::Accept => both = both.followed_by(later),
        }
        Ok(both.without_idle())
    }

    /// Nobody may connect.
    pub fn nobody() -> Self {
        Self {
            rules: Vec::new(),
            others: Action::Reject,
        }
    }

    fn followed_by(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.others = other.others;
        self
    }

    /// Without last rules that do what becomes of the others anyway.
    fn without_idle(mut self) -> Self {
        while self.rules.pop_if(|(action, _)| *action == self.others).is_some() {}
        self
    }

    /// As `access.rules` has them.
    pub fn texts(&self) -> Vec<String> {
        let text = |(action, network): &(Action, String)| match action {
            Action::Accept => format!("allow {network}"),
            Action::Reject => format!("deny {network}"),
        };
        self.rules.iter().map(text).collect()
    }

    /// Whether clients that no rule names are refused.
    pub fn denies_others(&self) -> bool {
        self.others == Action::Reject
    }

    /// The only networks that are let in, if the rules say that and no more.
    pub fn only_these(&self) -> Option<Vec<String>> {
        let allowed =
            |(action, network): &(Action, String)| (*action == Action::Accept).then(|| network.clone());
        let all: Option<Vec<String>> = self.rules.iter().map(allowed).collect();
        all.filter(|all| self.denies_others() && !all.is_empty())
    }

    /// Whether everybody may connect.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const TOO_MANY: &str = "its rules together come to more than any real file has";

/// What some rules come to for clients in these networks alone.
fn within(networks: &[String], rest: &Access, rules: &mut Vec<(Action, String)>) -> Result<(), String> {
    if networks.len().saturating_mul(rest.rules.len()) > MAX_PAIRS {
        return Err(TOO_MANY.to_owned());
    }
    for network in networks {
        let mut is_whole = false;
        for (action, other) in &rest.rules {
            let Some(common) = common(network, other)? else {
                continue;
            };
            is_whole = common == *network;
            rules.push((*action, common));
            if is_whole {
                break;
            }
        }
        if !is_whole {
            rules.push((rest.others, network.clone()));
        }
        if rules.len() > MAX_RULES.max(networks.len()) {
            return Err(TOO_MANY.to_owned());
        }
    }
    Ok(())
}

/// The network that two have in common: the smaller one, if it is within the other.
fn common(one: &str, other: &str) -> Result<Option<String>, String> {
    if one == other {
        return Ok(Some(one.to_owned()));
    }
    let (Some((first, one_bits)), Some((second, other_bits))) = (bits(one), bits(other)) else {
        return Err("what is in both of two lists of clients cannot be said here".to_owned());
    };
    let same = one_bits.min(other_bits);
    // IPv4 stands in the upper 32 bits
    let is_within = first.0 == second.0
        && (first.1 ^ second.1)
            .checked_shr(128 - same)
            .is_none_or(|different| different == 0);
    let smaller = if one_bits >= other_bits { one } else { other };
    Ok(is_within.then(|| smaller.to_owned()))
}

/// Whether a network is of IPv4, its bits from the uppermost one on, and how many of them count.
fn bits(network: &str) -> Option<((bool, u128), u32)> {
    let (ip, prefix) = match network.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix.parse::<u32>().ok()?)),
        None => (network, None),
    };
    let (family, most) = match ip.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => ((true, u128::from(ip.to_bits()) << 96), 32),
        IpAddr::V6(ip) => ((false, ip.to_bits()), 128),
    };
    Some((family, prefix.unwrap_or(most).min(most)))
}

fn is_always(literal: &Literal) -> bool {
    !literal.is_negated && literal.any.contains(&Test::Always)
}

fn holds_always(term: &Term) -> bool {
    term.iter().all(is_always)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `+NETWORK…` accepts, `-NETWORK…` rejects, `+!` and `-!` all but those; without networks everybody.
    fn level(rules: &[&str]) -> Level {
        let mut level = Level::default();
        for rule in rules {
            let (sign, rest) = rule.split_at(1);
            let action = if sign == "+" {
                Action::Accept
            } else {
                Action::Reject
            };
            let is_negated = rest.starts_with('!');
            let networks: Vec<String> = rest
                .trim_start_matches('!')
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            let term = match networks.is_empty() {
                true => Vec::new(),
                false => vec![Literal {
                    is_negated,
                    any: vec![Test::Source(networks)],
                }],
            };
            level
                .add(action, &[term], &mut |_| Err("no list".to_owned()))
                .expect(rule);
        }
        level
    }

    /// As HAProxy judges a client: each level must let it through.
    fn lets_in(levels: &[&[&str]], client: &str) -> bool {
        levels.iter().all(|rules| {
            for rule in *rules {
                let (sign, rest) = rule.split_at(1);
                let networks = rest.trim_start_matches('!');
                let is_in = networks
                    .split_whitespace()
                    .any(|network| common(client, network).expect("networks").is_some());
                if networks.is_empty() || is_in != rest.starts_with('!') {
                    return sign == "+";
                }
            }
            true
        })
    }

    #[test]
    fn the_levels_together_let_in_whom_each_of_them_lets_in() {
        let all: [&[&[&str]]; 9] = [
            &[&["+127.0.0.0/8"], &["-127.0.0.2"]],
            &[&["+10.0.0.0/8", "-"], &["+10.1.0.0/16", "-"]],
            &[&["+10.1.0.0/16", "-10.0.0.0/8"], &["-!10.0.0.0/8 127.0.0.2"]],
            &[&["-!10.0.0.0/8", "-10.1.0.0/16"], &["+10.1.1.1", "-10.2.0.0/16"]],
            &[&["+!10.0.0.0/8", "-10.1.1.1"], &["-2001:db8::/32"]],
            &[
                &["+10.1.1.1", "-!10.2.0.0/16", "-10.2.2.2"],
                &["+10.2.0.0/16 10.1.1.1", "-"],
            ],
            &[&["-"], &["+127.0.0.2"]],
            &[&["+"], &["-10.0.0.0/8"], &["+2001:db8::/32", "-::/0"]],
            &[&["-10.1.1.1"], &["+10.1.1.1", "-"], &["+10.0.0.0/8"]],
        ];
        let clients = [
            "10.1.1.1",
            "10.1.1.2",
            "10.2.2.2",
            "10.2.0.1",
            "10.3.0.1",
            "127.0.0.1",
            "127.0.0.2",
            "192.0.2.1",
            "2001:db8::1",
            "2001:db9::1",
        ];
        for levels in all {
            let access = levels.iter().fold(Access::default(), |access, rules| {
                access.and(level(rules).access().expect("rules")).expect("both")
            });
            for client in clients {
                let first = access
                    .rules
                    .iter()
                    .find(|(_, network)| common(client, network).expect("networks").is_some());
                let action = first.map_or(access.others, |(action, _)| *action);
                assert_eq!(
                    action == Action::Accept,
                    lets_in(levels, client),
                    "{levels:?} {client} {access:?}"
                );
            }
        }
    }

    #[test]
    fn what_two_lists_have_in_common_is_not_guessed() {
        let rules = |file: &str| Access {
            rules: vec![(Action::Accept, file.to_owned())],
            others: Action::Reject,
        };
        assert!(rules("file:a").and(rules("file:b")).is_err());
        let same = rules("file:a").and(rules("file:a")).expect("one list");
        assert_eq!(same, rules("file:a"));
    }
}

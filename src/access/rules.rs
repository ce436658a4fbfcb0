//! Which clients may come: the first rule that names a client's address decides.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use super::{
    network::{Network, NetworkError},
    networks::Networks,
};
use crate::base::{NameError, NetworkListName};

/// What is done with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is let in.
    Allow,
    /// It is refused.
    Deny,
}

/// A rule as it is written: `"deny 10.0.0.0/8"`, `"allow file:NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// With whom.
    pub clients: RuleSubject,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSubject {
    /// One network.
    Network(Network),
    /// Those of a list: `file:NAME`.
    List(NetworkListName),
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It does not begin with an action.
    #[error("a rule begins with \"allow\" or \"deny\"")]
    Action,
    /// It is not two words.
    #[error("a rule is an action and one network or list")]
    Form,
    /// The network is none.
    #[error("\"{0}\": {1}")]
    Network(String, NetworkError),
    /// The name of the list is none.
    #[error("{0}")]
    Name(#[from] NameError),
}

/// Rules with the networks that they name.
#[derive(Debug, Clone)]
pub struct Rules {
    default: Action,
    rules: Vec<(Action, Arc<Networks>)>,
}

impl Action {
    /// As it is written.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Rules {
    /// Puts rules together with the lists that `list` knows. A list that it does not know has no networks.
    #[must_use]
    pub fn new(
        default: Action,
        rules: &[Rule],
        list: impl Fn(&NetworkListName) -> Option<Arc<Networks>>,
    ) -> Self {
        let mut out = Vec::new();
        // networks in a row with one action are one set
        for run in rules.chunk_by(|a, b| a.action == b.action) {
            let Some(first) = run.first() else { continue };
            let single = run.iter().filter_map(|rule| match &rule.clients {
                RuleSubject::Network(network) => Some(*network),
                RuleSubject::List(_) => None,
            });
            let single: Networks = single.collect();
            if single.entries() > 0 {
                out.push((first.action, Arc::new(single)));
            }
            for rule in run {
                if let RuleSubject::List(name) = &rule.clients {
                    out.extend(list(name).map(|networks| (rule.action, networks)));
                }
            }
        }
        Self { default, rules: out }
    }

    /// What is done with whom no rule names.
    #[must_use]
    pub const fn default(&self) -> Action {
        self.default
    }

    /// What is done with a client.
    #[must_use]
    pub fn decide(&self, client: IpAddr) -> Action {
        let rule = self.rules.iter().find(|(_, networks)| networks.contains(client));
        rule.map_or(self.default, |(action, _)| *action)
    }
}

/// Clients that networks and lists name.
#[derive(Debug, Clone)]
pub struct Subjects(Rules);

impl Subjects {
    /// Puts them together with the lists that `list` knows.
    #[must_use]
    pub fn new(subjects: &[RuleSubject], list: impl Fn(&NetworkListName) -> Option<Arc<Networks>>) -> Self {
        let rules: Vec<Rule> = (subjects.iter().cloned())
            .map(|clients| Rule {
                action: Action::Allow,
                clients,
            })
            .collect();
        Self(Rules::new(Action::Deny, &rules, list))
    }

    /// Whether a client is among them.
    #[must_use]
    pub fn has(&self, client: IpAddr) -> bool {
        self.0.decide(client) == Action::Allow
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split_ascii_whitespace();
        let action = match words.next() {
            Some("allow") => Action::Allow,
            Some("deny") => Action::Deny,
            _ => return Err(RuleError::Action),
        };
        let (Some(clients), None) = (words.next(), words.next()) else {
            return Err(RuleError::Form);
        };
        let clients = clients.parse()?;
        Ok(Self { action, clients })
    }
}

impl FromStr for RuleSubject {
    type Err = RuleError;

    /// Reads a network or `file:NAME`.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text.strip_prefix("file:") {
            Some(name) => Ok(Self::List(NetworkListName::new(name)?)),
            None => {
                (text.parse().map(Self::Network)).map_err(|error| RuleError::Network(text.to_owned(), error))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.label(), self.clients)
    }
}

impl fmt::Display for RuleSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::List(name) => write!(f, "file:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(default: Action, rules: &[&str], client: &str) -> Action {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let list = Arc::new(Networks::parse(b"192.0.2.0/24\n2001:db8::/32\n").unwrap());
        let rules = Rules::new(default, &rules, |name| {
            (name.as_str() == "office").then(|| Arc::clone(&list))
        });
        rules.decide(client.parse().unwrap())
    }

    #[test]
    fn the_first_rule_that_names_the_client_decides() {
        use Action::{Allow, Deny};
        let rules = [
            "deny 192.0.2.66",
            "deny 198.51.100.0/24",
            "allow file:office",
            "allow 10.0.0.0/8",
            "deny 10.1.0.0/16",
        ];
        assert_eq!(decide(Deny, &rules, "192.0.2.66"), Deny);
        assert_eq!(decide(Deny, &rules, "192.0.2.67"), Allow);
        assert_eq!(decide(Deny, &rules, "2001:db8::1"), Allow);
        assert_eq!(decide(Allow, &rules, "198.51.100.9"), Deny);
        assert_eq!(decide(Deny, &rules, "10.1.2.3"), Allow, "an earlier rule");
        assert_eq!(decide(Deny, &rules, "::ffff:10.1.2.3"), Allow);
        assert_eq!(decide(Deny, &rules, "203.0.113.1"), Deny);
        assert_eq!(decide(Allow, &rules, "203.0.113.1"), Allow);
    }

    #[test]
    fn a_rule_is_printed_as_it_is_read() {
        for text in ["deny 10.0.0.0/8", "allow file:office", "allow 2001:db8::1"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        assert_eq!("reject 10.0.0.0/8".parse::<Rule>(), Err(RuleError::Action));
        assert_eq!("deny".parse::<Rule>(), Err(RuleError::Form));
        assert_eq!("deny 10.0.0.0/8 10.0.0.0/8".parse::<Rule>(), Err(RuleError::Form));
        assert!(matches!(
            "deny 10.0.0".parse::<Rule>(),
            Err(RuleError::Network(..))
        ));
        assert_eq!(
            "deny file:".parse::<Rule>(),
            Err(RuleError::Name(NameError::Empty))
        );
    }
}

//! Access rules, limits and the lists of networks that rules name.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{int, limit, value};
use crate::{
    access::{AccessRules, Action, Limits, PerClient, RuleSubject},
    base::NetworkListName,
    config::{
        findings::Findings,
        model::{Config, Mode, NetworkList},
        raw::{self, Located},
        words::nearest,
    },
};

/// `[network_lists]`.
pub fn lists(file: &raw::File, findings: &mut Findings) -> BTreeMap<NetworkListName, NetworkList> {
    let files = file.network_lists.iter().flat_map(|at| &at.value.0);
    findings.within("network_lists", |findings| {
        files
            .filter_map(|(name, at)| match NetworkListName::new(name) {
                Ok(checked) if !name.contains(char::is_whitespace) => {
                    let path = at.value.0.clone();
                    Some((checked, NetworkList { path }))
                }
                Ok(_) => {
                    findings.within(name, |findings| {
                        let message = "the name of a list must not contain spaces";
                        let help = "rules name it as \"file:NAME\"".to_owned();
                        findings.error(at.key.clone(), message, help);
                    });
                    None
                }
                Err(error) => {
                    findings.within(name, |findings| {
                        let help = "give it a short, printable name".to_owned();
                        findings.error(at.key.clone(), error.to_string(), help);
                    });
                    None
                }
            })
            .collect()
    })
}

/// `access` of a frontend, if it says anything.
pub fn rules(at: Option<&Located<raw::Access>>) -> Option<AccessRules> {
    let raw = &at?.value;
    let rules: Vec<_> = (raw.rules.iter())
        .flat_map(|at| at.value.0.iter().map(|(rule, _)| rule.clone()))
        .collect();
    let default = value(raw.default.as_ref(), Action::Allow, |v| v);
    (default == Action::Deny || !rules.is_empty()).then_some(AccessRules { default, rules })
}

/// `limits` of a frontend.
pub fn limits(at: Option<&Located<raw::Limits>>) -> Limits {
    let Some(raw) = at.map(|at| &at.value) else {
        return Limits::default();
    };
    let per_client = raw.per_client.as_ref().map(|at| PerClient {
        prefix4: int(at.value.prefix4.as_ref(), PerClient::default().prefix4),
        prefix6: int(at.value.prefix6.as_ref(), PerClient::default().prefix6),
        connections: limit(at.value.connections.as_ref()),
        new_per_second: limit(at.value.new_per_second.as_ref()),
        datagrams_per_second: limit(at.value.datagrams_per_second.as_ref()),
        handshakes_per_second: limit(at.value.handshakes_per_second.as_ref()),
    });
    Limits {
        new_per_second: limit(raw.new_per_second.as_ref()),
        per_client: per_client.filter(|per_client| *per_client != PerClient::default()),
    }
}

/// Finds lists that no rule names and rules whose list there is not, and sections that say nothing.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    let known: BTreeSet<&str> = (file.network_lists.iter())
        .flat_map(|at| at.value.0.keys().map(String::as_str))
        .collect();
    if let Some(defaults) = &file.defaults {
        findings.within("defaults", |findings| {
            options(&defaults.value.frontend, None, &known, findings);
        });
    }
    findings.within("frontends", |findings| {
        for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
            findings.within(name, |findings| {
                let mode = config.frontends.get(name.as_str()).map(|frontend| frontend.mode);
                options(&at.value.options, mode, &known, findings);
                sources(at.value.routes.as_ref(), &known, findings);
            });
        }
    });
    unused(file, config, findings);
}

/// The lists that routes name.
fn sources(routes: Option<&Located<raw::Routes>>, known: &BTreeSet<&str>, findings: &mut Findings) {
    for (index, at) in routes.iter().flat_map(|at| &at.value.0).enumerate() {
        findings.within_all(&["routes", &index.to_string(), "source"], |findings| {
            for (subject, span) in at.value.source.iter().flat_map(|at| &at.value.0) {
                exists(subject, span, known, findings);
            }
        });
    }
}

fn options(own: &raw::FrontendOptions, mode: Option<Mode>, known: &BTreeSet<&str>, findings: &mut Findings) {
    if let Some(at) = &own.access {
        findings.within("access", |findings| {
            let rules = at.value.rules.as_ref();
            if rules.is_none_or(|rules| rules.value.0.is_empty()) && findings.is_clean() {
                empty(at, rules.is_some(), findings);
            }
            findings.within("rules", |findings| {
                for (rule, span) in rules.iter().flat_map(|at| &at.value.0) {
                    exists(&rule.clients, span, known, findings);
                }
            });
        });
    }
    let from = own.proxy_protocol.as_ref().and_then(|at| at.value.from.as_ref());
    findings.within_all(&["proxy_protocol", "from"], |findings| {
        for (subject, span) in from.iter().flat_map(|at| &at.value.0) {
            exists(subject, span, known, findings);
        }
    });
    if let Some(at) = &own.limits
        && limits(Some(at)).sets_none()
        && !names_clients(at, mode)
        && findings.is_clean()
    {
        findings.within("limits", |findings| {
            findings.warn(
                at.key.clone(),
                "`limits` sets no limit",
                "set new_per_second, per_client.connections, per_client.new_per_second, \
                 per_client.datagrams_per_second or per_client.handshakes_per_second"
                    .to_owned(),
            );
        });
    }
}

/// Finds a list that there is not.
fn exists(subject: &RuleSubject, span: &Range<usize>, known: &BTreeSet<&str>, findings: &mut Findings) {
    let RuleSubject::List(name) = subject else { return };
    if known.contains(name.as_str()) || !findings.absence_counts() {
        return;
    }
    let help = match nearest(name.as_str(), known.iter().copied()) {
        Some(near) => format!("did you mean \"file:{near}\"?"),
        None => "name its file in a section [network_lists]".to_owned(),
    };
    let message = format!("there is no list of networks \"{name}\"");
    findings.error(span.clone(), message, help);
}

/// Whether it says what a client network is, and that counts: `max_ports_per_client` uses it in mode passthrough.
fn names_clients(limits: &Located<raw::Limits>, mode: Option<Mode>) -> bool {
    let per_client = limits.value.per_client.as_ref().map(|at| &at.value);
    let has_prefix = per_client.is_some_and(|at| at.prefix4.is_some() || at.prefix6.is_some());
    has_prefix && mode.is_none_or(|mode| mode == Mode::Passthrough)
}

/// A section without rules lets everybody in, or nobody.
fn empty(at: &Located<raw::Access>, has_rules: bool, findings: &mut Findings) {
    let denies = value(at.value.default.as_ref(), Action::Allow, |v| v) == Action::Deny;
    let message = match denies {
        true => "`access` has no rules: every client is refused",
        false => "`access` has no rules: every client is allowed",
    };
    let help = match has_rules || denies {
        true => "add rules, such as \"allow 10.0.0.0/8\"",
        false => "add rules = [\"deny 10.0.0.0/8\"], or remove the section",
    };
    findings.warn(at.key.clone(), message, help.to_owned());
}

fn unused(file: &raw::File, config: &Config, findings: &mut Findings) {
    let used: BTreeSet<&str> = (config.frontends.values())
        .flat_map(|frontend| frontend.lists())
        .map(NetworkListName::as_str)
        .collect();
    findings.within("network_lists", |findings| {
        for (name, at) in file.network_lists.iter().flat_map(|at| &at.value.0) {
            if !used.contains(name.as_str()) && findings.is_clean() {
                findings.within(name, |findings| {
                    findings.warn(
                        at.key.clone(),
                        format!("no rule or route uses the list \"{name}\""),
                        format!("name it in a rule, such as \"deny file:{name}\", or remove it"),
                    );
                });
            }
        }
    });
}

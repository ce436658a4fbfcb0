//! `allow` and `deny`, and whom they judge: the client, or the load balancer that connects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{listen::Options, parse::Directive, scope::Scope, time};
use crate::{
    access::Network,
    import::{At, Draft, SectionId, Value, address},
};

/// Most rules, and most networks, that are turned into those that may connect.
const MOST_NETWORKS: usize = 512;

/// Whether nginx knows the client by the load balancer that connects, though a PROXY header names another one.
pub fn knows_peers_only(options: &Options, scope: &Scope<'_>) -> bool {
    options.has_proxy && scope.all("set_real_ip_from").is_empty()
}

/// Writes who may connect, and whose PROXY header is believed.
pub fn write(options: &Options, scope: &Scope<'_>, name: &str, draft: &mut Draft) {
    let rules = Rules::read(scope);
    if !options.has_proxy {
        return rules.write(name, draft);
    }
    let section = draft.section(&["frontends", name, "proxy_protocol"]);
    match knows_peers_only(options, scope) {
        true => rules.write_peers(section, name, draft),
        false => {
            trusted(scope, section, draft);
            rules.write(name, draft);
        }
    }
    if let Some(time) = scope.text("proxy_protocol_timeout", draft).and_then(time::parse) {
        draft.set(section, &["timeout"], Value::duration(time));
    }
}

/// `set_real_ip_from`.
fn trusted(scope: &Scope<'_>, section: SectionId, draft: &mut Draft) {
    let mut networks: Vec<String> = Vec::new();
    for from in scope.all("set_real_ip_from") {
        match address::network(from.arg(0)) {
            Some(network) => {
                networks.push(network);
                draft.translated(from.id);
            }
            None => draft.no_equal(
                from.id,
                At::In(section),
                "networks and addresses are believed only",
            ),
        }
    }
    if networks.is_empty() {
        nobody(section, draft);
    } else {
        draft.set(section, &["from"], networks);
    }
}

/// Believes this host alone.
fn nobody(section: SectionId, draft: &mut Draft) {
    let text = "Only this host may connect until the load balancers in front of it are named here.";
    draft.comment(At::In(section), text);
    draft.set(section, &["from"], vec!["127.0.0.1", "::1"]);
}

/// The rules of a server, of which the first one that fits decides.
struct Rules<'a> {
    /// In their order, without what stands behind `all`.
    rules: Vec<(&'a Directive, Option<String>)>,
    /// Clients that no rule names are turned away.
    denies_others: bool,
}

impl<'a> Rules<'a> {
    fn read(scope: &Scope<'a>) -> Self {
        let mut read = Self {
            rules: Vec::new(),
            denies_others: false,
        };
        for rule in scope.any(&["allow", "deny"]) {
            if rule.arg(0) == "all" {
                read.denies_others = rule.name == "deny";
                break;
            }
            read.rules.push((rule, address::network(rule.arg(0))));
        }
        read
    }

    /// As rules about clients.
    fn write(&self, name: &str, draft: &mut Draft) {
        if self.rules.is_empty() && !self.denies_others {
            return;
        }
        let section = draft.section(&["frontends", name, "access"]);
        if self.denies_others {
            draft.set(section, &["default"], "deny");
        }
        let mut written: Vec<String> = Vec::new();
        for (rule, network) in &self.rules {
            match network {
                Some(network) => {
                    draft.translated(rule.id);
                    written.push(format!("{} {network}", rule.name));
                }
                None => unread(rule, section, draft),
            }
        }
        if !written.is_empty() {
            draft.set(section, &["rules"], written);
        }
    }

    /// As load balancers that may connect. Here `access` judges the client that the header names, and `from` who connects.
    fn write_peers(&self, section: SectionId, name: &str, draft: &mut Draft) {
        for (rule, network) in &self.rules {
            match network {
                Some(_) => draft.differs(
                    rule.id,
                    At::In(section),
                    "without set_real_ip_from it judges who connects, not the client that the PROXY header names: here `from` does \
                     that, and `access` judges the client",
                ),
                None => unread(rule, section, draft),
            }
        }
        match self.allowed() {
            Some(all) if !self.is_about_some() => {
                let text = "nginx takes the header from whoever connects: name the load balancers in front of it alone";
                draft.comment(At::In(section), &format!("listen … proxy_protocol: {text}"));
                draft.set(section, &["from"], networks(&all));
            }
            Some(some) if !some.is_empty() => draft.set(section, &["from"], networks(&some)),
            Some(_) => {
                nobody(section, draft);
                let access = draft.section(&["frontends", name, "access"]);
                draft.set(access, &["default"], "deny");
            }
            None => {
                let text = "allow, deny: these rules stand for more networks than are written out here.";
                draft.comment(At::In(section), text);
                nobody(section, draft);
            }
        }
    }

    fn is_about_some(&self) -> bool {
        self.denies_others || self.rules.iter().any(|(_, network)| network.is_some())
    }

    /// The networks that are let in; `None` if they are too many.
    fn allowed(&self) -> Option<Vec<Network>> {
        let mut left = vec![
            Network::of(Ipv4Addr::UNSPECIFIED.into(), 0),
            Network::of(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        let mut allowed: Vec<Network> = Vec::new();
        if self.rules.len() > MOST_NETWORKS {
            return None;
        }
        for (rule, text) in &self.rules {
            let Some(network) = text.as_deref().and_then(network) else {
                continue;
            };
            if rule.name == "allow" {
                allowed.extend(left.iter().filter_map(|part| common(*part, network)));
            }
            left = left.into_iter().flat_map(|part| without(part, network)).collect();
            if left.len() + allowed.len() > MOST_NETWORKS {
                return None;
            }
        }
        if !self.denies_others {
            allowed.extend(left);
        }
        Some(allowed)
    }
}

fn unread(rule: &Directive, section: SectionId, draft: &mut Draft) {
    draft.no_equal(rule.id, At::In(section), "rules are about networks and addresses");
}

fn networks(networks: &[Network]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

/// An address or a network, as [`address::network`] writes it.
fn network(text: &str) -> Option<Network> {
    let (ip, prefix) = text.split_once('/').unwrap_or((text, "128"));
    Some(Network::of(ip.parse().ok()?, prefix.parse().ok()?))
}

fn is_within(inner: Network, outer: Network) -> bool {
    outer.prefix() <= inner.prefix() && outer.has(inner.first())
}

/// What two networks have in common: the smaller one, if it is part of the other.
fn common(one: Network, other: Network) -> Option<Network> {
    match (is_within(one, other), is_within(other, one)) {
        (true, _) => Some(one),
        (_, true) => Some(other),
        _ => None,
    }
}

/// What is left of a network without another one: at each bit between their prefixes, the half without it.
fn without(whole: Network, part: Network) -> Vec<Network> {
    if is_within(whole, part) {
        return Vec::new();
    }
    if !is_within(part, whole) {
        return vec![whole];
    }
    let other_half = |prefix: u8| {
        let first: IpAddr = match part.first() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ (1 << (32 - prefix))).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ (1 << (128 - prefix))).into(),
        };
        Network::of(first, prefix)
    };
    (whole.prefix() + 1..=part.prefix()).map(other_half).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_a_part_of_it_is_its_other_halves() {
        let net = |text: &str| network(text).expect("a network");
        let left = |whole: &str, part: &str| networks(&without(net(whole), net(part)));
        assert_eq!(
            left("10.0.0.0/30", "10.0.0.1"),
            ["10.0.0.2/31", "10.0.0.0"].map(|text| net(text).to_string())
        );
        assert_eq!(left("10.0.0.0/30", "10.0.0.0/8"), Vec::<String>::new());
        assert_eq!(left("10.0.0.0/30", "::1"), [net("10.0.0.0/30").to_string()]);
        assert_eq!(left("::/0", "8000::/1"), [net("::/1").to_string()]);
        assert_eq!(left("0.0.0.0/0", "1.2.3.4").len(), 32);
    }
}

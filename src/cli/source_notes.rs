//! What `source = "client"` needs of the hosts: Convey installs no routing rule, and says which are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use crate::{
    base::{IpFamily, PortRange, Protocol},
    config::Config,
};

/// The mark of answers, and the routing table for them: those of the kernel's documentation (tproxy.rst) and HAProxy's.
const MARK: u32 = 1;
const TABLE: u32 = 100;

/// Answers of servers that are told by the same rule: protocol, family, ports.
type Answers = (IpFamily, Protocol, PortRange);

/// The commands that keep answers here, once for the whole configuration, and what the servers need.
pub fn notes(config: &Config) -> Option<String> {
    let answers = answers(config);
    if answers.is_empty() {
        return None;
    }
    let names: Vec<_> = config
        .transparent()
        .map(|(frontend, _)| format!("`{}`", frontend.name))
        .collect();
    let mut text = format!(
        "source = \"client\" of frontend {} needs routing that Convey does not install. On this host, after each boot:\n",
        names.join(", ")
    );
    for ((family, protocol, ports), servers) in &answers {
        let program = match family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        let servers: Vec<_> = servers.iter().map(IpAddr::to_string).collect();
        let ports = match ports.first == ports.last {
            true => ports.first.to_string(),
            false => format!("{}:{}", ports.first, ports.last),
        };
        let _ = writeln!(
            text,
            "    {program} -t mangle -A PREROUTING -s {} -p {protocol} --sport {ports} -m socket --transparent -j MARK --set-mark {MARK}",
            servers.join(",")
        );
    }
    let families: BTreeSet<_> = answers.keys().map(|(family, ..)| *family).collect();
    for family in families {
        let ip = match family {
            IpFamily::V4 => "ip",
            IpFamily::V6 => "ip -6",
        };
        let _ = writeln!(text, "    {ip} rule add fwmark {MARK} lookup {TABLE}");
        let _ = writeln!(text, "    {ip} route add local default dev lo table {TABLE}");
    }
    text.push_str(
        "(take another mark and table where these are in use). On each server, routes to the clients must lead through this host, \
         such as `ip route replace default via THIS-HOST`; rp_filter of value 1 is right on both if those routes use the \
         interface that the packets arrive on, else set 2",
    );
    Some(text)
}

fn answers(config: &Config) -> BTreeMap<Answers, BTreeSet<IpAddr>> {
    let mut all: BTreeMap<Answers, BTreeSet<IpAddr>> = BTreeMap::new();
    for (frontend, servers) in config.transparent() {
        for (server, listen) in servers
            .iter()
            .flat_map(|server| frontend.ranges().map(move |range| (server, range)))
        {
            let (ip, first) = (server.0.ip(), server.0.port());
            let more = listen.ports().last - listen.ports().first;
            let ports = PortRange {
                first,
                last: first.saturating_add(more),
            };
            let answers = (IpFamily::of(ip), frontend.protocol, ports);
            all.entry(answers).or_default().insert(ip);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Source, load};

    fn note(text: &str) -> Option<String> {
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        notes(
            &load(&source, Options::default())
                .expect("a valid configuration")
                .config,
        )
    }

    #[test]
    fn the_commands_are_those_of_the_configuration() {
        let text = |source: &str| {
            format!(
                "[frontends.web]\nlisten_addr = [\"0.0.0.0:80\", \"[2001:db8::1]:8000-8009\"]\n{source}\nbackend = \"web\"\n\
                 [backends.web]\nservers.a = {{ addr = \"10.0.0.11:8080\" }}\nservers.b = {{ addr = \"10.0.0.12:8080\" }}\n\
                 servers.c = {{ addr = \"[2001:db8::11]:8080\" }}\n"
            )
        };
        assert_eq!(note(&text("")), None);
        let note = note(&text("source = \"client\"")).expect("a note");
        for line in [
            "    iptables -t mangle -A PREROUTING -s 10.0.0.11,10.0.0.12 -p tcp --sport 8080 -m socket --transparent -j MARK --set-mark 1\n",
            "    ip6tables -t mangle -A PREROUTING -s 2001:db8::11 -p tcp --sport 8080:8089 -m socket --transparent -j MARK --set-mark 1\n",
            "    ip rule add fwmark 1 lookup 100\n    ip route add local default dev lo table 100\n",
            "    ip -6 rule add fwmark 1 lookup 100\n    ip -6 route add local default dev lo table 100\n",
        ] {
            assert!(note.contains(line), "{line} is not in {note}");
        }
        assert!(
            note.starts_with("source = \"client\" of frontend `web` needs"),
            "{note}"
        );
    }
}

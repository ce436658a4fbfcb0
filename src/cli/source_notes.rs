//! What `source = "client"` needs of the hosts: Convey installs no routing rule, and says which are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::{
    access::Network,
    base::{IpFamily, PortRange, Protocol},
    config::{Backend, Config, Frontend},
};

/// The mark of answers, and the routing table for them: those of the kernel's documentation (tproxy.rst) and HAProxy's.
const MARK: u32 = 1;
const TABLE: u32 = 100;

/// What a privileged option gives away, in the manual's words.
const SPOOFING: &str = "A daemon that was taken over could then connect and send datagrams from any source address to any \
    server, hear the answers that these rules bring here, and listen on any address from port 1024; without such a frontend it \
    could not";

/// Answers of servers that are told by the same rule: protocol, family, ports; `None`: from any port.
type Answers = (IpFamily, Protocol, Option<PortRange>);

/// The commands that keep answers here, once for the whole configuration, and what the servers need.
pub fn notes(config: &Config) -> Option<String> {
    let mut answers = BTreeMap::new();
    for (frontend, backends) in config.transparent() {
        for backend in backends {
            of_servers(frontend, backend, &mut answers);
            of_discovered(frontend, backend, &mut answers);
        }
    }
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
    rules(&answers, &mut text);
    text.push_str(
        "(take another mark and table where these are in use). On each server, routes to the clients must lead through this host, \
         such as `ip route replace default via THIS-HOST`; rp_filter of value 1 is right on both if those routes use the \
         interface that the packets arrive on, else set 2. ",
    );
    text.push_str(SPOOFING);
    Some(text)
}

fn rules(answers: &BTreeMap<Answers, BTreeSet<Network>>, text: &mut String) {
    let mark = format!("-m socket --transparent -j MARK --set-mark {MARK}");
    let program = |family| match family {
        IpFamily::V4 => "iptables -t mangle -A PREROUTING",
        IpFamily::V6 => "ip6tables -t mangle -A PREROUTING",
    };
    for ((family, protocol, ports), servers) in answers {
        let servers: Vec<_> = servers.iter().map(Network::to_string).collect();
        let ports = match ports {
            Some(ports) if ports.first == ports.last => format!(" --sport {}", ports.first),
            Some(ports) => format!(" --sport {}:{}", ports.first, ports.last),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "    {} -s {} -p {protocol}{ports} {mark}",
            program(*family),
            servers.join(",")
        );
    }
    let families: BTreeSet<_> = answers.keys().map(|(family, ..)| *family).collect();
    for family in families {
        // what servers, and routers on the way to them, say of what we have sent goes to the client's address, too
        let (icmp, ip) = match family {
            IpFamily::V4 => ("icmp", "ip"),
            IpFamily::V6 => ("icmpv6", "ip -6"),
        };
        let _ = writeln!(text, "    {} -p {icmp} {mark}", program(family));
        let _ = writeln!(text, "    {ip} rule add fwmark {MARK} lookup {TABLE}");
        let _ = writeln!(text, "    {ip} route add local default dev lo table {TABLE}");
    }
}

/// Answers of the servers that the configuration names.
fn of_servers(frontend: &Frontend, backend: &Backend, all: &mut BTreeMap<Answers, BTreeSet<Network>>) {
    let servers = backend.servers.values();
    for server in servers.filter_map(|server| server.addr.on_network()) {
        for listen in frontend.ranges() {
            let (ip, first) = (server.0.ip(), server.0.port());
            let more = listen.ports().last - listen.ports().first;
            let ports = PortRange {
                first,
                last: first.saturating_add(more),
            };
            let answers = (IpFamily::of(ip), frontend.protocol, Some(ports));
            all.entry(answers).or_default().insert(Network::of(ip, u8::MAX));
        }
    }
}

/// Answers of servers that come by themselves: from wherever they may be, and from any port.
fn of_discovered(frontend: &Frontend, backend: &Backend, all: &mut BTreeMap<Answers, BTreeSet<Network>>) {
    let Some(discovery) = &backend.discovery else {
        return;
    };
    let everywhere =
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|ip| Network::of(ip, 0));
    let within = match &discovery.servers_within[..] {
        [] => &everywhere[..],
        within => within,
    };
    let families = frontend.client_families();
    for network in within {
        let family = IpFamily::of(network.first());
        // a client that a PROXY header names may be of either
        if families.contains(&family) || frontend.proxy_protocol.is_some() {
            let answers = (family, frontend.protocol, None);
            all.entry(answers).or_default().insert(*network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::man_config,
        config::{self, Options, Source, load},
    };

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

    #[track_caller]
    fn commands(text: &str) -> Vec<String> {
        let note = note(text).expect("a note");
        let commands = note.lines().filter_map(|line| line.strip_prefix("    "));
        commands.map(ToOwned::to_owned).collect()
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
            "    iptables -t mangle -A PREROUTING -p icmp -m socket --transparent -j MARK --set-mark 1\n",
            "    ip6tables -t mangle -A PREROUTING -p icmpv6 -m socket --transparent -j MARK --set-mark 1\n",
            "    ip rule add fwmark 1 lookup 100\n    ip route add local default dev lo table 100\n",
            "    ip -6 rule add fwmark 1 lookup 100\n    ip -6 route add local default dev lo table 100\n",
        ] {
            assert!(note.contains(line), "{line} is not in {note}");
        }
        assert!(
            note.starts_with("source = \"client\" of frontend `web` needs"),
            "{note}"
        );
        let said = "A daemon that was taken over could then connect and send datagrams from any source address to any server, hear \
                    the answers that these rules bring here, and listen on any address from port 1024; without such a frontend it \
                    could not";
        assert!(note.ends_with(said), "{note}");
        let manual = man_config::page(&config::schema());
        let told = format!("`convey check` prints the commands. {said}.");
        assert!(manual.contains(&man_config::escape(&told)), "{manual}");
    }

    #[test]
    fn servers_that_come_by_themselves_are_told_by_their_networks_beside_those_that_are_named() {
        let text = |listen: &str, backend: &str| {
            format!(
                "[frontends.web]\nprotocol = \"udp\"\nlisten_addr = \"{listen}\"\nsource = \"client\"\nbackend = \"web\"\n\
                 [backends.web]\n{backend}\n"
            )
        };
        let file = "kind = \"file\", path = \"/etc/convey/web.servers\"";
        let within = format!(
            "discovery = {{ {file}, servers_within = [\"10.1.0.0/16\", \"10.2.0.0/16\", \"2001:db8::/32\"] }}"
        );
        let rule = |program: &str, of: &str| {
            format!("{program} -t mangle -A PREROUTING {of} -m socket --transparent -j MARK --set-mark 1")
        };
        let v4 = [
            rule("iptables", "-p icmp"),
            "ip rule add fwmark 1 lookup 100".to_owned(),
            "ip route add local default dev lo table 100".to_owned(),
        ];
        let v6 = [
            rule("ip6tables", "-p icmpv6"),
            "ip -6 rule add fwmark 1 lookup 100".to_owned(),
            "ip -6 route add local default dev lo table 100".to_owned(),
        ];
        let networks = rule("iptables", "-s 10.1.0.0/16,10.2.0.0/16 -p udp");
        // clients of this address are of IPv4 alone
        let alone = commands(&text("192.0.2.1:53", &within));
        assert_eq!(alone, [&[networks.clone()][..], &v4].concat());
        let mixed = format!("servers.a = {{ addr = \"10.0.0.11:53\" }}\n{within}");
        let named = rule("iptables", "-s 10.0.0.11 -p udp --sport 53");
        let six = rule("ip6tables", "-s 2001:db8::/32 -p udp");
        assert_eq!(
            commands(&text("[::]:53", &mixed)),
            [&[networks, named, six][..], &v4, &v6].concat()
        );
        let anywhere = format!("discovery = {{ {file} }}");
        let any = [
            rule("iptables", "-s 0.0.0.0/0 -p udp"),
            rule("ip6tables", "-s ::/0 -p udp"),
        ];
        assert_eq!(
            commands(&text("[::]:53", &anywhere)),
            [&any[..], &v4, &v6].concat()
        );
    }
}

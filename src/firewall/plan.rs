//! From services to rules. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::Rule;
use crate::{
    base::{PortRange, PortRanges, Protocol, merged},
    config::PacketService,
};

/// The rules for these services, sorted, each once: neighbouring ports of one address are one rule.
///
/// A VIP's packets are moved by the engine; the kernel must not see them too, or it would answer a TCP segment with a
/// RST and a UDP datagram with an ICMP error. In passthrough the same holds for what the servers answer to the NAT
/// ports. No rule is broader than the ports of one address and protocol (and the NAT ports).
///
/// Later fragments of a datagram carry no port, so no such rule can match them: they wait in the kernel's reassembly
/// until it gives up. It does so in silence (seen on 6.18; without the rule it sends time exceeded), because the first
/// fragment, dropped here, is what it would quote. Where connection tracking reassembles before table raw, the whole datagram is dropped.
#[must_use]
pub fn plan(services: &[PacketService]) -> Vec<Rule> {
    let mut vips: BTreeMap<(IpAddr, Protocol), Vec<PortRange>> = BTreeMap::new();
    let mut servers: BTreeMap<(IpAddr, Protocol, PortRange), Vec<PortRange>> = BTreeMap::new();
    for service in services {
        let protocol = service.vip.protocol;
        (vips.entry((service.vip.ip(), protocol)).or_default()).push(service.vip.ports());
        for nat in service.nat_ports.iter().flat_map(PortRanges::iter) {
            for server in &service.servers {
                let answers = servers.entry((server.0.ip(), protocol, nat)).or_default();
                answers.push(service.server_ports(*server));
            }
        }
    }
    let to_vips = (vips.into_iter()).flat_map(|((ip, protocol), ports)| {
        (merged(ports).into_iter()).map(move |ports| to_vip(ip, protocol, ports))
    });
    let from_servers = (servers.into_iter()).flat_map(|((ip, protocol, nat), ports)| {
        (merged(ports).into_iter()).map(move |ports| from_server(ip, protocol, ports, nat))
    });
    let rules: BTreeSet<Rule> = to_vips.chain(from_servers).collect();
    rules.into_iter().collect()
}

fn to_vip(vip: IpAddr, protocol: Protocol, ports: PortRange) -> Rule {
    Rule {
        v6: vip.is_ipv6(),
        text: format!(
            "-d {} -p {protocol} -m {protocol} --dport {} -j DROP",
            Host(vip),
            Ports(ports)
        ),
    }
}

fn from_server(server: IpAddr, protocol: Protocol, ports: PortRange, nat: PortRange) -> Rule {
    Rule {
        v6: server.is_ipv6(),
        text: format!(
            "-s {} -p {protocol} -m {protocol} --sport {} --dport {} -j DROP",
            Host(server),
            Ports(ports),
            Ports(nat)
        ),
    }
}

/// One address as `iptables -S` prints it.
struct Host(IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}/32"),
            IpAddr::V6(address) => match in_glibc_style(address) {
                Some(v4) => write!(f, "::{v4}/128"),
                None => write!(f, "{address}/128"),
            },
        }
    }
}

/// The last four bytes, if glibc's inet_ntop (which iptables prints with) shows them as IPv4 where Rust does not: when
/// the six words before are zero and the seventh is not.
fn in_glibc_style(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// A range of ports as `iptables -S` prints it.
struct Ports(PortRange);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { first, last } = self.0;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}:{last}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::EndpointRange;

    const NAT: PortRange = PortRange {
        first: 61_000,
        last: 65_535,
    };

    fn service(
        vip: &str,
        protocol: Protocol,
        nat_ports: Option<PortRange>,
        servers: &[&str],
    ) -> PacketService {
        PacketService {
            vip: EndpointRange {
                listen: vip.parse().unwrap(),
                protocol,
            },
            nat_ports: nat_ports.map(Into::into),
            servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
        }
    }

    /// The plan as text, each rule behind its program.
    fn text(services: &[PacketService]) -> Vec<String> {
        plan(services)
            .into_iter()
            .map(|rule| format!("{} {}", if rule.v6 { "ip6tables" } else { "iptables" }, rule.text))
            .collect()
    }

    #[test]
    fn dsr_keeps_the_kernel_from_the_vip_only() {
        let dsr = service(
            "192.0.2.10:53",
            Protocol::Udp,
            None,
            &["10.0.0.2:53", "10.0.0.3:53"],
        );
        assert_eq!(
            text(&[dsr]),
            ["iptables -d 192.0.2.10/32 -p udp -m udp --dport 53 -j DROP"]
        );
    }

    #[test]
    fn passthrough_also_keeps_it_from_what_the_servers_answer_to_the_nat_ports() {
        let web = service(
            "192.0.2.10:443",
            Protocol::Tcp,
            Some(NAT),
            &["10.0.0.2:8443", "10.0.0.3:8443"],
        );
        assert_eq!(
            text(&[web]),
            [
                "iptables -d 192.0.2.10/32 -p tcp -m tcp --dport 443 -j DROP",
                "iptables -s 10.0.0.2/32 -p tcp -m tcp --sport 8443 --dport 61000:65535 -j DROP",
                "iptables -s 10.0.0.3/32 -p tcp -m tcp --sport 8443 --dport 61000:65535 -j DROP",
            ]
        );
    }

    #[test]
    fn a_range_of_ports_is_one_rule_for_each_address() {
        let rtp = service(
            "192.0.2.10:9000-9010",
            Protocol::Udp,
            Some(NAT),
            &["10.0.0.2:7000"],
        );
        let expected = [
            "iptables -d 192.0.2.10/32 -p udp -m udp --dport 9000:9010 -j DROP",
            "iptables -s 10.0.0.2/32 -p udp -m udp --sport 7000:7010 --dport 61000:65535 -j DROP",
        ];
        assert_eq!(text(std::slice::from_ref(&rtp)), expected);
        // what a reload has left over of a wider one, and what lies beside it
        let wider = service(
            "192.0.2.10:9005-9012",
            Protocol::Udp,
            Some(NAT),
            &["10.0.0.2:7005"],
        );
        let beside = service("192.0.2.10:9013", Protocol::Udp, None, &[]);
        assert_eq!(
            text(&[beside, wider, rtp]),
            [
                "iptables -d 192.0.2.10/32 -p udp -m udp --dport 9000:9013 -j DROP",
                "iptables -s 10.0.0.2/32 -p udp -m udp --sport 7000:7012 --dport 61000:65535 -j DROP",
            ]
        );
    }

    #[test]
    fn ipv6_goes_to_ip6tables() {
        let web = service("[2001:db8::10]:80", Protocol::Tcp, Some(NAT), &["[fd00::2]:8080"]);
        assert_eq!(
            text(&[web]),
            [
                "ip6tables -d 2001:db8::10/128 -p tcp -m tcp --dport 80 -j DROP",
                "ip6tables -s fd00::2/128 -p tcp -m tcp --sport 8080 --dport 61000:65535 -j DROP",
            ]
        );
    }

    #[test]
    fn a_server_of_two_frontends_gets_one_rule_and_the_order_of_the_services_does_not_matter() {
        let servers = ["10.0.0.2:80"];
        let a = service("192.0.2.10:80", Protocol::Tcp, Some(NAT), &servers);
        let b = service("192.0.2.11:80", Protocol::Tcp, Some(NAT), &servers);
        let rules = text(&[b.clone(), a.clone()]);
        assert_eq!(
            rules,
            [
                "iptables -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -j DROP",
                "iptables -d 192.0.2.11/32 -p tcp -m tcp --dport 80 -j DROP",
                "iptables -s 10.0.0.2/32 -p tcp -m tcp --sport 80 --dport 61000:65535 -j DROP",
            ]
        );
        assert_eq!(text(&[a, b]), rules);
    }

    #[test]
    fn one_nat_port_and_odd_ipv6_addresses_are_written_as_iptables_prints_them() {
        let one = PortRange {
            first: 61_000,
            last: 61_000,
        };
        let odd = service(
            "[::5678]:80",
            Protocol::Tcp,
            Some(one),
            &["[::ffff:1.2.3.4]:80", "[::102:304]:80", "[::1:0]:80"],
        );
        assert_eq!(
            text(&[odd]),
            [
                "ip6tables -d ::5678/128 -p tcp -m tcp --dport 80 -j DROP",
                "ip6tables -s ::0.1.0.0/128 -p tcp -m tcp --sport 80 --dport 61000 -j DROP",
                "ip6tables -s ::1.2.3.4/128 -p tcp -m tcp --sport 80 --dport 61000 -j DROP",
                "ip6tables -s ::ffff:1.2.3.4/128 -p tcp -m tcp --sport 80 --dport 61000 -j DROP",
            ]
        );
    }

    #[test]
    fn no_service_no_rule() {
        assert!(plan(&[]).is_empty());
    }
}

//! The kernel as a load balancer, by nftables: the peer that the packet modes are measured against, and a stand-in that
//! proves the tests themselves.

use std::{fmt::Write as _, net::SocketAddr};

use super::{Host, dsr::family};

/// How packets are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Connection tracking: destination and source are rewritten, answers come back through the load balancer.
    Nat,
    /// Without state: the destination alone is rewritten, answers go to the client directly.
    Stateless,
}

/// One address and port with its servers.
#[derive(Debug, Clone)]
pub struct Service {
    /// How its packets are treated.
    pub method: Method,
    /// What clients send to.
    pub vip: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Servers and their weights, of the VIP's family.
    pub servers: Vec<(SocketAddr, u32)>,
}

/// The rules in force on a host; gone when dropped.
pub struct KernelBalancer {
    host: Host,
    nat_ports: String,
}

impl KernelBalancer {
    /// Puts the rules in force. Connections that leave by [`Method::Nat`] use the source ports `nat_ports`.
    #[track_caller]
    pub fn start(host: &Host, nat_ports: &str, services: &[Service]) -> Self {
        host.forward();
        let balancer = Self {
            host: host.clone(),
            nat_ports: nat_ports.to_owned(),
        };
        balancer.change(services);
        balancer
    }

    /// Replaces all rules at once; tracked connections go on.
    #[track_caller]
    pub fn change(&self, services: &[Service]) {
        self.host.nft(&ruleset(&self.nat_ports, services));
    }
}

impl Drop for KernelBalancer {
    fn drop(&mut self) {
        // the namespace may be gone already
        self.host
            .try_run("nft delete table inet balancer; nft delete table netdev balancer");
    }
}

fn ruleset(nat_ports: &str, services: &[Service]) -> String {
    let mut text = String::from(
        "table inet balancer\ndelete table inet balancer\ntable netdev balancer\ndelete table netdev balancer\n",
    );
    let rules = |method: Method| {
        let mut rules = String::new();
        for service in services.iter().filter(|service| service.method == method) {
            let _ = writeln!(rules, "    {}", rule(service));
        }
        rules
    };
    let nat = rules(Method::Nat);
    if !nat.is_empty() {
        let _ = writeln!(
            text,
            "table inet balancer {{
  chain in {{
    type nat hook prerouting priority dstnat; policy accept;
{nat}  }}
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    meta l4proto {{ tcp, udp }} ct status dnat masquerade to :{nat_ports}
  }}
}}"
        );
    }
    let stateless = rules(Method::Stateless);
    if !stateless.is_empty() {
        let _ = writeln!(
            text,
            "table netdev balancer {{
  chain in {{
    type filter hook ingress device \"eth0\" priority 0; policy accept;
{stateless}  }}
}}"
        );
    }
    text
}

fn rule(service: &Service) -> String {
    let Service {
        method,
        vip,
        protocol,
        servers,
    } = service;
    let family = family(vip.ip());
    let matches = format!("{family} daddr {} {protocol} dport {}", vip.ip(), vip.port());
    // each server as often as its weight
    let slots: Vec<SocketAddr> = servers
        .iter()
        .flat_map(|(addr, weight)| (0..*weight).map(|_| *addr))
        .collect();
    let map = |entry: &dyn Fn(&SocketAddr) -> String| {
        let entries: Vec<String> = slots
            .iter()
            .enumerate()
            .map(|(slot, addr)| format!("{slot} : {}", entry(addr)))
            .collect();
        format!("{{ {} }}", entries.join(", "))
    };
    let hash = format!(
        "jhash {family} saddr . {protocol} sport mod {} seed 0x5eed",
        slots.len()
    );
    match (method, &slots[..]) {
        (_, []) => format!("{matches} drop"),
        (Method::Nat, _) => format!(
            "{matches} dnat {family} to {hash} map {}",
            map(&|addr| format!("{} . {}", addr.ip(), addr.port()))
        ),
        (Method::Stateless, [only]) if only.port() == vip.port() => {
            format!("{matches} {family} daddr set {}", only.ip())
        }
        (Method::Stateless, [only]) => {
            format!(
                "{matches} {family} daddr set {} {protocol} dport set {}\n",
                only.ip(),
                only.port()
            )
        }
        // the port is the same for all servers of one service
        (Method::Stateless, _) => {
            let target = slots[0].port();
            let port = if target == vip.port() {
                String::new()
            } else {
                format!(" {protocol} dport set {target}\n")
            };
            format!(
                "{matches} {family} daddr set {hash} map {}{port}",
                map(&|addr| addr.ip().to_string())
            )
        }
    }
}

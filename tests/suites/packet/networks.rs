//! Networks of more than one segment: servers on one of their own, and clients behind routers.

use crate::{
    lab::{Family, Host, PATIENCE, wait_until},
    site::{PASSTHROUGH, Site, vip},
    xdp::OtherEnd,
};

/// A client's address behind routers, by family.
pub const FAR: [&str; 2] = ["10.78.0.2", "fd78::2"];

/// A site whose servers are on a network of their own, behind the load balancer's `eth1`, and one host on each network
/// that is a party to nothing.
pub struct TwoNetworks {
    /// On the clients' network.
    pub outsider: Host,
    /// On the servers' network.
    pub neighbour: Host,
    /// What the load balancer's other veth needs, as [`Site::other_end`].
    _other_end: Option<OtherEnd>,
    /// Last, so that it ends last.
    pub site: Site,
}

impl TwoNetworks {
    /// With so many servers.
    pub fn new(name: &str, servers: usize) -> Self {
        let site = Site::new(name, servers);
        let (outsider, neighbour) = (site.lab.host("outsider"), site.lab.host("neighbour"));
        let switch = site.lab.host("inner");
        switch.run("ip link add br1 type bridge stp_state 0 mcast_snooping 0; ip link set br1 up");
        let inside: Vec<&Host> = site.servers.iter().chain([&neighbour]).collect();
        for host in inside.iter().copied().chain([&site.lb]) {
            let port = format!("q{}", host.index());
            site.lab.cable((host, "eth1"), (&switch, &port));
            switch.run(&format!("ip link set {port} master br1"));
            wait_until("the inner switch forwards", PATIENCE, || {
                switch
                    .run(&format!("ip -d link show {port}"))
                    .contains("state forwarding")
            });
        }
        let lb = &site.lb;
        let other_end = site.other_end_at(&switch, &format!("q{}", lb.index()));
        lb.add_address("eth1", &format!("{}/128", lb.ip6()));
        for host in inside {
            let (ip4, ip6) = (host.ip4(), host.ip6());
            host.run(&format!(
                "ip addr flush dev eth0 scope global; ip link set eth0 down
                 ip addr add {ip4}/32 dev eth1; ip addr add {ip6}/128 dev eth1 nodad
                 ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
                lb.ip4(),
                lb.ip6()
            ));
            lb.run(&format!(
                "ip route add {ip4}/32 dev eth1; ip -6 route add {ip6}/128 dev eth1"
            ));
        }
        // where a host that wants to reach the VIPs from inside sends to
        for way in PASSTHROUGH {
            let command = match way.1 {
                Family::V4 => format!("ip route add {} via {} dev eth1 onlink", vip(way), lb.ip4()),
                Family::V6 => format!("ip -6 route add {} via {} dev eth1 onlink", vip(way), lb.ip6()),
            };
            neighbour.run(&command);
        }
        Self {
            outsider,
            neighbour,
            _other_end: other_end,
            site,
        }
    }
}

/// A site with a client behind routers, each of which can lead to it.
pub struct Behind {
    /// The client, which has the addresses [`FAR`].
    pub far: Host,
    /// Its gateways.
    pub routers: Vec<Host>,
    /// Last, so that it ends last.
    pub site: Site,
}

impl Behind {
    /// With one server; the client's way is by the first router.
    pub fn new(name: &str, routers: usize) -> Self {
        Self::with_servers(name, routers, 1)
    }

    /// With so many servers.
    pub fn with_servers(name: &str, routers: usize, servers: usize) -> Self {
        let site = Site::new(name, servers);
        let far = site.lab.host("far");
        far.run(&format!(
            "ip addr flush dev eth0 scope global; ip link set eth0 down
             ip addr add {}/32 dev lo; ip addr add {}/128 dev lo nodad",
            FAR[0], FAR[1]
        ));
        let routers = (0..routers)
            .map(|number| {
                let router = site.lab.host(&format!("router{number}"));
                let uplink = format!("up{number}");
                site.lab.cable((&router, "eth1"), (&far, &uplink));
                router.add_address("eth1", &format!("10.79.{number}.1/24"));
                far.add_address(&uplink, &format!("10.79.{number}.2/24"));
                router.forward();
                router.run(&format!(
                    "ip route add {} via 10.79.{number}.2; ip -6 route add {} via fe80::{:x} dev eth1",
                    FAR[0],
                    FAR[1],
                    far.index()
                ));
                router
            })
            .collect();
        let behind = Self { far, routers, site };
        behind.lead_by(0);
        behind
    }

    /// Has what a host sends to the client go by the first router.
    pub fn lead_back(&self, host: &Host) {
        lead_by(host, &self.routers[0]);
    }

    /// Has both directions go by this router.
    pub fn lead_by(&self, number: usize) {
        let router = &self.routers[number];
        self.far.run(&format!(
            "ip route replace default via 10.79.{number}.1 src {}
             ip -6 route replace default via fe80::{:x} dev up{number} src {}",
            FAR[0],
            router.index(),
            FAR[1]
        ));
        lead_by(&self.site.lb, router);
    }
}

/// Has what a host sends to the client go by this router.
fn lead_by(host: &Host, router: &Host) {
    host.run(&format!(
        "ip route replace {} via {}; ip -6 route replace {} via {}",
        FAR[0],
        router.ip4(),
        FAR[1],
        router.ip6()
    ));
}

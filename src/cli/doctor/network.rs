//! Interfaces: offloads, MTU, rp_filter.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use super::{
    finding::{Area, Diagnosis},
    host::netstat,
};
use crate::{
    base::Endpoint,
    config::{Config, Mode},
    sys::{interfaces, link_settings},
};

/// An interface as far as it matters.
#[derive(Debug, Clone, Default)]
struct Link {
    addresses: Vec<IpAddr>,
    mtu: Option<u32>,
    has_lro: bool,
    /// net.ipv4.conf.NAME.rp_filter.
    rp_filter: u8,
}

/// The host's network.
#[derive(Debug, Clone, Default)]
struct Links {
    /// All but loopback.
    by_name: BTreeMap<String, Link>,
    /// net.ipv4.conf.all.rp_filter.
    all_rp_filter: u8,
    /// Packets that rp_filter has dropped since the host started.
    dropped: u64,
}

/// The next hop of a server of the packet modes, as the running convey knows it.
#[derive(Debug, Clone)]
pub struct Hop {
    /// The server.
    pub server: IpAddr,
    /// The interface by which it is reached.
    pub interface: Option<String>,
    /// Largest packet that it takes, in bytes.
    pub mtu: u32,
}

/// Looks at the interfaces.
pub fn look(config: Option<&Config>, hops: &[Hop], found: &mut Diagnosis) {
    let listed = match interfaces::list() {
        Ok(listed) => listed,
        Err(error) => {
            return found.unseen(
                Area::Network,
                format!("the kernel does not list interfaces: {error}"),
            );
        }
    };
    let filter = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let others = listed.into_iter().filter(|(_, interface)| !interface.is_loopback);
    let links = Links {
        by_name: others
            .map(|(name, interface)| {
                let link = Link {
                    addresses: interface.addresses,
                    mtu: link_settings::mtu(&name).ok(),
                    // one of a kind that has no such settings merges nothing
                    has_lro: link_settings::has_lro(&name).unwrap_or(false),
                    rp_filter: filter(&name),
                };
                (name, link)
            })
            .collect(),
        all_rp_filter: filter("all"),
        dropped: fs::read_to_string("/proc/net/netstat")
            .ok()
            .and_then(|table| netstat(&table, "IPReversePathFilter"))
            .unwrap_or(0),
    };
    judge(&links, config, hops, found);
}

fn judge(links: &Links, config: Option<&Config>, hops: &[Hop], found: &mut Diagnosis) {
    let Some(config) = config else { return };
    let has_packet_modes = config
        .frontends
        .values()
        .any(|frontend| frontend.mode.is_packet());
    if has_packet_modes {
        for (name, _) in links.by_name.iter().filter(|(_, link)| link.has_lro) {
            found.error(
                Area::Network,
                format!("{name} merges received packets in the device (LRO): the packet modes cannot forward what is merged so"),
                format!("ethtool -K {name} lro off, at every boot (GRO may stay on)"),
            );
        }
        mtu(links, config, hops, found);
    }
    if config
        .frontends
        .values()
        .any(|frontend| frontend.mode == Mode::Proxy)
    {
        reverse_path(links, found);
    }
}

/// Servers that are reached by smaller packets than clients send.
fn mtu(links: &Links, config: &Config, hops: &[Hop], found: &mut Diagnosis) {
    let vips: BTreeSet<IpAddr> = (config.frontends.values())
        .filter(|frontend| frontend.mode.is_packet())
        .flat_map(|frontend| frontend.endpoints().map(Endpoint::ip))
        .collect();
    let facing = links
        .by_name
        .iter()
        .filter(|(_, link)| link.addresses.iter().any(|ip| vips.contains(ip)));
    let Some((name, most)) = facing
        .filter_map(|(name, link)| Some((name, link.mtu?)))
        .max_by_key(|(_, mtu)| *mtu)
    else {
        return;
    };
    let mut smaller: BTreeMap<(u32, &str), Vec<String>> = BTreeMap::new();
    for hop in hops.iter().filter(|hop| hop.mtu > 0 && hop.mtu < most) {
        let interface = hop.interface.as_deref().unwrap_or("?");
        smaller
            .entry((hop.mtu, interface))
            .or_default()
            .push(hop.server.to_string());
    }
    for ((mtu, interface), servers) in smaller {
        let named: Vec<&str> = servers.iter().take(3).map(String::as_str).collect();
        let more = if servers.len() > 3 { ", …" } else { "" };
        found.warning(
            Area::Network,
            format!(
                "clients send packets of up to {most} bytes ({name}), and {}{more} take {mtu} ({interface}): larger ones are answered with \
                 ICMP, which firewalls must let through to the clients",
                named.join(", ")
            ),
            format!("give {interface} and the servers an MTU of {most}, or lower that of {name}"),
        );
    }
}

/// A host with several interfaces whose kernel takes packets only from where the way back leads.
fn reverse_path(links: &Links, found: &mut Diagnosis) {
    let with_ipv4 = links
        .by_name
        .iter()
        .filter(|(_, link)| link.addresses.iter().any(IpAddr::is_ipv4));
    let with_ipv4: Vec<_> = with_ipv4.collect();
    // the larger of the two counts (ip-sysctl of the kernel)
    let strict: Vec<&str> = (with_ipv4.iter())
        .filter(|(_, link)| link.rp_filter.max(links.all_rp_filter) == 1)
        .map(|(name, _)| name.as_str())
        .collect();
    let Some(first) = strict.first().filter(|_| with_ipv4.len() > 1) else {
        return;
    };
    let message = format!(
        "rp_filter is strict (1) on {}: packets of clients are dropped whose way back leads through another interface",
        strict.join(", ")
    );
    let remedy =
        format!("if that is meant to work, write net.ipv4.conf.{first}.rp_filter = 2 to /etc/sysctl.d/");
    match links.dropped {
        0 => found.note(Area::Network, message, remedy),
        dropped => found.warning(
            Area::Network,
            format!("{message}; {dropped} packet(s) were since the host started"),
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::finding::Level,
        config::{self, Options, Source},
    };

    fn config(mode: &str) -> Config {
        let text = format!(
            "[frontends.web]\nlisten_addr = '192.0.2.1:80'\nmode = '{mode}'\nbackend = 'web'\n\
             [backends.web]\nservers.a = {{ addr = '10.0.0.1:80' }}\n"
        );
        let source = Source {
            name: "c.toml".into(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).expect("valid").config
    }

    fn two() -> Links {
        let link = |address: &str| Link {
            addresses: vec![address.parse().expect("an address")],
            mtu: Some(1_500),
            ..Link::default()
        };
        Links {
            by_name: [
                ("eth0".into(), link("192.0.2.1")),
                ("eth1".into(), link("10.0.0.9")),
            ]
            .into(),
            ..Links::default()
        }
    }

    fn levels(links: &Links, mode: &str, hops: &[Hop]) -> Vec<Level> {
        let mut found = Diagnosis::default();
        judge(links, Some(&config(mode)), hops, &mut found);
        found.findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn merging_in_the_device_breaks_the_packet_modes_alone() {
        let mut links = two();
        links.by_name.get_mut("eth1").expect("it").has_lro = true;
        assert_eq!(levels(&links, "passthrough", &[]), [Level::Error]);
        assert_eq!(levels(&links, "proxy", &[]), []);
    }

    #[test]
    fn a_server_that_takes_smaller_packets_than_clients_send_is_a_warning() {
        let hop = |mtu| Hop {
            server: "10.0.0.1".parse().expect("an address"),
            interface: Some("eth1".into()),
            mtu,
        };
        assert_eq!(levels(&two(), "dsr", &[hop(1_400)]), [Level::Warning]);
        assert_eq!(levels(&two(), "dsr", &[hop(1_500), hop(9_000)]), []);
        assert_eq!(levels(&two(), "proxy", &[hop(1_400)]), []);
    }

    #[test]
    fn a_strict_filter_matters_with_two_ways_and_more_when_it_has_dropped_packets() {
        let mut links = two();
        assert_eq!(levels(&links, "proxy", &[]), []);
        links.all_rp_filter = 1;
        assert_eq!(levels(&links, "proxy", &[]), [Level::Note]);
        links.dropped = 3;
        assert_eq!(levels(&links, "proxy", &[]), [Level::Warning]);
        for link in links.by_name.values_mut() {
            link.rp_filter = 2;
        }
        assert_eq!(levels(&links, "proxy", &[]), [], "loose is the larger number");
        links.by_name.pop_last();
        links.by_name.values_mut().for_each(|link| link.rp_filter = 0);
        assert_eq!(levels(&links, "proxy", &[]), [], "there is no other way");
    }
}

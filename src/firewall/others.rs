//! What other programs' rules mean for our source ports. Reads only, and only tables that are there: listing another one of
//! iptables-legacy would make it.

use std::{fs, process::Command};

use super::program::{Program, program, text_of};

/// Prints all tables that nftables has, those of iptables-nft included; none of them is made.
const OF_NFT: [Program; 2] = [program!("iptables-nft-save"), program!("ip6tables-nft-save")];
/// Prints the tables of iptables-legacy.
const OF_LEGACY: [(&str, Program); 2] = [
    ("/proc/net/ip_tables_names", program!("iptables-legacy-save")),
    ("/proc/net/ip6_tables_names", program!("ip6tables-legacy-save")),
];

/// Whether kube-proxy is at work here, by its chains or its table: node ports are its own then. Rules that cannot be seen,
/// without the right to or without the program, are not there: needs CAP_NET_ADMIN, for iptables-legacy root.
#[must_use]
pub fn has_kube_proxy() -> bool {
    let nftables = std::iter::once_with(|| listing(program!("nft"), &["list", "tables"]));
    of_iptables()
        .chain(nftables)
        .any(|listing| tells_of_kube_proxy(&listing))
}

/// Whether a masquerade of this host takes its source ports from all there are, those that are no ephemeral ones included; as
/// far as [`has_kube_proxy`] sees.
#[must_use]
pub fn masquerades_with_any_port() -> bool {
    let nftables = std::iter::once_with(|| listing(program!("nft"), &["list", "ruleset"]));
    of_iptables()
        .chain(nftables)
        .any(|listing| listing.lines().any(takes_any_port))
}

/// One listing after the other, as they are asked for.
fn of_iptables() -> impl Iterator<Item = String> {
    let of_legacy = OF_LEGACY.into_iter().filter_map(|(names, program)| {
        let names = fs::read_to_string(names).unwrap_or_default();
        let has_nat = names.lines().any(|name| name == "nat");
        has_nat.then(|| listing(program, &["-t", "nat"]))
    });
    let of_nft = OF_NFT.into_iter().map(|program| listing(program, &[]));
    of_nft.chain(of_legacy)
}

fn listing(program: Program, arguments: &[&str]) -> String {
    let run = || {
        let output = Command::new(program.find().ok()?).args(arguments).output();
        text_of(&output.ok()?).ok()
    };
    run().unwrap_or_default()
}

/// By a chain of iptables, or the table that its mode nftables has of its own.
fn tells_of_kube_proxy(listing: &str) -> bool {
    let is_table = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("table") && words.nth(1) == Some("kube-proxy")
    };
    (listing.lines()).any(|line| line.starts_with(":KUBE-") || is_table(line))
}

/// A masquerade with `--random-fully` (iptables) or `fully-random` (nft) looks for a port from 1024 up and does not heed
/// `ip_local_port_range` (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c).
fn takes_any_port(line: &str) -> bool {
    let has = |wanted: &str| line.split_whitespace().any(|word| word == wanted);
    (has("MASQUERADE") && has("--random-fully")) || (has("masquerade") && line.contains("fully-random"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxy_is_known_by_its_chains_or_its_table() {
        let iptables = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n";
        assert!(tells_of_kube_proxy(iptables));
        assert!(tells_of_kube_proxy("table ip kube-proxy\n"));
        assert!(tells_of_kube_proxy("table ip nat\ntable ip6 kube-proxy\n"));
        for other in [
            "",
            "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m comment --comment \":KUBE-SERVICES\" -j DOCKER\n",
            "table ip nat {\n\tchain kube-proxy {\n",
        ] {
            assert!(!tells_of_kube_proxy(other), "{other}");
        }
    }

    #[test]
    fn a_masquerade_is_told_from_one_that_takes_any_port() {
        for (rule, is_found) in [
            ("-A POSTROUTING -o eth0 -j MASQUERADE --random-fully", true),
            ("-A POSTROUTING -o eth0 -j MASQUERADE", false),
            ("-A POSTROUTING -o eth0 -j MASQUERADE --random", false),
            (
                "-A POSTROUTING -j SNAT --to-source 192.0.2.1 --random-fully",
                false,
            ),
            ("\t\toifname \"eth0\" masquerade fully-random", true),
            ("\t\toifname \"eth0\" masquerade random,persistent", false),
            ("\t\toifname \"eth0\" masquerade fully-random,persistent", true),
        ] {
            assert_eq!(takes_any_port(rule), is_found, "{rule}");
        }
    }
}

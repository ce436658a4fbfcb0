//! What other programs' rules mean for our source ports. Reads only, and only tables that are there: listing another one of
//! iptables-legacy would make it.

use std::{fs, process::Command};

use super::program::{Program, program, text_of};

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OthersRules {
    /// kube-proxy's chains or table: node ports are its own.
    pub has_kube_proxy: bool,
    /// A masquerade takes its source ports from all there are, those that are no ephemeral ones included.
    pub masquerades_with_any_port: bool,
}

/// Prints all tables that nftables has, those of iptables-nft included; none of them is made.
const OF_NFT: [Program; 2] = [program!("iptables-nft-save"), program!("ip6tables-nft-save")];
/// Prints the tables of iptables-legacy.
const OF_LEGACY: [(&str, Program); 2] = [
    ("/proc/net/ip_tables_names", program!("iptables-legacy-save")),
    ("/proc/net/ip6_tables_names", program!("ip6tables-legacy-save")),
];

impl OthersRules {
    /// Looks; what cannot be seen (without the right to, or without the program) is not there. Needs CAP_NET_ADMIN, for
    /// iptables-legacy root.
    #[must_use]
    pub fn look() -> Self {
        let mut found = Self::default();
        for program in OF_NFT {
            found.add(&listing(program, &[]));
        }
        for (names, program) in OF_LEGACY {
            let names = fs::read_to_string(names).unwrap_or_default();
            if names.lines().any(|name| name == "nat") {
                found.add(&listing(program, &["-t", "nat"]));
            }
        }
        found.add(&listing(program!("nft"), &["list", "ruleset"]));
        found
    }

    fn add(&mut self, listing: &str) {
        for line in listing.lines().map(str::trim) {
            self.has_kube_proxy |= line.starts_with(":KUBE-") || is_table_of_kube_proxy(line);
            self.masquerades_with_any_port |= takes_any_port(line);
        }
    }
}

fn listing(program: Program, arguments: &[&str]) -> String {
    let run = || {
        let output = Command::new(program.find().ok()?).args(arguments).output();
        text_of(&output.ok()?).ok()
    };
    run().unwrap_or_default()
}

/// kube-proxy's mode nftables has tables of its own.
fn is_table_of_kube_proxy(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("table") && words.nth(1) == Some("kube-proxy")
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

    fn found(listing: &str) -> (bool, bool) {
        let mut found = OthersRules::default();
        found.add(listing);
        (found.has_kube_proxy, found.masquerades_with_any_port)
    }

    #[test]
    fn kube_proxy_is_known_by_its_chains_or_its_table() {
        let iptables = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n";
        assert_eq!(found(iptables), (true, false));
        assert_eq!(found("table ip kube-proxy {\n}\n"), (true, false));
        assert_eq!(found("table ip6 kube-proxy { # handle 3\n"), (true, false));
        for other in [
            "",
            "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m comment --comment \":KUBE-SERVICES\" -j DOCKER\n",
            "table ip nat {\n\tchain kube-proxy {\n",
        ] {
            assert_eq!(found(other), (false, false), "{other}");
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
            assert_eq!(found(rule), (false, is_found), "{rule}");
        }
    }
}

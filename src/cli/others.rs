//! What `convey check` says of other programs of this host that take source ports without regard to its ephemeral ones.

use std::collections::BTreeSet;

use crate::{
    base::Protocol,
    config::{Config, Mode},
    firewall::masquerades_with_any_port,
    sys::process,
};

/// Resolvers that choose the source ports of their questions themselves, from nearly all there are, by their names in
/// /proc/PID/comm (unbound's `outgoing-port-permit`, dnsmasq's `min-port`, pdns-recursor's `udp-source-port-min`).
const RESOLVERS: [&str; 3] = ["unbound", "dnsmasq", "pdns_recursor"];
const DNS_PORT: u16 = 53;

/// Notes about what runs and applies here. Looks only if that matters for this configuration.
pub fn notes(config: &Config) -> Vec<String> {
    if !shares_an_address(config) {
        return Vec::new();
    }
    let running = process::names_in_this_network();
    judge(config, masquerades_with_any_port(), &running)
}

/// Whether passthrough flows may have an address that this host's own connections have, too.
fn shares_an_address(config: &Config) -> bool {
    let has_passthrough = config.frontends.values().any(|f| f.mode == Mode::Passthrough);
    has_passthrough && config.packet.nat_addresses.is_empty()
}

fn judge(config: &Config, masquerades_with_any_port: bool, running: &BTreeSet<String>) -> Vec<String> {
    const REMEDY: &str =
        "give the load balancer an address for passthrough flows alone: nat_address = \"…\" in [packet]";
    let mut notes = Vec::new();
    if masquerades_with_any_port {
        notes.push(format!(
            "a rule of this host masquerades with --random-fully, which takes NAT ports too: where such a connection goes to a \
             server of a passthrough frontend, its answers can be lost; {REMEDY}"
        ));
    }
    let resolver = RESOLVERS.into_iter().find(|name| running.contains(*name));
    if let (Some(name), Some(server)) = (resolver, dns_server(config)) {
        notes.push(format!(
            "{name} runs on this host and takes NAT ports too: where it asks {server}, a server of a passthrough frontend, its \
             answers can be lost; {REMEDY}"
        ));
    }
    notes
}

/// A server that passthrough takes DNS to.
fn dns_server(config: &Config) -> Option<String> {
    let frontends = config.frontends.values();
    frontends
        .filter(|f| f.mode == Mode::Passthrough && f.protocol == Protocol::Udp)
        .filter_map(|frontend| config.backends.get(&frontend.backend))
        .flat_map(|backend| backend.servers.values())
        .filter_map(|server| server.addr.on_network())
        .find(|addr| addr.0.port() == DNS_PORT)
        .map(|addr| addr.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn config(mode: &str, protocol: &str, port: u16, packet: &str) -> Config {
        let text = format!(
            "[packet]\n{packet}\n[frontends.a]\nlisten_addr = \"192.0.2.1:{port}\"\nmode = \"{mode}\"\n\
             protocol = \"{protocol}\"\nbackend = \"b\"\n[backends.b]\nservers.s = {{ addr = \"10.0.0.1:{port}\" }}\n"
        );
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into_bytes(),
        };
        let loaded = config::load(&source, Options::default());
        loaded.expect("a valid configuration").config
    }

    #[test]
    fn a_resolver_beside_a_balanced_dns_server_is_named() {
        let unbound = BTreeSet::from(["unbound".to_owned()]);
        let notes = judge(&config("passthrough", "udp", 53, ""), false, &unbound);
        let [note] = notes.as_slice() else {
            panic!("{notes:?}")
        };
        assert!(
            note.contains("unbound runs") && note.contains("10.0.0.1:53") && note.contains("nat_address"),
            "{note}"
        );
        for (config, running) in [
            (config("passthrough", "udp", 53, ""), "systemd-resolve"),
            (config("passthrough", "udp", 54, ""), "unbound"),
            (config("passthrough", "tcp", 53, ""), "unbound"),
            (config("dsr", "udp", 53, ""), "unbound"),
        ] {
            let running = BTreeSet::from([running.to_owned()]);
            let notes = judge(&config, false, &running);
            assert!(notes.is_empty(), "{notes:?}");
        }
    }

    #[test]
    fn a_masquerade_that_takes_any_port_is_named() {
        let notes = judge(&config("passthrough", "tcp", 80, ""), true, &BTreeSet::new());
        assert!(
            notes.len() == 1 && notes[0].contains("--random-fully"),
            "{notes:?}"
        );
    }

    #[test]
    fn who_has_an_address_for_its_flows_alone_hears_nothing() {
        let own = "nat_address = \"192.0.2.9\"";
        assert!(!shares_an_address(&config("passthrough", "udp", 53, own)));
        assert!(!shares_an_address(&config("dsr", "udp", 53, "")));
        assert!(shares_an_address(&config("passthrough", "udp", 53, "")));
    }
}

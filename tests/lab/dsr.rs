//! What a DSR server needs: its answers leave with the VIP as their source. nftables does it at the egress hook.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::Host;

/// One service of a server: what it sends from `own` must look sent from `vip`.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite {
    /// The server's own address and port.
    pub own: SocketAddr,
    /// The address and port that clients know.
    pub vip: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
}

/// Has the answers of a server to everybody but `except` (the load balancer itself: health checks, passthrough) leave
/// through `interface` as [`Rewrite`]s say. Replaces what an earlier call said for the same interface.
#[track_caller]
pub fn install(host: &Host, interface: &str, rewrites: &[Rewrite], except: &[IpAddr]) {
    host.nft(&ruleset(interface, rewrites, except));
}

/// A later fragment has no ports: the mark, which fragments inherit, says whose it is.
fn ruleset(interface: &str, rewrites: &[Rewrite], except: &[IpAddr]) -> String {
    let mut spare = String::new();
    for ip in except {
        let _ = writeln!(spare, "    {} daddr {ip} accept", family(*ip));
    }
    let (mut marks, mut rules) = (String::new(), String::new());
    for (index, Rewrite { own, vip, protocol }) in rewrites.iter().enumerate() {
        let (family, mark) = (family(own.ip()), 0xc0_0000 + index);
        let source = format!("{family} saddr {} {protocol} sport {}", own.ip(), own.port());
        let later = match own {
            SocketAddr::V4(_) => "ip frag-off & 0x1fff != 0",
            SocketAddr::V6(_) => "frag frag-off != 0",
        };
        if *protocol == "udp" {
            let _ = writeln!(marks, "    {source} meta mark set {mark}");
            let _ = writeln!(
                rules,
                "    meta mark {mark} {later} {family} saddr set {} accept",
                vip.ip()
            );
        }
        // nft 1.0.6 wants a line end after `set PORT`
        let _ = writeln!(
            rules,
            "    {source} {family} saddr set {} {protocol} sport set {}\n",
            vip.ip(),
            vip.port()
        );
    }
    format!(
        "table inet dsr_{interface}
delete table inet dsr_{interface}
table netdev dsr_{interface}
delete table netdev dsr_{interface}
table inet dsr_{interface} {{
  chain marks {{
    type filter hook output priority 0; policy accept;
{spare}{marks}  }}
}}
table netdev dsr_{interface} {{
  chain out {{
    type filter hook egress device \"{interface}\" priority 0; policy accept;
{spare}{rules}  }}
}}
"
    )
}

/// How nftables calls the family of an address.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

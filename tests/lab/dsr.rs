//! What a DSR server needs: its answers leave with the VIP as their source. The product's own script sets it up.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::Host;

/// The script under test.
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/backend/convey-backend-setup"
);

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
/// as [`Rewrite`]s say. Replaces what an earlier call said.
#[track_caller]
pub fn install(host: &Host, rewrites: &[Rewrite], except: &[IpAddr]) {
    install_by("nft", host, rewrites, except);
}

/// The same by a method of the script's.
#[track_caller]
pub fn install_by(method: &str, host: &Host, rewrites: &[Rewrite], except: &[IpAddr]) {
    let (conf, state) = (host.path("backend-conf"), host.path("backend-state"));
    let mut command = format!(
        "CONVEY_BACKEND_CONF={} CONVEY_BACKEND_STATE={} {SCRIPT} apply lab --method {method}",
        conf.display(),
        state.display()
    );
    for Rewrite { own, vip, protocol } in rewrites {
        let (vip_ip, vip_port) = (vip.ip(), vip.port());
        let _ = write!(
            command,
            " --rule {protocol},{vip_ip},{vip_port},{},{}",
            own.ip(),
            own.port()
        );
    }
    for lb in except {
        let _ = write!(command, " --lb {lb}");
    }
    host.run(&command);
}

/// How nftables calls the family of an address.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

//! The host of a scenario: a network namespace with rules of other people, seen through the real programs.

use std::{fs, net::UdpSocket, os::unix::fs::chown, path::Path, process::Command};

use caps::{CapSet, Capability};
use convey::{
    base::{EndpointRange, PortRange, Protocol},
    config::PacketService,
    firewall::{Firewall, Variant, record_path},
    sys::{ids, process},
};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::Setting;

/// The user and group `nobody` of Debian.
const NOBODY: u32 = 65_534;
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The address that services are on.
pub const VIP: &str = "192.0.2.10";

/// How the programs of a variant end.
pub fn suffix(variant: Variant) -> &'static str {
    match variant {
        Variant::Legacy => "legacy",
        Variant::Nft | Variant::Default => "nft",
    }
}

/// This process in its namespace.
pub struct Host {
    pub setting: Setting,
    directory: TempDir,
}

impl Host {
    /// A namespace with a VIP on `lo` and other people's rules; from now on this process is the user of the setting.
    pub fn new(setting: Setting) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        command("mount --make-rprivate /");
        command("ip link set lo up");
        command(&format!("ip address add {VIP}/32 dev lo"));
        let host = Self {
            setting,
            directory: tempfile::tempdir().unwrap(),
        };
        for program in ["iptables", "ip6tables"] {
            host.foreign_rules(program);
        }
        if setting.nobody {
            chown(host.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            become_nobody();
        }
        host
    }

    /// Rules before, after and beside ours, some of them easily mistaken for ours.
    fn foreign_rules(&self, program: &str) {
        for rule in [
            "-N CONVEYOR",
            "-A CONVEYOR -p tcp -m tcp --dport 80 -j DROP",
            "-A PREROUTING -p tcp -m tcp --dport 4444 -m comment --comment \"-A CONVEY -j DROP\" -j ACCEPT",
            "-A PREROUTING -p udp -m udp --dport 4444 -j CONVEYOR",
            "-A OUTPUT -p tcp -m tcp --dport 61000:65535 -j ACCEPT",
        ] {
            self.iptables(program, rule);
        }
    }

    /// The firewall under test, as a new process would make it.
    pub fn firewall(&self) -> Firewall {
        Firewall::with_variant(record_path(Some(&self.socket())), self.setting.variant)
    }

    /// Where a daemon's control socket would be.
    pub fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("admin.sock")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a command of a family's program on table raw.
    pub fn iptables(&self, program: &str, arguments: &str) -> String {
        command(&format!(
            "{program}-{} -t raw {arguments}",
            suffix(self.setting.variant)
        ))
    }

    /// Table raw of both families as the save programs print it, without their remarks (which hold the time) and
    /// without the counters of the built-in chains.
    pub fn saved(&self) -> String {
        let suffix = suffix(self.setting.variant);
        let tables =
            ["iptables", "ip6tables"].map(|program| command(&format!("{program}-{suffix}-save -t raw")));
        let lines = tables.iter().flat_map(|table| table.lines());
        lines
            .filter(|line| !line.starts_with('#'))
            .map(|line| match line.strip_prefix(':') {
                Some(chain) => format!(":{}\n", chain.split(" [").next().unwrap()),
                None => format!("{line}\n"),
            })
            .collect()
    }

    /// How often a rule of the chain has matched: rules that were written anew have forgotten it.
    pub fn matches(&self, rule: &str) -> u64 {
        let listing = self.iptables("iptables", "-S CONVEY -v");
        // -A CONVEY MATCHES -c PACKETS BYTES -j DROP
        let matches = rule.strip_suffix(" -j DROP").unwrap();
        let line = listing.lines().find(|line| line.contains(matches)).unwrap();
        let counted = line.split(" -c ").nth(1).unwrap();
        counted.split(' ').next().unwrap().parse().unwrap()
    }
}

/// Runs a command line, which must succeed.
pub fn command(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The ports that are reserved now.
pub fn reserved() -> String {
    fs::read_to_string(RESERVED).unwrap().trim().to_owned()
}

/// Reserves ports as an administrator does.
pub fn reserve(list: &str) {
    fs::write(RESERVED, format!("{list}\n")).unwrap();
}

/// Sends one datagram to the VIP.
pub fn send_to_vip(port: u16) {
    UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .send_to(b"x", (VIP, port))
        .unwrap();
}

pub const fn nat(first: u16, last: u16) -> Option<PortRange> {
    Some(PortRange { first, last })
}

/// A service of one VIP address.
pub fn service(
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
        servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
    }
}

/// As a systemd unit with `User=nobody` and AmbientCapabilities= starts.
fn become_nobody() {
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
    process::set_keep_capabilities(true).unwrap();
    ids::set_groups(&[]).unwrap();
    ids::set_gid(NOBODY).unwrap();
    ids::set_uid(NOBODY).unwrap();
    process::set_keep_capabilities(false).unwrap();
    let kept = kept.into_iter().collect();
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        caps::set(None, set, &kept).unwrap();
    }
}

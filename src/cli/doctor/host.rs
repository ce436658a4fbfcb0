//! What the host has to do with it: clock, connection tracking, open files, ports.

use std::{collections::BTreeSet, fs, str::FromStr};

use super::finding::{Area, Diagnosis};
use crate::{
    base::PortRange,
    config::{Config, Mode},
    firewall::PortSet,
    sys::clock,
};

/// Percent of a table from which on it is worth a word, and from which on it is as good as full.
const FILLING: u64 = 80;
const FULL: u64 = 95;

/// What the kernel says of itself; `None` where it does not.
#[derive(Debug, Clone, Default)]
struct Kernel {
    is_synchronised: Option<bool>,
    /// Tracked connections and how many there may be.
    conntrack: Option<(u64, u64)>,
    /// Packets that connection tracking has dropped, on all CPUs.
    conntrack_drops: u64,
    /// Open files of the whole host and how many there may be.
    files: Option<(u64, u64)>,
    /// net.ipv4.ip_local_port_range.
    ephemeral: Option<PortRange>,
    /// net.ipv4.ip_local_reserved_ports.
    reserved: String,
}

/// Looks at the host.
pub fn look(config: Option<&Config>, found: &mut Diagnosis) {
    let read = |path: &str| fs::read_to_string(path).ok();
    let clock = clock::is_synchronised();
    if let Err(error) = &clock {
        found.unseen(
            Area::Clock,
            format!("the kernel does not tell of its clock: {error}"),
        );
    }
    let kernel = Kernel {
        is_synchronised: clock.ok(),
        conntrack: number("/proc/sys/net/netfilter/nf_conntrack_count")
            .zip(number("/proc/sys/net/netfilter/nf_conntrack_max")),
        conntrack_drops: read("/proc/net/stat/nf_conntrack").map_or(0, |table| conntrack_drops(&table)),
        files: read("/proc/sys/fs/file-nr").and_then(|line| files(&line)),
        ephemeral: read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|line| range(&line)),
        reserved: read("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default(),
    };
    judge(&kernel, config, found);
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn judge(kernel: &Kernel, config: Option<&Config>, found: &mut Diagnosis) {
    if kernel.is_synchronised == Some(false) {
        found.warning(
            Area::Clock,
            "nothing keeps the clock of this host right: certificates and logs go by it",
            "apt install systemd-timesyncd (or chrony); `timedatectl` shows how it is",
        );
    }
    if let Some((count, max)) = kernel.conntrack {
        let remedy = format!(
            "write net.netfilter.nf_conntrack_max = {} to /etc/sysctl.d/ and run sysctl --system; or take the frontends' ports out of \
             tracking with notrack rules",
            max.saturating_mul(2)
        );
        let message = format!("connection tracking holds {count} of {max} connections");
        match percent(count, max) {
            FULL.. => found.error(
                Area::Conntrack,
                format!("{message}: packets of new ones are dropped"),
                remedy,
            ),
            FILLING.. => found.warning(Area::Conntrack, message, remedy),
            _ if kernel.conntrack_drops > 0 => found.note(
                Area::Conntrack,
                format!(
                    "connection tracking has dropped {} packet(s) since the host started",
                    kernel.conntrack_drops
                ),
                "see `conntrack -S`; if it grows, raise net.netfilter.nf_conntrack_max",
            ),
            _ => {}
        }
    }
    if let Some((open, max)) = kernel.files
        && percent(open, max) >= FILLING
    {
        found.warning(
            Area::Descriptors,
            format!("{open} of {max} files of the whole host are open"),
            "raise fs.file-max in /etc/sysctl.d/",
        );
    }
    if let Some(config) = config {
        listeners(kernel, config, found);
        nat_ports(kernel, config, found);
    }
}

/// The ephemeral ports that the kernel gives to outgoing connections.
fn given_away(kernel: &Kernel) -> Option<(PortSet, PortRange)> {
    let range = kernel.ephemeral?;
    // what cannot be read reserves nothing
    let reserved = kernel.reserved.parse().unwrap_or_default();
    Some((PortSet::of([range]).without(&reserved), range))
}

/// Listeners at ports that the kernel may give to outgoing connections.
fn listeners(kernel: &Kernel, config: &Config, found: &mut Diagnosis) {
    let Some((given_away, ephemeral)) = given_away(kernel) else {
        return;
    };
    let proxied = config
        .frontends
        .values()
        .filter(|frontend| frontend.mode == Mode::Proxy);
    let places = proxied.flat_map(|frontend| frontend.endpoints().map(move |at| (&frontend.name, at.port())));
    let at = |port| {
        PortSet::of([PortRange {
            first: port,
            last: port,
        }])
    };
    let exposed: BTreeSet<_> = places
        .filter(|(_, port)| !at(*port).intersection(&given_away).is_empty())
        .collect();
    if exposed.is_empty() {
        return;
    }
    let named: Vec<String> = exposed
        .iter()
        .take(3)
        .map(|(name, port)| format!("{name} ({port})"))
        .collect();
    let ports = exposed
        .iter()
        .fold(PortSet::default(), |ports, (_, port)| ports.union(&at(*port)));
    let reserved: PortSet = kernel.reserved.parse().unwrap_or_default();
    found.warning(
        Area::Ports,
        format!(
            "{} listen(s) among this host's ephemeral ports ({ephemeral}): a connection of the host may take the port while convey \
             does not run, and then it cannot start",
            named.join(", ")
        ),
        format!(
            "write net.ipv4.ip_local_reserved_ports = {} to /etc/sysctl.d/ and run sysctl --system",
            reserved.union(&ports)
        ),
    );
}

/// NAT ports that the kernel gives to connections of its own.
fn nat_ports(kernel: &Kernel, config: &Config, found: &mut Diagnosis) {
    let has_passthrough = config
        .frontends
        .values()
        .any(|frontend| frontend.mode == Mode::Passthrough);
    let Some((given_away, ephemeral)) = given_away(kernel).filter(|_| has_passthrough) else {
        return;
    };
    let nat_ports = config.packet.nat_ports;
    let exposed = PortSet::of(nat_ports.iter()).intersection(&given_away).len();
    if exposed > 0 {
        found.warning(
            Area::Ports,
            format!(
                "{exposed} of the NAT ports ({nat_ports}) are among this host's ephemeral ports ({ephemeral}) and not reserved: answers to \
                 connections of the host may be taken for those of flows"
            ),
            "a running convey reserves them at `convey reload`; if they are not reserved then, see `convey firewall show` and \
             net.ipv4.ip_local_reserved_ports",
        );
    }
}

const fn percent(count: u64, max: u64) -> u64 {
    match max {
        0 => 0,
        max => count.saturating_mul(100) / max,
    }
}

/// The third number is the limit; the second is of no use any more.
fn files(line: &str) -> Option<(u64, u64)> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let open = numbers.next()?.ok()?;
    Some((open, numbers.nth(1)?.ok()?))
}

fn range(line: &str) -> Option<PortRange> {
    let mut numbers = line.split_whitespace().map(str::parse);
    Some(PortRange {
        first: numbers.next()?.ok()?,
        last: numbers.next()?.ok()?,
    })
}

/// The sum of the columns `drop` and `early_drop`, which are hexadecimal, a line for each CPU.
fn conntrack_drops(table: &str) -> u64 {
    let mut lines = table.lines();
    let titles: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let columns: Vec<usize> = (titles.iter().enumerate())
        .filter(|(_, title)| ["drop", "early_drop"].contains(title))
        .map(|(at, _)| at)
        .collect();
    let of_line = |line: &str| -> u64 {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let counts = columns
            .iter()
            .filter_map(|at| u64::from_str_radix(cells.get(*at)?, 16).ok());
        counts.sum()
    };
    lines.map(of_line).sum()
}

/// A counter of /proc/net/netstat, whose lines come in pairs: names, numbers.
pub fn netstat(table: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = table.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let [names, numbers] = pair else { return None };
        let at = names.split_whitespace().position(|column| column == name)?;
        numbers.split_whitespace().nth(at)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::finding::Level,
        config::{self, Options, Source},
    };

    const STOCK: PortRange = PortRange {
        first: 32_768,
        last: 60_999,
    };

    fn config(frontend: &str, packet: &str) -> Config {
        let text = format!(
            "[packet]\n{packet}\n[frontends.web]\n{frontend}\nbackend = 'web'\n\
             [backends.web]\nservers.a = {{ addr = '10.0.0.1:80' }}\n"
        );
        let source = Source {
            name: "c.toml".into(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).expect("valid").config
    }

    fn judged(kernel: &Kernel, config: Option<&Config>) -> Diagnosis {
        let mut found = Diagnosis::default();
        judge(kernel, config, &mut found);
        found
    }

    fn only(found: &Diagnosis) -> (Level, Area) {
        let [finding] = found.findings.as_slice() else {
            panic!("{found:?}")
        };
        (finding.level, finding.area)
    }

    #[test]
    fn a_table_that_fills_is_a_warning_and_one_that_is_full_an_error() {
        let with = |count| Kernel {
            conntrack: Some((count, 100)),
            ..Kernel::default()
        };
        assert!(judged(&with(79), None).findings.is_empty());
        assert_eq!(only(&judged(&with(80), None)), (Level::Warning, Area::Conntrack));
        assert_eq!(only(&judged(&with(95), None)), (Level::Error, Area::Conntrack));
        let files = Kernel {
            files: Some((90, 100)),
            is_synchronised: Some(true),
            ..Kernel::default()
        };
        assert_eq!(only(&judged(&files, None)), (Level::Warning, Area::Descriptors));
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_a_warning() {
        let kernel = Kernel {
            is_synchronised: Some(false),
            ..Kernel::default()
        };
        assert_eq!(only(&judged(&kernel, None)), (Level::Warning, Area::Clock));
    }

    #[test]
    fn a_listener_among_the_ephemeral_ports_is_to_be_reserved_beside_those_that_are() {
        let mut kernel = Kernel {
            ephemeral: Some(STOCK),
            reserved: "40000-40010\n".into(),
            ..Kernel::default()
        };
        let high = config("listen_addr = '192.0.2.1:50000'", "");
        let found = judged(&kernel, Some(&high));
        assert_eq!(only(&found), (Level::Warning, Area::Ports));
        assert!(
            found.findings[0].remedy.contains("= 40000-40010,50000 to"),
            "{found:?}"
        );
        kernel.reserved = "50000".into();
        assert!(judged(&kernel, Some(&high)).findings.is_empty());
        let low = config("listen_addr = '192.0.2.1:80'", "");
        assert!(judged(&kernel, Some(&low)).findings.is_empty());
    }

    #[test]
    fn nat_ports_among_the_ephemeral_ones_have_to_be_reserved() {
        let mut kernel = Kernel {
            ephemeral: Some(STOCK),
            ..Kernel::default()
        };
        let passthrough = "listen_addr = '192.0.2.1:80'\nmode = 'passthrough'";
        let overlapping = config(passthrough, "nat_ports = '60000-65535'");
        let found = judged(&kernel, Some(&overlapping));
        assert_eq!(only(&found), (Level::Warning, Area::Ports));
        assert!(
            found.findings[0].message.starts_with("1000 of the NAT ports"),
            "{found:?}"
        );
        kernel.reserved = "60000-60999".into();
        assert!(judged(&kernel, Some(&overlapping)).findings.is_empty());
    }

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(
            files("4032\t0\t9223372036854775807\n"),
            Some((4_032, 9_223_372_036_854_775_807))
        );
        assert_eq!(range("32768\t60999\n"), Some(STOCK));
        let stat = "entries searched drop early_drop\n000000a0 00 0000000a 01\n000000a0 00 00000001 00\n";
        assert_eq!(conntrack_drops(stat), 12);
        let table = "TcpExt: A IPReversePathFilter B\nTcpExt: 1 7 3\nIpExt: C\nIpExt: 9\n";
        assert_eq!(
            (netstat(table, "IPReversePathFilter"), netstat(table, "C")),
            (Some(7), Some(9))
        );
        assert_eq!(netstat(table, "D"), None);
        assert_eq!((files(""), range("x"), conntrack_drops("")), (None, None, 0));
    }
}

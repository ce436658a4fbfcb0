//! The NAT ports in `net.ipv4.ip_local_reserved_ports` (of both families, in spite of its name), and the record of
//! those that were added there, so that an administrator's own entries stay.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    FirewallError, others,
    ports::{self, Ephemeral, FEW_EPHEMERAL, FEWEST_EPHEMERAL, PortSet},
};
use crate::{
    base::{PortRange, PortRanges},
    sys::own_file,
};

/// Ports that no socket gets unless it asks for them.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// Ports that sockets get which ask for none.
const LOCAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// More than the longest list: 32,768 single ports with five digits and a comma. It must be read in one piece, the kernel
/// has no second one.
const LIST_BYTES: usize = 256 << 10;

/// Reserves these ports and no longer those that an earlier call added. `record` remembers what was added.
///
/// With `only_adding`, what an earlier call added stays. Returns a warning when the ports cannot be reserved and need not
/// be, because the kernel hands none of them out anyway.
///
/// # Errors
/// The ports cannot be reserved although the kernel hands some of them out, or those added earlier cannot be given back.
pub fn settle(record: &Path, wanted: &PortSet, only_adding: bool) -> Result<Option<String>, FirewallError> {
    match try_settle(record, wanted, only_adding) {
        Ok(()) => Ok(None),
        Err(error) if wanted.is_empty() => Err(error),
        Err(error) => {
            let local = local_port_range()?;
            let reserved = reserved_ports()?;
            let handed_out = wanted.intersection(&PortSet::of([local])).without(&reserved);
            if handed_out.is_empty() {
                return Ok(Some(format!(
                    "the NAT ports {wanted} could not be reserved ({error}); this does no harm while they are outside \
                     net.ipv4.ip_local_port_range ({local})"
                )));
            }
            Err(FirewallError::Unreserved {
                ports: handed_out.to_string(),
                local,
                source: Box::new(error),
            })
        }
    }
}

/// The NAT ports of this host where its configuration names none.
///
/// # Errors
/// /proc/sys cannot be read.
pub fn default_nat_ports(record: &Path) -> Result<PortRanges, FirewallError> {
    Ok(ports::default_nat_ports(
        local_port_range()?,
        &others_reserved(record)?,
        others::has_kube_proxy(),
    ))
}

/// The ports that others have reserved. Who may not read the record (`convey check` by an ordinary user) takes all
/// reservations for others'.
fn others_reserved(record: &Path) -> Result<PortSet, FirewallError> {
    let ours = read_record(record).unwrap_or_default();
    Ok(reserved_ports()?.without(&ours))
}

/// Judges whether NAT ports leave the host enough ephemeral ports; `record` tells our own reservations from others'.
///
/// # Errors
/// [`FirewallError::TooFewPorts`], or /proc/sys cannot be read.
pub fn check_ephemeral(record: &Path, nat: PortRanges) -> Result<Option<String>, FirewallError> {
    judge(local_port_range()?, &others_reserved(record)?, nat)
}

/// Judges NAT ports beside a range of ephemeral ports and what others have reserved.
///
/// # Errors
/// [`FirewallError::TooFewPorts`].
pub fn judge(local: PortRange, others: &PortSet, nat: PortRanges) -> Result<Option<String>, FirewallError> {
    match ports::ephemeral_left(local, others, nat) {
        Ephemeral::Enough(_) => Ok(None),
        Ephemeral::Few(left) => Ok(Some(format!(
            "NAT ports {nat} leave only {left} of the host's ephemeral ports (net.ipv4.ip_local_port_range is {local}); \
             below {FEW_EPHEMERAL} its own connections to one server may run out of ports: widen that range, for \
             example with `sysctl -w net.ipv4.ip_local_port_range=\"10000 65535\"`, or choose fewer nat_ports"
        ))),
        Ephemeral::TooFew(left) => Err(FirewallError::TooFewPorts {
            nat,
            left,
            local,
            fewest: FEWEST_EPHEMERAL,
        }),
    }
}

fn try_settle(record: &Path, wanted: &PortSet, only_adding: bool) -> Result<(), FirewallError> {
    let recorded = read_record(record)?;
    let now = reserved_ports()?;
    let change = ReservedChange::between(&now, &recorded, wanted, only_adding);
    // recorded before it is done: whoever is interrupted in between leaves a record that the next run honours
    let either = change.ours.union(&recorded);
    if either != recorded {
        write_record(record, &either)?;
    }
    if change.list != now {
        write_reserved(&change.list)?;
    }
    if change.ours != either {
        write_record(record, &change.ours)?;
    }
    Ok(())
}

/// The new list, and which ports of it are there by our doing.
#[derive(Debug, PartialEq, Eq)]
struct ReservedChange {
    list: PortSet,
    ours: PortSet,
}

impl ReservedChange {
    fn between(now: &PortSet, recorded: &PortSet, wanted: &PortSet, only_adding: bool) -> Self {
        let added = wanted.without(now);
        let kept = if only_adding {
            recorded.clone()
        } else {
            recorded.intersection(wanted)
        };
        Self {
            list: now.without(&recorded.without(&kept)).union(wanted),
            ours: kept.union(&added),
        }
    }
}

/// The content of the record file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Ports that were added to `ip_local_reserved_ports`.
    reserved_ports: String,
}

/// What was added earlier; nothing without a record.
pub fn read_record(path: &Path) -> Result<PortSet, FirewallError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LIST_BYTES).unwrap_or(u64::MAX);
    match own_file::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PortSet::default()),
        Err(error) => return Err(file(path)(error)),
    }
    let spoilt = |what: &dyn std::fmt::Display| {
        file(path)(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a valid record of convey's ({what}): remove the file"),
        ))
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| spoilt(&error))?;
    record.reserved_ports.parse().map_err(|error| spoilt(&error))
}

/// Replaces the record in one step; removes it when there is nothing to remember.
fn write_record(path: &Path, ours: &PortSet) -> Result<(), FirewallError> {
    if ours.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path)(error)),
            _ => Ok(()),
        };
    }
    let record = Record {
        reserved_ports: ours.to_string(),
    };
    let write = || -> io::Result<()> {
        let mut text = serde_json::to_vec(&record)?;
        text.push(b'\n');
        let fresh = path.with_extension("new");
        let mut new = own_file::create(&fresh, 0o600)?;
        new.write_all(&text)?;
        new.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(file(path))
}

fn reserved_ports() -> Result<PortSet, FirewallError> {
    let mut text = vec![0; LIST_BYTES];
    let length = File::open(RESERVED)
        .and_then(|mut list| list.read(&mut text))
        .map_err(file(Path::new(RESERVED)))?;
    text.truncate(length);
    String::from_utf8_lossy(&text)
        .parse()
        .map_err(unexpected(RESERVED))
}

fn write_reserved(list: &PortSet) -> Result<(), FirewallError> {
    // the kernel takes a page at a time; what follows the first is added to it
    OpenOptions::new()
        .write(true)
        .open(RESERVED)
        .and_then(|mut file| file.write_all(format!("{list}\n").as_bytes()))
        .map_err(file(Path::new(RESERVED)))
}

fn local_port_range() -> Result<PortRange, FirewallError> {
    let text = fs::read_to_string(LOCAL).map_err(file(Path::new(LOCAL)))?;
    parse_local(&text).ok_or_else(|| unexpected(LOCAL)(format!("unexpected content {text:?}")))
}

/// Two numbers.
fn parse_local(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first <= last).then_some(PortRange { first, last })
}

fn file(path: &Path) -> impl Fn(io::Error) -> FirewallError + '_ {
    |source| FirewallError::File {
        path: path.to_owned(),
        source,
    }
}

fn unexpected<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    path: &'static str,
) -> impl Fn(E) -> FirewallError {
    move |error| file(Path::new(path))(io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().unwrap()
    }

    fn change(now: &str, recorded: &str, wanted: &str) -> (String, String) {
        let change = ReservedChange::between(&set(now), &set(recorded), &set(wanted), false);
        (change.list.to_string(), change.ours.to_string())
    }

    fn pair(list: &str, ours: &str) -> (String, String) {
        (list.into(), ours.into())
    }

    #[test]
    fn only_ports_that_were_not_reserved_yet_become_ours() {
        assert_eq!(
            change("8080,61000-61009", "", "61000-61099"),
            pair("8080,61000-61099", "61010-61099")
        );
    }

    #[test]
    fn only_ours_are_given_back() {
        assert_eq!(
            change("8080,9000,61000-61099", "61010-61099", ""),
            pair("8080,9000,61000-61009", "")
        );
    }

    #[test]
    fn doing_it_again_changes_nothing() {
        assert_eq!(
            change("8080,61000-61099", "61000-61099", "61000-61099"),
            pair("8080,61000-61099", "61000-61099")
        );
    }

    #[test]
    fn another_range_gives_back_what_is_no_longer_wanted() {
        assert_eq!(
            change("1,61000-61099", "61000-61099", "61050-61199"),
            pair("1,61050-61199", "61050-61199")
        );
    }

    #[test]
    fn entries_that_an_administrator_took_out_are_added_again() {
        assert_eq!(
            change("", "61000-61099", "61000-61099"),
            pair("61000-61099", "61000-61099")
        );
    }

    #[test]
    fn while_only_adding_what_was_ours_stays() {
        let change = ReservedChange::between(&set("5-9"), &set("5-6"), &set("9-10"), true);
        assert_eq!((change.list, change.ours), (set("5-10"), set("5-6,10")));
    }

    #[test]
    fn the_record_is_read_as_written_and_gone_when_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firewall.json");
        assert_eq!(read_record(&path).unwrap(), set(""));
        write_record(&path, &set("61000-65535")).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"reserved_ports\":\"61000-65535\"}\n"
        );
        assert_eq!(read_record(&path).unwrap(), set("61000-65535"));
        write_record(&path, &set("")).unwrap();
        write_record(&path, &set("")).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_spoilt_record_is_not_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firewall.json");
        for text in [
            "",
            "{}",
            "{\"reserved_ports\":\"x\"}",
            "{\"reserved_ports\":\"1\",\"more\":2}",
        ] {
            fs::write(&path, text).unwrap();
            let error = read_record(&path).unwrap_err().to_string();
            assert!(error.contains("remove the file"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_record_of_ours_is_neither_waited_for_nor_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let [record, fresh, precious] =
            ["firewall.json", "firewall.new", "precious"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read_record(&record).unwrap_err().to_string();
        assert!(
            error.contains("firewall.json") && error.contains("remove it"),
            "{error}"
        );
        fs::remove_file(&record).unwrap();
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &fresh).unwrap();
        assert!(write_record(&record, &set("61000-65535")).is_err());
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn the_local_range_is_two_numbers_in_order() {
        assert_eq!(
            parse_local("32768\t60999\n"),
            Some(PortRange {
                first: 32_768,
                last: 60_999
            })
        );
        for text in ["", "1", "2 1", "x 2", "1 65536"] {
            assert_eq!(parse_local(text), None, "{text}");
        }
    }
}

//! `virtual_server_group`: addresses that virtual servers share.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Names, blocks::Entry};
use crate::import::{At, DirectiveId, Draft, MAX_MADE, address::joined, port_names};

/// The addresses of a group, and what of it is none.
#[derive(Debug)]
pub struct Group {
    id: DirectiveId,
    /// As `listen_addr` has them.
    pub listen: Vec<String>,
    /// Entries that are no addresses, and why.
    others: Vec<(DirectiveId, &'static str)>,
    members: Vec<DirectiveId>,
    is_used: Cell<bool>,
}

impl Group {
    /// Reads a group.
    pub fn read(entry: &Entry, names: &Names<'_>, draft: &mut Draft) -> Self {
        let mut group = Self {
            id: names.register(entry, draft),
            listen: Vec::new(),
            others: Vec::new(),
            members: Vec::new(),
            is_used: Cell::new(false),
        };
        for member in entry.block.iter().flatten() {
            let id = names.register(member, draft);
            match addresses(member) {
                Ok(addresses) if group.listen.len() + addresses.len() <= MAX_MADE => {
                    group.listen.extend(addresses);
                    group.members.push(id);
                }
                Ok(_) => group
                    .others
                    .push((id, "a group of more than 4096 addresses is not written out")),
                Err(why) => group.others.push((id, why)),
            }
        }
        group
    }

    /// A virtual server is on it.
    pub fn used(&self, draft: &mut Draft) {
        self.is_used.set(true);
        draft.translated(self.id);
        self.members.iter().for_each(|id| draft.translated(*id));
    }

    /// Says in a frontend what of the group it lacks.
    pub fn notes(&self, at: At, draft: &mut Draft) {
        for (id, why) in &self.others {
            draft.no_equal(*id, at, why);
        }
    }

    /// Says that no virtual server is on it.
    pub fn unused(&self, draft: &mut Draft) {
        if self.is_used.get() {
            return;
        }
        draft.no_equal(self.id, At::Top, "no virtual_server uses it");
        for id in self.members.iter().chain(self.others.iter().map(|(id, _)| id)) {
            draft.translated(*id);
        }
    }
}

pub const MARK: &str = "a firewall mark is no address: which packets have it, rules of iptables or nft say. Write the addresses and ports \
                        that they name as listen_addr of a frontend";

pub const NO_PORT: &str = "a service on every port has no equal: name the ports that clients use, such as listen_addr = \
                           \"192.0.2.1:8000-8010\"; in packet modes a client has one server for a whole range";

/// The addresses of a line: `IP PORT`, `IP-LAST PORT`, `IP-IP PORT`, `NETWORK PORT`.
fn addresses(member: &Entry) -> Result<Vec<String>, &'static str> {
    const UNREAD: &str = "this is no address, range of addresses or fwmark";
    let word = member.keyword();
    if word == "fwmark" {
        return Err(MARK);
    }
    let port = member.word(1).ok_or(NO_PORT)?;
    let port = port_names::port(port).filter(|port| *port > 0).ok_or(NO_PORT)?;
    let all = match (word.split_once('/'), word.split_once('-')) {
        (Some((ip, bits)), _) => network(ip.parse().map_err(|_| UNREAD)?, bits.parse().map_err(|_| UNREAD)?),
        (None, Some((first, last))) => {
            let first = first.parse().map_err(|_| UNREAD)?;
            range(first, last_of(first, last).ok_or(UNREAD)?)
        }
        (None, None) => Some(vec![word.parse().map_err(|_| UNREAD)?]),
    };
    let all: Vec<IpAddr> = all.ok_or("a range of more than 4096 addresses is not written out")?;
    Ok(all.into_iter().map(|ip| joined(&ip.to_string(), port)).collect())
}

/// The last address of a range: a whole one, or its last part.
fn last_of(first: IpAddr, last: &str) -> Option<IpAddr> {
    if let Ok(last) = last.parse() {
        return Some(last);
    }
    match first {
        IpAddr::V4(first) => {
            let [a, b, c, _] = first.octets();
            Some(Ipv4Addr::new(a, b, c, last.parse().ok()?).into())
        }
        IpAddr::V6(first) => {
            let [a, b, c, d, e, f, g, _] = first.segments();
            let last = u16::from_str_radix(last, 16).ok()?;
            Some(Ipv6Addr::new(a, b, c, d, e, f, g, last).into())
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn range(first: IpAddr, last: IpAddr) -> Option<Vec<IpAddr>> {
    let (from, to) = (number(first), number(last));
    let is_small = first.is_ipv4() == last.is_ipv4() && to.checked_sub(from)? < MAX_MADE as u128;
    let address = |number: u128| match first {
        IpAddr::V4(_) => u32::try_from(number)
            .ok()
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from_bits(number).into()),
    };
    is_small.then(|| (from..=to).filter_map(address).collect())
}

/// All addresses from this one to the last of its network.
fn network(ip: IpAddr, bits: u32) -> Option<Vec<IpAddr>> {
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let free = width - bits.min(width);
    let mask = 1_u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
    let last = number(ip) | mask;
    let last = match ip {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(last).ok()?).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(last).into(),
    };
    range(ip, last)
}

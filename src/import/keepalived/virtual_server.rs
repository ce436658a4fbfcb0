//! `virtual_server` and the `real_server` blocks within.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Names,
    blocks::Entry,
    checks::{self, Check},
    group::{Group, MARK, NO_PORT},
    settings::{Settings, Timers, flag},
    unknown,
};
use crate::import::{
    DirectiveId, Draft,
    address::joined,
    ipvs::{name, prefix},
    lvs::{Method, Persistence, RealServer, Said, Service},
    port_names,
};

/// Where a virtual server listens.
pub enum Listen<'a> {
    /// At an address.
    Address(String),
    /// At those of a group.
    Group(&'a Group),
}

/// A virtual server.
pub struct VirtualServer {
    /// As IPVS has it.
    pub service: Service,
    /// What needs a note.
    pub settings: Settings,
    /// Checks of each of its servers.
    pub checks: Vec<ServerChecks>,
}

/// The checks of a server.
pub struct ServerChecks {
    /// The server's directive.
    pub id: DirectiveId,
    /// Its checks.
    pub checks: Vec<Check>,
}

/// Persistence without a number, in seconds.
const PERSISTENT: u64 = 360;

/// Where a virtual server listens, or why nothing can be made of it.
pub fn listen<'a>(entry: &Entry, groups: &'a BTreeMap<String, Group>) -> Result<Listen<'a>, &'static str> {
    match (entry.word(1), entry.word(2)) {
        (Some("fwmark"), _) => Err(MARK),
        (Some("group"), Some(name)) => match groups.get(name) {
            Some(group) if group.listen.is_empty() => {
                Err("no line of its group became an address that Convey can listen on")
            }
            Some(group) => Ok(Listen::Group(group)),
            None => Err("there is no virtual_server_group of that name"),
        },
        (Some(ip), port) => {
            let ip: IpAddr = ip.parse().map_err(|_| "this is no address, group or fwmark")?;
            let port = port
                .and_then(port_names::port)
                .filter(|port| *port > 0)
                .ok_or(NO_PORT)?;
            Ok(Listen::Address(joined(&ip.to_string(), port)))
        }
        (None, _) => Err("this is no address, group or fwmark"),
    }
}

/// The group that a virtual server names, whether it has an address or not.
pub fn group<'a>(entry: &Entry, groups: &'a BTreeMap<String, Group>) -> Option<&'a Group> {
    (entry.word(1) == Some("group"))
        .then(|| groups.get(entry.word(2)?))
        .flatten()
}

/// Reads a virtual server.
pub fn read(
    entry: &Entry,
    id: DirectiveId,
    listen: &Listen<'_>,
    names: &Names<'_>,
    draft: &mut Draft,
) -> VirtualServer {
    let (listen, wanted) = match listen {
        Listen::Address(address) => (vec![address.clone()], None),
        Listen::Group(group) => (group.listen.clone(), entry.word(2)),
    };
    let mut reader = Reader {
        names,
        draft,
        service: Service {
            id,
            name: String::new(),
            listen,
            // what keepalived 2.2 takes a virtual server for that names no protocol
            is_udp: true,
            scheduler: None,
            flags: Vec::new(),
            persistence: None,
            one_packet: None,
            method: None,
            idle_tcp: None,
            idle_fin: None,
            idle_udp: None,
            servers: Vec::new(),
            is_checked: false,
            sorry: None,
        },
        settings: Settings::default(),
        timers: Timers::default(),
        virtualhost: None,
        prefix: None,
        engine: None,
        checks: Vec::new(),
    };
    let mut servers = Vec::new();
    for member in entry.block.iter().flatten() {
        let id = names.register(member, reader.draft);
        match member.keyword() {
            "real_server" => servers.push((member, id)),
            _ => reader.member(member, id),
        }
    }
    reader.ends();
    // their defaults may stand after them
    for (member, id) in servers {
        reader.server(member, id);
    }
    let mut service = reader.service;
    service.name = match (wanted, service.listen.first()) {
        (Some(wanted), _) => name(wanted, service.is_udp),
        (None, Some(address)) => name(address, service.is_udp),
        (None, None) => String::new(),
    };
    VirtualServer {
        service,
        settings: reader.settings,
        checks: reader.checks,
    }
}

struct Reader<'a, 'b> {
    names: &'a Names<'b>,
    draft: &'a mut Draft,
    service: Service,
    settings: Settings,
    timers: Timers,
    virtualhost: Option<String>,
    prefix: Option<Said<u8>>,
    engine: Option<Said<String>>,
    checks: Vec<ServerChecks>,
}

fn said<T>(id: DirectiveId, entry: &Entry, value: T) -> Said<T> {
    Said {
        id,
        words: entry.text.clone(),
        value,
    }
}

/// `NAT`, `DR`, `TUN` with its type.
fn method(entry: &Entry) -> Option<Method> {
    match entry.word(1)?.to_ascii_uppercase().as_str() {
        "NAT" => Some(Method::Masquerade),
        "DR" => Some(Method::Route),
        "TUN" => Some(Method::Tunnel),
        _ => None,
    }
}

const UNREAD: &str = "its value cannot be read";
const EVENTS: &str = "[hooks] on_change tells one command of all events, by a line each on its standard input: event, backend, server, \
                      reason";
const MAILS: &str = "Convey sends no mail: [hooks] on_change tells a command, which can";
const SNMP: &str =
    "Convey has no SNMP: /metrics and the admin API have its counters by the names of frontends and backends";
const QUORUM: &str =
    "a server that is up serves: the sorry server comes in when none is, whatever the weights add up to";

impl Reader<'_, '_> {
    fn member(&mut self, entry: &Entry, id: DirectiveId) {
        if self.timers.take(entry, id, &mut self.settings, self.draft) {
            return;
        }
        let word = entry.word(1).unwrap_or_default();
        match entry.keyword() {
            "lb_algo" | "lvs_sched" => {
                self.service.scheduler = Some(said(id, entry, word.to_ascii_lowercase()));
            }
            "lb_kind" | "lvs_method" => match method(entry) {
                Some(method) => self.service.method = Some(said(id, entry, method)),
                None => self.settings.no_equal(id, UNREAD),
            },
            "protocol" => match word.to_ascii_uppercase().as_str() {
                "TCP" => {
                    self.service.is_udp = false;
                    self.draft.translated(id);
                }
                "UDP" => self.draft.translated(id),
                _ => {
                    self.service.is_udp = false;
                    self.settings
                        .no_equal(id, "Convey balances TCP and UDP; this became TCP");
                }
            },
            "persistence_timeout" => {
                let seconds = if word.is_empty() {
                    Some(PERSISTENT)
                } else {
                    word.parse().ok()
                };
                match seconds {
                    Some(0) => self.draft.translated(id),
                    Some(seconds) => {
                        self.service.persistence = Some(Persistence {
                            seconds: said(id, entry, seconds),
                            prefix: None,
                            engine: None,
                        });
                    }
                    None => self.settings.no_equal(id, UNREAD),
                }
            }
            "persistence_granularity" => match prefix(word) {
                Some(bits) => self.prefix = Some(said(id, entry, bits)),
                None => self.settings.no_equal(id, UNREAD),
            },
            "persistence_engine" => self.engine = Some(said(id, entry, word.to_owned())),
            "ops" => self.service.one_packet = Some(said(id, entry, ())),
            "flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => {
                let flag = said(id, entry, entry.keyword().to_owned());
                self.service.flags.push(flag);
            }
            "sorry_server" => {
                let ip = word.parse::<IpAddr>().ok();
                let port = entry.word(2).and_then(port_names::port).filter(|port| *port > 0);
                match ip.zip(port.or_else(|| self.port())) {
                    Some(place) => self.service.sorry = Some(said(id, entry, place)),
                    None => self.settings.no_equal(id, UNREAD),
                }
            }
            "virtualhost" => {
                self.virtualhost = Some(word.to_owned());
                self.draft.translated(id);
            }
            keyword => self.settle(keyword, entry, id),
        }
    }

    /// What both kinds of blocks have, and what needs only a note.
    fn settle(&mut self, keyword: &str, entry: &Entry, id: DirectiveId) {
        let settings = &mut self.settings;
        match keyword {
            "inhibit_on_failure" | "sorry_server_inhibit" => match flag(entry) {
                Some(false) => self.draft.translated(id),
                _ => settings.differs(
                    id,
                    "connections of a server that goes down: proxied ones live on (on_down = \"keep\"), and mode dsr sends their packets \
                     to another server",
                ),
            },
            "ha_suspend" => settings.no_equal(id, "servers are checked all the time, so that both hosts know their state"),
            "quorum" if entry.word(1) == Some("1") => self.draft.translated(id),
            "hysteresis" if entry.word(1) == Some("0") => self.draft.translated(id),
            "quorum" | "hysteresis" => settings.no_equal(id, QUORUM),
            "omega" => settings.no_equal(id, "no events are told when Convey stops: the unit's ExecStopPost can run a command"),
            "quorum_up" | "quorum_down" | "notify_up" | "notify_down" => settings.no_equal(id, EVENTS),
            "smtp_alert" if flag(entry) == Some(false) => self.draft.translated(id),
            "smtp_alert" => settings.no_equal(id, MAILS),
            "snmp_name" => settings.no_equal(id, SNMP),
            "ip_family" => self.draft.translated(id),
            "sorry_server_lvs_method" => {
                settings.no_equal(id, "servers of a backend are reached alike");
            }
            _ => settings.no_equal(id, unknown(keyword)),
        }
    }

    /// What was said apart belongs together.
    fn ends(&mut self) {
        let (prefix, engine) = (self.prefix.take(), self.engine.take());
        match &mut self.service.persistence {
            Some(persistence) => {
                persistence.prefix = prefix;
                persistence.engine = engine;
            }
            None => {
                let ids = prefix
                    .iter()
                    .map(|said| said.id)
                    .chain(engine.iter().map(|said| said.id));
                for id in ids.collect::<Vec<_>>() {
                    self.settings.no_equal(id, "there is no persistence_timeout");
                }
            }
        }
    }

    /// The port of the first address.
    fn port(&self) -> Option<u16> {
        self.service.listen.first()?.rsplit(':').next()?.parse().ok()
    }

    fn server(&mut self, entry: &Entry, id: DirectiveId) {
        let ip = entry.word(1).and_then(|ip| ip.parse::<IpAddr>().ok());
        let port = match entry.word(2) {
            Some(port) => port_names::port(port).filter(|port| *port > 0),
            None => self.port(),
        };
        let Some((ip, port)) = ip.zip(port) else {
            self.settings.no_equal(id, "its address or port cannot be read");
            return;
        };
        let default = self
            .service
            .method
            .as_ref()
            .map_or(Method::Masquerade, |said| said.value);
        let mut server = RealServer {
            id,
            ip,
            port,
            method: said(id, entry, default),
            weight: said(id, entry, 1),
            upper: None,
            lower: None,
            check_addr: None,
        };
        let (mut timers, mut virtualhost) = (Timers::default(), self.virtualhost.clone());
        let mut blocks = Vec::new();
        for member in entry.block.iter().flatten() {
            let id = self.names.register(member, self.draft);
            if timers.take(member, id, &mut self.settings, self.draft) {
                continue;
            }
            let word = member.word(1).unwrap_or_default();
            match member.keyword() {
                "weight" => match word.parse() {
                    Ok(weight) => {
                        server.weight = said(id, member, weight);
                        self.draft.translated(id);
                    }
                    Err(_) => self.settings.no_equal(id, UNREAD),
                },
                "lb_kind" | "lvs_method" => match method(member) {
                    Some(method) => {
                        server.method = said(id, member, method);
                        self.draft.translated(id);
                    }
                    None => self.settings.no_equal(id, UNREAD),
                },
                "uthreshold" | "lthreshold" => match word.parse::<u64>() {
                    Ok(0) => self.draft.translated(id),
                    Ok(limit) => {
                        let limit = Some(said(id, member, limit));
                        self.draft.translated(id);
                        match member.keyword() {
                            "uthreshold" => server.upper = limit,
                            _ => server.lower = limit,
                        }
                    }
                    Err(_) => self.settings.no_equal(id, UNREAD),
                },
                "virtualhost" => {
                    virtualhost = Some(word.to_owned());
                    self.draft.translated(id);
                }
                keyword if checks::is_check(keyword) => blocks.push((member, id)),
                keyword => self.settle(keyword, member, id),
            }
        }
        let timers = timers.within(&self.timers);
        let mut of_server = Vec::new();
        for (member, id) in blocks {
            let outer = checks::Outer {
                ip,
                port,
                timers: &timers,
                virtualhost: virtualhost.as_deref(),
            };
            of_server.push(checks::read(member, id, &outer, self.names, self.draft));
        }
        self.service.is_checked |= of_server.iter().any(|check| check.rank > 0);
        self.checks.push(ServerChecks {
            id,
            checks: of_server,
        });
        self.service.servers.push(server);
    }
}

//! The table of IPVS, as `ipvsadm --save` prints it, and scripts of `ipvsadm` commands in their order.

mod options;

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    At, DirectiveId, Draft, Files, InputFile, Unreadable,
    address::{HostPort, joined},
    lvs::{self, Method, Persistence, RealServer, Said, Service},
    port_names,
};
use options::{Command, Options, Protocol, Target};

/// Persistence without a number, in seconds.
const PERSISTENT: u64 = 300;

/// Translates a file.
///
/// # Errors
/// It has not one command of `ipvsadm`.
pub fn translate(file: &InputFile, draft: &mut Draft, _files: &mut dyn Files) -> Result<(), Unreadable> {
    let mut table = Rules::default();
    let mut commands = 0;
    for (number, line) in (1..).zip(file.text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let id = draft.directive(&file.name, number, line, At::Top);
        match options::read(id, line) {
            Ok(options) => {
                commands += 1;
                table.apply(options, draft);
            }
            Err(why) => draft.no_equal(id, At::Top, &why),
        }
    }
    if commands == 0 {
        let message = "there is no command of ipvsadm, such as `-A -t 192.0.2.1:80 -s wlc`: `ipvsadm -Sn` prints the table";
        return Err(Unreadable::new(&file.name, 1, message));
    }
    draft.comment(
        At::Top,
        "The kernel's IPVS takes packets before Convey's proxied sockets get them: before Convey serves an address, remove it there \
         (`ipvsadm -D`, or `ipvsadm -C` for all), and from what restores it at boot.",
    );
    table.finish(draft);
    Ok(())
}

/// What the commands have made so far.
#[derive(Default)]
struct Rules {
    services: Vec<Option<Service>>,
    known: BTreeMap<Target, usize>,
    times: Option<[Said<u64>; 3]>,
}

impl Rules {
    fn apply(&mut self, options: Options, draft: &mut Draft) {
        let id = options.id;
        match &options.command {
            Command::AddService | Command::EditService => self.service(options, draft),
            Command::AddServer | Command::EditServer => self.server(options, draft),
            Command::DeleteService => {
                let target = options.target.as_ref();
                let index = target.and_then(|target| self.known.remove(&known(&target.value)));
                let service = index.and_then(|index| self.services.get_mut(index)?.take());
                service.into_iter().for_each(|service| gone(&service, draft));
                draft.translated(id);
            }
            Command::DeleteServer => {
                let server = options.server.as_ref().and_then(|server| address(&server.value));
                let service = self.of(&options);
                if let (Some(service), Some((ip, port))) = (service, server) {
                    let port = port.or_else(|| port_of(service));
                    service.servers.retain(|known| {
                        let is_it = known.ip == ip && Some(known.port) == port;
                        if is_it {
                            draft.translated(known.id);
                        }
                        !is_it
                    });
                }
                draft.translated(id);
            }
            Command::Clear => {
                self.services.drain(..).flatten().for_each(|service| gone(&service, draft));
                self.known.clear();
                draft.translated(id);
            }
            Command::Set(times) => {
                self.times = Some(times.clone());
                draft.translated(id);
            }
            Command::Synchronise => draft.no_equal(
                id,
                At::Top,
                "load balancers of Convey with one configuration and one hash_seed choose alike in packet modes; what is remembered of \
                 connections is each one's own",
            ),
            Command::Look => draft.translated(id),
        }
    }

    fn of(&mut self, options: &Options) -> Option<&mut Service> {
        let index = *self.known.get(&known(&options.target.as_ref()?.value))?;
        self.services.get_mut(index)?.as_mut()
    }

    fn service(&mut self, options: Options, draft: &mut Draft) {
        let id = options.id;
        let Some(target) = options.target else {
            draft.no_equal(id, At::Top, "it names no service: -t, -u or -f is missing");
            return;
        };
        let (listen, is_udp) = match listen(&target.value) {
            Ok(listen) => listen,
            Err(why) => {
                target.no_equal(draft, At::Top, why);
                return;
            }
        };
        let netmask = options.netmask.and_then(|said| match prefix(&said.value) {
            Some(bits) => Some(Said {
                id: said.id,
                words: said.words,
                value: bits,
            }),
            None => {
                said.no_equal(draft, At::Top, "this is not a mask of leading bits");
                None
            }
        });
        let engine = options.engine;
        let persistence = options.persistent.map(|said| {
            let value = said.value.unwrap_or(PERSISTENT);
            Persistence {
                seconds: Said {
                    id: said.id,
                    words: said.words,
                    value,
                },
                prefix: netmask,
                engine,
            }
        });
        let service = Service {
            id,
            name: name(&listen, is_udp),
            listen: vec![listen],
            is_udp,
            scheduler: options.scheduler,
            flags: options.flags,
            persistence,
            one_packet: options.one_packet,
            method: None,
            idle_tcp: None,
            idle_fin: None,
            idle_udp: None,
            servers: Vec::new(),
            is_checked: false,
            sorry: None,
        };
        let key = known(&target.value);
        let index = self.known.get(&key).copied();
        match index.and_then(|index| self.services.get_mut(index)) {
            Some(old) => {
                let servers = old.take().map(|old| {
                    draft.translated(old.id);
                    old.servers
                });
                *old = Some(Service {
                    servers: servers.unwrap_or_default(),
                    ..service
                });
            }
            None => {
                self.known.insert(key, self.services.len());
                self.services.push(Some(service));
            }
        }
    }

    fn server(&mut self, options: Options, draft: &mut Draft) {
        let id = options.id;
        let Some(service) = self.of(&options) else {
            draft.no_equal(
                id,
                At::Top,
                "its service is none of those above that are translated",
            );
            return;
        };
        let service_port = port_of(service);
        let read = options.server.as_ref().and_then(|server| address(&server.value));
        let place = read.and_then(|(ip, port)| Some((ip, port.or(service_port)?)));
        let Some((ip, port)) = place else {
            draft.no_equal(
                id,
                At::Top,
                "-r names no address that can be read: `ipvsadm -Sn` prints addresses and ports as numbers",
            );
            return;
        };
        let part = |words: &str| words.to_owned();
        let method = options.method.unwrap_or(Said {
            id,
            words: part("-g"),
            value: Method::Route,
        });
        let weight = options.weight.unwrap_or(Said {
            id,
            words: part("-w 1"),
            value: 1,
        });
        for tunnel in &options.tunnel {
            tunnel.no_equal(draft, At::Top, "packets are not put into others");
        }
        let limit = |said: Option<Said<u64>>| said.filter(|said| said.value > 0);
        let server = RealServer {
            id,
            ip,
            port,
            method,
            weight,
            upper: limit(options.upper),
            lower: limit(options.lower),
            check_addr: None,
        };
        let is_full = service.servers.len() >= super::MAX_MADE;
        let mut known = service.servers.iter_mut();
        match known.find(|known| known.ip == ip && known.port == port) {
            Some(old) => {
                draft.translated(old.id);
                *old = server;
            }
            None if is_full => {
                draft.no_equal(
                    id,
                    At::Top,
                    "a service of more than 4096 servers is not taken over",
                );
            }
            None => service.servers.push(server),
        }
    }

    fn finish(self, draft: &mut Draft) {
        let [tcp, fin, udp] = match self.times {
            // 0 leaves a time as it is
            Some(times) => times.map(|said| (said.value > 0).then_some(said)),
            None => [None, None, None],
        };
        let mut all = Vec::new();
        for mut service in self.services.into_iter().flatten() {
            service.idle_tcp.clone_from(&tcp);
            service.idle_fin.clone_from(&fin);
            service.idle_udp.clone_from(&udp);
            for placed in lvs::translate(&service, draft) {
                draft.comment(
                    At::In(placed.backend),
                    "IPVS checks no server. If something else does and changes its table, let Convey do that: without this line it \
                     connects to each every 2 s; health_check.kind has other ways.",
                );
                draft.set(placed.backend, &["health_check", "enabled"], false);
                all.push(placed);
            }
        }
        lvs::about_proxied(&all, draft);
    }
}

/// A service, however its address and port are written.
fn known(target: &Target) -> Target {
    match target {
        Target::Address(protocol, text) => match address(text) {
            Some((ip, port)) => Target::Address(*protocol, joined(&ip.to_string(), port.unwrap_or(0))),
            None => target.clone(),
        },
        Target::Mark(_) => target.clone(),
    }
}

/// A service that a later command removed.
fn gone(service: &Service, draft: &mut Draft) {
    draft.translated(service.id);
    for server in &service.servers {
        draft.translated(server.id);
    }
}

/// What a frontend is called that nobody has given a name.
pub fn name(listen: &str, is_udp: bool) -> String {
    match is_udp {
        true => format!("{listen}-udp"),
        false => listen.to_owned(),
    }
}

/// `listen_addr` of a service, and whether it is UDP.
fn listen(target: &Target) -> Result<(String, bool), &'static str> {
    let Target::Address(protocol, text) = target else {
        return Err(
            "a firewall mark is no address: which packets have it, rules of iptables or nft say. Write the addresses and ports that they \
             name as listen_addr of a frontend, a list if there are several",
        );
    };
    let is_udp = match protocol {
        Protocol::Tcp => false,
        Protocol::Udp => true,
        Protocol::Sctp => return Err("Convey balances TCP and UDP, not SCTP"),
    };
    let (ip, port) = address(text)
        .ok_or("the address cannot be read: `ipvsadm -Sn` prints addresses and ports as numbers")?;
    match port {
        Some(port) if port > 0 => Ok((joined(&ip.to_string(), port), is_udp)),
        _ => Err(
            "a service on every port has no equal: name the ports that clients use, such as listen_addr = \"192.0.2.1:8000-8010\"; in \
             packet modes a client has one server for a whole range",
        ),
    }
}

/// An address, and a port if there is one.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let place = HostPort::parse(text, false);
    let ip = place.ip()?;
    match &place.port {
        None => Some((ip, None)),
        Some(port) => Some((ip, Some(port_names::port(port)?))),
    }
}

fn port_of(service: &Service) -> Option<u16> {
    let port = service.listen.first()?.rsplit(':').next()?;
    port.parse().ok()
}

/// The leading bits of a mask: `255.255.255.0`, or a number.
pub fn prefix(mask: &str) -> Option<u8> {
    if let Ok(mask) = mask.parse::<std::net::Ipv4Addr>() {
        let bits = mask.to_bits();
        let ones = bits.leading_ones();
        return (bits.count_ones() == ones).then_some(ones as u8);
    }
    mask.trim_start_matches('/')
        .parse()
        .ok()
        .filter(|bits| *bits <= 128)
}

/// A part of a directive.
fn said<T>(id: DirectiveId, words: &str, value: T) -> Said<T> {
    Said {
        id,
        words: words.to_owned(),
        value,
    }
}

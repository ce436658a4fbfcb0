//! Any messages from a daemon that somebody has taken over, to the broker's own loop.
//!
//! A line of the input is a message, as it is; what follows a tab in it comes with it in a sealed memfd each. `=0`, `=1`
//! and `=2` put another configuration file in place, and `!` makes the firewall fail, or work again. The configurations
//! name addresses for documentation only, which no host has: nothing is listened on.
//!
//! The broker must end at the first message that no daemon sends, and answer every other one. What it grants is held to
//! a policy of this file's own, made of the configurations by another way.

#![no_main]

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Shutdown, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    rc::Rc,
    sync::LazyLock,
};

use convey::{
    base::{Endpoint, EndpointRange, PortRanges, IpServerAddr},
    config::{self, Config, Diagnostic, Frontend, Loaded, Mode, Options, PacketService, Source},
    privilege::{
        KernelOps, ListenerRef, Served, What,
        fuzzing::{Broker, Outcome, Reply, Request, Verb, decode, encode},
    },
    sys::{
        fdpass,
        interfaces::{self, Routes},
        memfd,
    },
};
use libfuzzer_sys::fuzz_target;

const CONFIGURATIONS: [&str; 3] = [
    r#"
    [packet]
    nat_ports = "50000-50100"
    [stats]
    port = 7000
    listen_addr = "192.0.2.9"
    [frontends.web]
    listen_addr = ["192.0.2.1:80", "[2001:db8::1]:80"]
    backend = "pool"
    [frontends.nat]
    listen_addr = "192.0.2.2:80"
    mode = "passthrough"
    interface = "eth0"
    backend = "pool"
    [frontends.dns]
    listen_addr = ["192.0.2.3:53", "[2001:db8::3]:53"]
    mode = "dsr"
    protocol = "udp"
    backend = "names"
    [backends.pool]
    servers.a = { addr = "198.51.100.1:80" }
    servers.b = { addr = "198.51.100.2:80" }
    [backends.names]
    dsr_method = "nft"
    servers.a = { addr = "198.51.100.3:53" }
    servers.b = { addr = "[2001:db8:2::3]:53" }
    "#,
    r#"
    [packet]
    nat_ports = "40000-40100"
    [frontends.web]
    listen_addr = "192.0.2.1:81"
    backend = "pool"
    [frontends.nat]
    listen_addr = "192.0.2.2:80"
    mode = "passthrough"
    backend = "pool"
    [backends.pool]
    servers.a = { addr = "198.51.100.1:80" }
    "#,
    "this is no configuration",
];

/// What the broker may grant.
struct Permitted {
    config: Config,
    /// What the firewall was last made to be, and before.
    in_effect: Vec<PacketService>,
    before: Vec<PacketService>,
    /// Interfaces that frontends of `in_effect` named.
    named: BTreeSet<String>,
    /// The interface of the request at hand.
    asked: Option<String>,
    firewall_fails: bool,
}

/// One thing that may be granted: a VIP in a mode, or a server of it.
type Grant = (EndpointRange, Option<PortRanges>, Option<IpServerAddr>);

fn grants(services: &[PacketService]) -> BTreeSet<Grant> {
    let mut all = BTreeSet::new();
    for PacketService {
        vip,
        nat_ports,
        servers,
    } in services
    {
        all.insert((*vip, *nat_ports, None));
        all.extend(servers.iter().map(|server| (*vip, *nat_ports, Some(*server))));
    }
    all
}

impl Permitted {
    fn packet_frontends(&self) -> impl Iterator<Item = &Frontend> {
        let frontends = self.config.frontends.values();
        frontends
            .map(AsRef::as_ref)
            .filter(|frontend: &&Frontend| frontend.mode != Mode::Proxy)
    }

    fn configured(&self) -> BTreeSet<Grant> {
        let mut all = BTreeSet::new();
        for frontend in self.packet_frontends() {
            let nat_ports = match frontend.mode {
                Mode::Passthrough => Some(self.config.packet.nat_ports),
                Mode::Proxy | Mode::Dsr => None,
            };
            for vip in frontend.ranges() {
                all.insert((vip, nat_ports, None));
                for server in self.config.backends[&frontend.backend].servers.values() {
                    if server.addr.0.is_ipv4() == vip.is_ipv4() {
                        all.insert((vip, nat_ports, Some(server.addr)));
                    }
                }
            }
        }
        all
    }

    fn allows_services(&self, services: &[PacketService]) -> bool {
        let mut all = self.configured();
        all.extend(grants(&self.in_effect));
        all.extend(grants(&self.before));
        grants(services).is_subset(&all)
    }

    fn allows_listener(&self, listener: &ListenerRef) -> Option<Endpoint> {
        match listener {
            ListenerRef::Stats => self
                .config
                .stats
                .as_ref()
                .map(|stats| Endpoint::tcp(stats.listen.0)),
            ListenerRef::Frontend { name, endpoint } => {
                let mut frontends = self.config.frontends.values();
                let frontend = frontends.find(|frontend| frontend.name.as_str() == name)?;
                let is_one = frontend.mode == Mode::Proxy
                    && endpoint.protocol == frontend.protocol
                    && frontend.range_of(endpoint.addr).is_some();
                is_one.then_some(*endpoint)
            }
        }
    }

    fn named_now(&self) -> BTreeSet<String> {
        self.packet_frontends()
            .filter_map(|frontend| frontend.interface.clone())
            .collect()
    }

    /// Whether packets may come in by an interface, as far as this file knows of this host.
    fn allows_interface(&self, name: &str) -> bool {
        if self.named.contains(name) || self.named_now().contains(name) {
            return true;
        }
        let all = interfaces::list().expect("the host's interfaces");
        let Some(interface) = all.get(name) else {
            return false;
        };
        let mut wanted = self.configured();
        wanted.extend(grants(&self.in_effect));
        let has_vip = |ip: IpAddr| interface.addresses.contains(&ip);
        let routes = Routes::new().expect("the host's routes");
        !interface.is_loopback
            && wanted.iter().any(|(vip, nat_ports, server)| {
                let reaches = |server: IpServerAddr| routes.egress(server.0) == Some(interface.index);
                has_vip(vip.ip()) || nat_ports.is_some() && server.is_some_and(reaches)
            })
    }

    fn serve(&mut self, services: Vec<PacketService>) {
        let mut named = self.named_now();
        if !grants(&services).is_subset(&self.configured()) {
            named.append(&mut self.named);
        }
        self.named = named;
        if services != self.in_effect {
            self.before = std::mem::replace(&mut self.in_effect, services);
        }
    }
}

/// What would change the kernel: asks whether it may.
struct Kernel(Rc<RefCell<Permitted>>);

impl KernelOps for Kernel {
    fn open_packet_socket(
        &mut self,
        ifindex: u32,
        _: u16,
        services: &[PacketService],
    ) -> io::Result<OwnedFd> {
        let permitted = self.0.borrow();
        let name = permitted
            .asked
            .as_ref()
            .expect("nobody asked for a packet socket");
        assert!(permitted.allows_interface(name), "a packet socket on {name:?}");
        let index = interfaces::list()?.get(name).map(|interface| interface.index);
        assert_eq!(
            index,
            Some(ifindex),
            "a packet socket on another interface than {name:?}"
        );
        assert_eq!(
            services, permitted.in_effect,
            "a filter for what is not in effect"
        );
        memfd::sealed(b"a packet socket")
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
        assert!(
            self.0.borrow().allows_services(services),
            "a filter for {services:?}"
        );
        Ok(())
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        let permitted = self.0.borrow();
        assert!(permitted.allows_services(services), "rules for {services:?}");
        if permitted.firewall_fails {
            return Err("the firewall does not work".to_owned());
        }
        Ok(Served::default())
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        panic!("the rules outlive the messages");
    }
}

/// A file that only this process can find.
struct ConfigFile(File);

impl ConfigFile {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("convey-fuzz-{}.toml", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(path)?;
        Ok(Self(file))
    }

    fn write(&self, text: &str) {
        self.0.set_len(0).expect("an empty file");
        self.0.write_all_at(text.as_bytes(), 0).expect("a written file");
    }
}

thread_local! {
    static FILE: ConfigFile = ConfigFile::new().expect("a temporary file");
}

/// The configurations as they are parsed, once: how, is another target's concern.
static PARSED: LazyLock<[Result<Loaded, Vec<Diagnostic>>; 3]> = LazyLock::new(|| {
    CONFIGURATIONS.map(|text| {
        let source = Source {
            name: "convey.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default())
    })
});

/// The broker's parser.
fn parse(source: &Source, _: Options) -> Result<Loaded, Vec<Diagnostic>> {
    let number = CONFIGURATIONS
        .iter()
        .position(|text| text.as_bytes() == source.bytes);
    PARSED[number.expect("the broker reads what the file has")].clone()
}

fn load(number: usize) -> Option<Config> {
    PARSED[number].as_ref().ok().map(|loaded| loaded.config.clone())
}

fuzz_target!(init: LazyLock::force(&PARSED), |input: &[u8]| FILE.with(|file| play(file, input)));

fn play(file: &ConfigFile, input: &[u8]) {
    let mut written = 0;
    file.write(CONFIGURATIONS[written]);
    let config = load(written).expect("the first configuration is valid");
    let permitted = Rc::new(RefCell::new(Permitted {
        config: config.clone(),
        in_effect: Vec::new(),
        before: Vec::new(),
        named: BTreeSet::new(),
        asked: None,
        firewall_fails: false,
    }));
    let path = format!("/proc/self/fd/{}", file.0.as_raw_fd()).into();
    let mut broker = Broker::new(path, config, parse, Box::new(Kernel(Rc::clone(&permitted))));
    for line in input.split(|byte| *byte == b'\n').take(64) {
        match line {
            [] => {}
            [b'=', number @ b'0'..=b'2'] => {
                written = usize::from(number - b'0');
                file.write(CONFIGURATIONS[written]);
            }
            b"!" => permitted.borrow_mut().firewall_fails ^= true,
            line => {
                if !send(&mut broker, &permitted, written, line) {
                    return;
                }
            }
        }
    }
}

/// Sends a message and checks what comes of it. Gives whether the broker goes on.
fn send(broker: &mut Broker, permitted: &RefCell<Permitted>, written: usize, line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b'\t');
    let message = parts.next().unwrap_or_default();
    let files: Vec<&[u8]> = parts.take(4).collect();
    if message.is_empty() || message.len() > fdpass::MAX_MESSAGE_BYTES {
        return true;
    }
    let request = request(message, &files);
    if let Some((Request { verb, .. }, _)) = &request {
        permitted.borrow_mut().asked = match verb {
            Verb::PacketSocket(name) => Some(name.clone()),
            _ => None,
        };
    }
    let (ours, theirs) = fdpass::pair().expect("a socketpair");
    let memfds: Vec<OwnedFd> = (files.iter())
        .map(|bytes| memfd::sealed(bytes).expect("a memfd"))
        .collect();
    let borrowed: Vec<_> = memfds.iter().map(AsFd::as_fd).collect();
    fdpass::send(ours.as_fd(), message, &borrowed).expect("a sent message");
    // a socket is a socket: std's type has the call for it
    let ours = UnixStream::from(ours);
    ours.shutdown(Shutdown::Write).expect("an end of the messages");
    let status = broker.answer_all(theirs.as_fd());
    drop(theirs);
    let Some((request, services)) = request else {
        assert_eq!(status, 70, "went on after {}", message.escape_ascii());
        assert!(
            fdpass::receive(ours.as_fd()).is_err(),
            "answered {}",
            message.escape_ascii()
        );
        return false;
    };
    assert_eq!(status, 0, "ended by {request:?}");
    let (reply, fds) = fdpass::receive(ours.as_fd()).expect("a reply");
    let reply: Reply = decode(&reply).expect("a reply in its form");
    assert_eq!(
        (reply.number, fds.len()),
        (request.number, reply.outcome.descriptors())
    );
    check(
        &mut permitted.borrow_mut(),
        written,
        &request.verb,
        services,
        &reply.outcome,
        fds,
    );
    assert!(
        fdpass::receive(ours.as_fd()).is_err(),
        "two replies to {request:?}"
    );
    true
}

/// The request that a message is, with the services that come with it; `None` if no daemon sends it.
fn request(message: &[u8], files: &[&[u8]]) -> Option<(Request, Vec<PacketService>)> {
    let request: Request = decode(message).ok()?;
    let again = encode(&request).expect("a message that fits");
    assert_eq!(decode::<Request>(&again).expect("a message"), request);
    let services = match (&request.verb, files) {
        (Verb::Serve, [bytes]) => decode(bytes).ok()?,
        (Verb::Serve, _) => return None,
        (_, []) => Vec::new(),
        (_, _) => return None,
    };
    (request.number != 0).then_some((request, services))
}

fn check(
    permitted: &mut Permitted,
    written: usize,
    verb: &Verb,
    services: Vec<PacketService>,
    outcome: &Outcome,
    fds: Vec<OwnedFd>,
) {
    let is_refused = matches!(outcome, Outcome::Refused { .. });
    match verb {
        Verb::Bind(listener) => {
            let endpoint = permitted.allows_listener(listener);
            assert_eq!(is_refused, endpoint.is_none(), "{listener:?}: {outcome:?}");
            for listening in fds {
                let bound = TcpListener::from(listening).local_addr().expect("a listener");
                assert_eq!(Some(Endpoint::tcp(bound)), endpoint);
            }
        }
        Verb::Read(What::Config) => {
            assert!(matches!(outcome, Outcome::Contents { .. }));
            for copy in fds {
                let bytes = memfd::read_sealed(copy, config::MAX_CONFIG_BYTES).expect("a sealed memfd");
                assert_eq!(bytes, CONFIGURATIONS[written].as_bytes());
            }
            if let Some(config) = load(written) {
                permitted.config = config;
            }
        }
        // none of the configurations names one
        Verb::Read(What::NetworkList(_)) => assert!(matches!(outcome, Outcome::Refused { .. })),
        // what may be opened has been asked where it is opened
        Verb::PacketSocket(name) => {
            let is_there = interfaces::list().is_ok_and(|all| all.contains_key(name));
            assert!(
                !is_refused || !is_there || !permitted.allows_interface(name),
                "{name}: {outcome:?}"
            );
        }
        Verb::ReleasePacketSockets(_) => assert_eq!(*outcome, Outcome::Done),
        Verb::Serve => {
            assert_eq!(
                is_refused,
                !permitted.allows_services(&services),
                "{services:?}: {outcome:?}"
            );
            match outcome {
                Outcome::Served(_) => {
                    assert!(!permitted.firewall_fails);
                    permitted.serve(services);
                }
                Outcome::Unable { .. } => assert!(permitted.firewall_fails),
                _ => assert!(is_refused, "{outcome:?}"),
            }
        }
    }
}

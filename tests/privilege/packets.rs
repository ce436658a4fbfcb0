//! The verbs of the packet modes, with a fake executor that writes down what it is asked to do.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use convey::{
    base::{Endpoint, IpServerAddr},
    config::{Options, PacketService},
    privilege::{BrokerError, Channel, KernelOps, Sandbox, Served, Target, What, drop_privileges},
    sys::fdpass,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::config::{self, parse, services, source};
use crate::scenario::{dir, nobody, nowhere};

/// A frontend of each mode; `va` has the first VIP, by `vb` its server is reached, `vd` is named by the second.
const TEXT: &str = "web 10.9.0.1:80 passthrough - 10.9.1.2:80\ndns 10.9.3.1:53 dsr vd 10.9.3.2:53";

/// Writes a line for each call into `log` in its directory; fails while `fail_apply` or `fail_refilter` exists there.
pub struct Fake(PathBuf);

impl Fake {
    pub fn boxed(directory: &Path) -> Box<dyn KernelOps> {
        // the broker writes it as nobody
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
        Box::new(Self(directory.to_owned()))
    }

    fn note(&self, line: &str, services: &[PacketService]) {
        let vips: Vec<_> = services
            .iter()
            .map(|service| service.vip.listen.to_string())
            .collect();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.0.join("log"));
        writeln!(
            log.unwrap(),
            "{}",
            format!("{line} {}", vips.join(" ")).trim_end()
        )
        .unwrap();
    }

    fn fails(&self, what: &str) -> bool {
        self.0.join(what).exists()
    }
}

impl KernelOps for Fake {
    fn open_packet_socket(
        &mut self,
        ifindex: u32,
        group: u16,
        services: &[PacketService],
    ) -> io::Result<OwnedFd> {
        self.note(&format!("open {ifindex} {group}"), services);
        // not bound; that it can be made at all needs CAP_NET_RAW
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
        self.note("refilter", services);
        if self.fails("fail_refilter") {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(())
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        self.note("apply", services);
        if self.fails("fail_apply") && services.len() == 1 {
            return Err("iptables is not installed: apt install iptables".into());
        }
        Ok(Served::default())
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        self.note("clear", &[]);
        Ok(())
    }
}

/// Makes and removes a chain with the real program.
struct Iptables;

impl Iptables {
    fn run(arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("/usr/sbin/iptables")
            .args(arguments)
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl KernelOps for Iptables {
    fn open_packet_socket(&mut self, _: u32, _: u16, _: &[PacketService]) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, _: &[PacketService]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        if services.is_empty() {
            return Self::run(&["-t", "raw", "-X", "CONVEY_TEST"]).map(|_| Served::default());
        }
        Self::run(&["-t", "raw", "-N", "CONVEY_TEST"])?;
        let rules = Self::run(&["-t", "raw", "-S"])?;
        if rules.contains("-N CONVEY_TEST") {
            Ok(Served::default())
        } else {
            Err(format!("no chain in {rules}"))
        }
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A shell of root's, for what the daemon cannot do any more.
pub struct RootShell {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl RootShell {
    pub fn start() -> Self {
        let mut child = Command::new("sh")
            .args([
                "-e",
                "-c",
                "while read -r line; do eval \"$line\"; echo done; done",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            _child: child,
        }
    }

    pub fn run(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{line}");
    }
}

/// A network namespace with three interfaces, the broker with a fake executor, the dropped daemon.
struct Stage {
    broker: Channel,
    root: RootShell,
    dir: PathBuf,
}

impl Stage {
    fn new(path: &Path) -> Self {
        let root = own_network();
        let dir = dir();
        let broker = fork(path, TEXT, Some(&nobody()), Fake::boxed(&dir));
        let files = Sandbox {
            writable: vec![dir.clone()],
            ..Sandbox::default()
        };
        drop_privileges(Some(&nobody()), &files).unwrap();
        Self { broker, root, dir }
    }

    /// What the executor was asked since the last time.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        fs::write(self.dir.join("log"), "").unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

pub fn own_network() -> RootShell {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut root = RootShell::start();
    for (name, peer, addr) in [
        ("va", "pa", "10.9.0.1"),
        ("vb", "pb", "10.9.1.1"),
        ("vc", "pc", "10.9.2.1"),
        ("vd", "pd", "10.9.4.1"),
    ] {
        root.run(&format!("ip link add {name} type veth peer name {peer}"));
        root.run(&format!("ip address add {addr}/24 dev {name}"));
        root.run(&format!("ip link set {name} up; ip link set {peer} up"));
    }
    root
}

fn fork(path: &Path, text: &str, target: Option<&Target>, executor: Box<dyn KernelOps>) -> Channel {
    parse(&source(text), Options::default()).unwrap();
    config::fork(path, text, target, executor).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> String {
    match result {
        Err(BrokerError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn interfaces() {
    let mut stage = Stage::new(&nowhere());
    let broker = &stage.broker;
    let why = "an interface that has a VIP, by which a server is reached, and that is named";
    let sockets = ["va", "vb", "vd", "va"].map(|name| broker.packet_socket(name).expect(why));
    for (name, expected) in [
        (
            "vc",
            "no frontend in a packet mode needs a packet socket on \"vc\"",
        ),
        ("lo", "\"lo\", a loopback interface"),
        ("eth\n9", "interface \"eth\\n9\" does not exist"),
    ] {
        let why = refused(broker.packet_socket(name));
        assert!(why.contains(expected), "{why}");
    }
    let groups = |log: Vec<String>| -> Vec<String> {
        log.iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect()
    };
    let opened = groups(stage.log());
    assert_eq!(opened.len(), 4, "refused ones did not reach the executor");
    assert_eq!(opened[0], opened[3], "the sockets of an interface share a group");
    assert!(opened[0] != opened[1] && opened[1] != opened[2] && opened[0] != opened[2]);

    drop(sockets);
    broker.release_packet_sockets("va").unwrap();
    broker.packet_socket("va").unwrap();
    assert!(
        !opened.contains(&groups(stage.log())[0]),
        "after a release a new group begins"
    );

    // interfaces that are gone: their sockets are not filtered any more
    stage.root.run("ip link del va; ip link del vd");
    broker.serve(&services(TEXT)).unwrap();
    assert_eq!(
        stage.log(),
        [
            "apply 10.9.0.1:80 10.9.3.1:53",
            "refilter 10.9.0.1:80 10.9.3.1:53"
        ]
    );
    assert!(refused(broker.packet_socket("va")).contains("does not exist"));
    let gone = broker.packet_socket("vd").unwrap_err().to_string();
    assert!(gone.starts_with("find interface vd: No such device"), "{gone}");
}

pub fn serving() {
    let stage = Stage::new(&nowhere());
    let broker = &stage.broker;
    let all = services(TEXT);
    broker.packet_socket("va").unwrap();
    assert!(stage.log()[0].starts_with("open "));
    broker.serve(&all).unwrap();
    let (vips, one_vip) = ("10.9.0.1:80 10.9.3.1:53", "10.9.0.1:80");
    assert_eq!(
        stage.log(),
        [format!("apply {vips}"), format!("refilter {vips}")],
        "rules first"
    );
    broker.packet_socket("va").unwrap();
    let log = stage.log();
    assert!(
        log[0].starts_with("open ") && log[0].ends_with(vips),
        "a new socket gets the services in effect: {log:?}"
    );

    fs::write(stage.dir.join("fail_apply"), "").unwrap();
    let unable = broker.serve(&all[..1]);
    assert!(
        matches!(&unable, Err(BrokerError::Unable(why)) if why == "iptables is not installed: apt install iptables"),
        "{unable:?}"
    );
    let refilter = format!("refilter {vips}");
    assert_eq!(
        stage.log(),
        [
            format!("apply {one_vip}"),
            format!("apply {vips}"),
            refilter.clone(),
            refilter
        ],
        "the previous is restored"
    );
    fs::remove_file(stage.dir.join("fail_apply")).unwrap();
    broker.serve(&[]).unwrap();
    assert_eq!(stage.log(), ["apply", "refilter", "refilter"]);
}

pub fn aliens() {
    let path = dir().join("test.conf");
    fs::write(&path, TEXT).unwrap();
    let mut stage = Stage::new(&path);
    let broker = &stage.broker;
    let all = services(TEXT);
    let change = |change: fn(&mut PacketService)| {
        let mut services = all.clone();
        change(&mut services[0]);
        services
    };
    for (services, named) in [
        (
            change(|s| s.vip = Endpoint::tcp(([10, 9, 0, 1], 22).into()).into()),
            "10.9.0.1:22 (tcp)",
        ),
        (
            change(|s| s.servers.push(IpServerAddr::new(([8, 8, 8, 8], 53).into()))),
            "8.8.8.8:53",
        ),
        (change(|s| s.nat_ports = None), "in DSR"),
        (
            change(|s| s.vip.protocol = convey::base::Protocol::Udp),
            "10.9.0.1:80 (udp)",
        ),
    ] {
        let why = refused(broker.serve(&services));
        assert!(why.contains(named), "{why}");
    }
    assert!(stage.log().is_empty(), "nothing reached the executor");

    // what was in effect may go on, and be gone back to, but not come back later
    broker.serve(&all).unwrap();
    stage
        .root
        .run(&format!("echo 'other 10.9.9.1:80' > {}", path.display()));
    broker.read(What::Config).unwrap();
    broker.packet_socket("vd").expect("its flows live on");
    broker.serve(&all[..1]).unwrap();
    broker.serve(&all).unwrap();
    broker.serve(&[]).unwrap();
    broker.serve(&all[..1]).unwrap();
    broker.serve(&[]).unwrap();
    refused(broker.serve(&all));
    refused(broker.packet_socket("vc"));
}

/// Thousands of servers do not fit into a message; too many for all measures are refused before they are sent.
pub fn many() {
    let stage = Stage::new(&nowhere());
    let mut services = services(TEXT);
    services[0].servers = vec![services[0].servers[0]; 20_000];
    stage.broker.serve(&services).unwrap();
    services[0].servers = vec![services[0].servers[0]; 2_000_000];
    assert!(refused(stage.broker.serve(&services)).contains("too many"));
    stage.broker.serve(&[]).unwrap();
}

/// Each of these ends a broker.
pub fn malformed() {
    let unsealed = tempfile::tempfile().unwrap();
    let sealed = |text: &str| convey::sys::memfd::sealed(text.as_bytes()).unwrap();
    let serve: &[u8] = br#"{"number":1,"verb":"serve"}"#;
    let cases: [(&str, &[u8], Vec<OwnedFd>); 6] = [
        ("no services", serve, vec![]),
        ("services that may change", serve, vec![unsealed.into()]),
        ("two lists", serve, vec![sealed("[]"), sealed("[]")]),
        ("another form", serve, vec![sealed(r#"[{"vip":"10.9.0.1:80"}]"#)]),
        ("trailing bytes", serve, vec![sealed("[] []")]),
        (
            "a descriptor that no verb asks for",
            br#"{"number":1,"verb":{"packet_socket":"va"}}"#,
            vec![sealed("[]")],
        ),
    ];
    let dir = dir();
    let brokers: Vec<_> = cases
        .iter()
        .map(|_| fork(&nowhere(), TEXT, Some(&nobody()), Fake::boxed(&dir)))
        .collect();
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    for (broker, (name, message, fds)) in brokers.iter().zip(&cases) {
        let channel = broker.news_fd().unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        fdpass::send(channel.as_fd(), message, &fds).unwrap();
        assert!(
            matches!(fdpass::receive(channel.as_fd()), Err(fdpass::RecvError::Closed)),
            "{name}"
        );
    }
}

/// As the daemon starts as root.
pub fn iptables() {
    let _root = own_network();
    let broker = fork(&nowhere(), TEXT, Some(&nobody()), Box::new(Iptables));
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    real_rules(&broker);
}

/// As the packaged unit starts, where the caller has become `nobody` with ambient capabilities.
pub fn iptables_of_the_packaged_unit() {
    let _root = own_network();
    crate::scenario::become_the_packaged_unit();
    let broker = fork(&nowhere(), TEXT, None, Box::new(Iptables));
    drop_privileges(None, &Sandbox::default()).unwrap();
    real_rules(&broker);
}

fn real_rules(broker: &Channel) {
    broker.serve(&services(TEXT)).unwrap();
    broker.serve(&[]).unwrap();
}

/// Has services in effect, says the broker's process id and waits.
pub fn idle() {
    let broker = fork(&nowhere(), TEXT, Some(&nobody()), Fake::boxed(&dir()));
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    broker.serve(&services(TEXT)).unwrap();
    println!("{}", broker.pid());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

//! What a copy of the test program does in place of the daemon. A panic is a failed test.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use caps::Capability;
use convey::{
    base::Endpoint,
    privilege::{
        BrokerError, Channel, DropError, ForkError, ListenerRef, NoPacketModes, Proof, Sandbox, Target, What,
        prove, resolve_target,
    },
    sys::{capability, fdpass, ids, process, task_status},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{self, LOW_PORT, NOBODY};
use crate::packets::RootShell;
use crate::{
    DIRECTORY, LENT_CAPABILITIES, NET_CAPABILITIES, containers, packets, runner, sandbox, takeover,
    transparent, xdp,
};

/// Runs one scenario. Each has a loopback address of its own: they run at the same time.
pub fn run(name: &str) {
    match name {
        "ordinary_user" => ordinary_user(),
        "threads" => threads(),
        "privileged_port" => privileged_port(),
        "packaged_unit" => packaged_unit(),
        "unlisted" => unlisted(),
        "taken" => taken(),
        "reload" => reload(),
        "fifo" => fifo(),
        "malformed" => malformed(),
        "lingering_services" => lingering(br#"{"number":1,"verb":"serve"}"#),
        "lingering_beside" => lingering(br#"{"number":1,"verb":{"read":"config"}}"#),
        "lingering_junk" => lingering(b"junk"),
        "handed_on" => handed_on(),
        "no_target" => no_target(),
        "still_root" => still_root(),
        "descriptors" => descriptors(),
        "threads_later" => threads_later(),
        "idle" => idle(),
        "no_capability_to_switch" => containers::no_capability_to_switch(),
        "nothing_to_give_up" => containers::nothing_to_give_up(),
        "alone_in_a_namespace" => containers::alone_in_a_namespace(),
        "interfaces" => packets::interfaces(),
        "serving" => packets::serving(),
        "aliens" => packets::aliens(),
        "many" => packets::many(),
        "malformed_services" => packets::malformed(),
        "iptables" => packets::iptables(),
        "iptables_unit" => packets::iptables_of_the_packaged_unit(),
        "transparent_refused" => transparent::refused(),
        "transparent_supplied" => transparent::supplied(),
        "marked" => transparent::marked(),
        "transparent_without_room" => transparent::without_room(),
        "serving_idle" => packets::idle(),
        "runner_named" => runner::only_what_the_file_names(),
        "runner_many" => runner::so_many_at_once(),
        "runner_junk" => runner::junk("junk", false),
        "runner_line" => runner::junk(r#"{"number":1,"verb":{"run":["/bin/sh"]}}"#, true),
        "runner_no_input" => runner::junk(r#"{"number":1,"verb":{"run":7}}"#, false),
        "runner_number" => runner::junk(r#"{"number":0,"verb":{"run":7}}"#, true),
        "runner_descriptor" => runner::junk(r#"{"number":1,"verb":{"is_command":7}}"#, true),
        "xdp_used" => xdp::used_without_a_capability(),
        "xdp_services" => xdp::services_are_the_brokers(),
        "xdp_attached" => xdp::attached_where_packets_are_taken(),
        "xdp_refused" => xdp::refused_with_another_engine(),
        "xdp_unit" => xdp::the_packaged_unit(true),
        "xdp_unit_without_perfmon" => xdp::the_packaged_unit(false),
        "xdp_idle" => xdp::idle(false),
        "xdp_loaded_idle" => xdp::idle(true),
        "xdp_taken_over" => takeover::the_program_goes_on(),
        "xdp_taken_over_idle" => takeover::idle(),
        "xdp_settled" => takeover::what_is_not_attached_again_is_detached(),
        "xdp_left_to_another_engine" => takeover::another_engine(),
        "runner_environment" => runner::environment(),
        "every_call" => sandbox::every_call(),
        "others" => sandbox::others(),
        "sockets" => sandbox::sockets(),
        "options" => sandbox::options(),
        "packet_thread" => sandbox::packet_thread(),
        "panics" => sandbox::panics(),
        "files" => sandbox::files(),
        #[cfg(target_arch = "x86_64")]
        "i386" => sandbox::i386(),
        #[cfg(target_arch = "x86_64")]
        "x32" => sandbox::x32(),
        other => panic!("no scenario {other}"),
    }
}

pub fn nobody() -> Target {
    Target {
        uid: NOBODY,
        gid: NOBODY,
        name: "nobody".into(),
    }
}

/// A directory of root's for this scenario, which the test removes.
pub fn dir() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap().into()
}

pub fn web(addr: &str) -> ListenerRef {
    ListenerRef::Frontend {
        name: "web".into(),
        listener: Endpoint::tcp(addr.parse().unwrap()).into(),
    }
}

pub fn fork(path: &Path, text: &str, target: Option<&Target>) -> Result<Channel, ForkError> {
    config::fork(path, text, target, Box::new(NoPacketModes))
}

pub fn drop_privileges(target: Option<&Target>) -> Result<Proof, DropError> {
    convey::privilege::drop_privileges(target, &Sandbox::default())
}

/// As the daemon starts by hand as root: broker, then drop.
fn start_as_root(path: &Path, text: &str) -> Channel {
    let target = nobody();
    let broker = fork(path, text, Some(&target)).unwrap();
    let proof = drop_privileges(Some(&target)).unwrap();
    assert_eq!((proof.uid, proof.gid, proof.bounding), (NOBODY, NOBODY, 0));
    broker
}

pub fn nowhere() -> PathBuf {
    PathBuf::from("/nonexistent/test.conf")
}

fn listener(fd: OwnedFd) -> TcpListener {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(false).unwrap();
    listener
}

fn privileged_port() {
    let addr = format!("127.0.73.1:{LOW_PORT}");
    let broker = start_as_root(&nowhere(), &format!("web {addr}"));
    let direct = TcpListener::bind(&addr).map_err(|e| e.kind());
    assert_eq!(
        direct.err(),
        Some(io::ErrorKind::PermissionDenied),
        "the daemon could bind by itself"
    );
    // two workers, each with a socket of its own
    let sockets = [(); 2].map(|()| listener(broker.bind(&web(&addr)).unwrap()));
    for _ in 0..16 {
        TcpStream::connect(&addr).unwrap();
    }
    let accepted: usize = sockets
        .iter()
        .map(|socket| {
            socket.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| socket.accept().ok()).count()
        })
        .sum();
    assert_eq!(accepted, 16);
    let socket = socket2::SockRef::from(&sockets[0]);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
}

/// `User=convey`, `AmbientCapabilities=…` of systemd/convey.service, without systemd.
pub fn become_the_packaged_unit() {
    become_a_unit_with(&[
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_SETPCAP,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
    ]);
}

/// As nobody, with these ambient capabilities.
pub fn become_a_unit_with(unit: &[Capability]) {
    process::set_keep_capabilities(true).unwrap();
    ids::set_groups(&[]).unwrap();
    ids::set_gid(NOBODY).unwrap();
    ids::set_uid(NOBODY).unwrap();
    process::set_keep_capabilities(false).unwrap();
    let held = capability::keep_only(unit, &[]).unwrap().held;
    assert_eq!(usize::try_from(held.count_ones()), Ok(unit.len()));
    for cap in unit {
        caps::raise(None, caps::CapSet::Inheritable, *cap).unwrap();
        caps::raise(None, caps::CapSet::Ambient, *cap).unwrap();
    }
}

fn packaged_unit() {
    become_the_packaged_unit();
    assert_eq!(resolve_target(Some("ignored unless root")).unwrap(), None);

    let addr = format!("127.0.73.2:{LOW_PORT}");
    let broker = fork(&nowhere(), &format!("web {addr}"), None).unwrap();
    for task in task_status::read_process(broker.pid()).unwrap() {
        assert_eq!(
            (task.permitted, task.inheritable, task.bounding, task.ambient),
            (NET_CAPABILITIES, LENT_CAPABILITIES, 0, 0),
            "{task:?}"
        );
    }
    let proof = drop_privileges(None).unwrap();
    assert_eq!((proof.uid, proof.bounding), (NOBODY, 0));
    broker.bind(&web(&addr)).unwrap();
}

fn ordinary_user() {
    ids::set_groups(&[]).unwrap();
    ids::set_gid(NOBODY).unwrap();
    ids::set_uid(NOBODY).unwrap();
    let (low, high) = (format!("127.0.73.3:{LOW_PORT}"), "127.0.73.3:18080");
    let broker = fork(&nowhere(), &format!("web {high}\nlow {low}"), None).unwrap();
    let proof = drop_privileges(None).unwrap();
    assert_eq!(proof.uid, NOBODY);
    assert_ne!(proof.bounding, 0, "an ordinary user emptied the bounding set");
    broker.bind(&web(high)).unwrap();
    let denied = broker.bind(&ListenerRef::Frontend {
        name: "low".into(),
        listener: Endpoint::tcp(low.parse().unwrap()).into(),
    });
    let text = denied.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("bind {low}: Permission denied")),
        "{text}"
    );
    assert!(text.contains("CAP_NET_BIND_SERVICE"), "{text}");
}

fn threads() {
    let thread = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    let forked = fork(&nowhere(), "", Some(&nobody()));
    assert!(
        matches!(forked, Err(ForkError::Fork(process::ForkError::Threads(2)))),
        "{forked:?}"
    );
    assert!(matches!(
        drop_privileges(Some(&nobody())),
        Err(DropError::Threads(2))
    ));
    drop(thread);
}

fn unlisted() {
    let addr = format!("127.0.73.4:{LOW_PORT}");
    let broker = start_as_root(&nowhere(), &format!("web {addr}"));
    for other in ["127.0.73.4:82", "0.0.0.0:81", "127.0.73.4:18080"] {
        let refused = broker.bind(&web(other));
        assert!(
            matches!(&refused, Err(BrokerError::Refused(why)) if why.contains(other)),
            "{refused:?}"
        );
    }
    for other in [ListenerRef::Stats, ListenerRef::AdminApi] {
        assert!(matches!(broker.bind(&other), Err(BrokerError::Refused(_))));
    }
    broker
        .bind(&web(&addr))
        .expect("a refusal must not end the broker");
}

fn taken() {
    let addr = "127.0.73.5:18080";
    // another load balancer of the same user, with whom the kernel would share the address
    let other = fork(&nowhere(), &format!("web {addr}"), Some(&nobody())).unwrap();
    let broker = start_as_root(&nowhere(), &format!("web {addr}"));
    let _sockets = [(); 2].map(|()| broker.bind(&web(addr)).unwrap());
    let text = other.bind(&web(addr)).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("bind {addr}: Address already in use")),
        "{text}"
    );
    assert!(text.contains("ss -ltnp"), "{text}");
}

fn reload() {
    let path = dir().join("test.conf");
    let (old, new) = ("127.0.73.6:81", "127.0.73.6:82");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&format!("web {new}"));
    let relative = Path::new("test.conf");
    std::env::set_current_dir(dir()).unwrap();
    let broker = fork(relative, &format!("web {old}"), Some(&nobody())).unwrap();
    std::env::set_current_dir("/").unwrap();
    drop_privileges(Some(&nobody())).unwrap();

    assert_eq!(
        fs::read(&path).map_err(|e| e.kind()),
        Err(io::ErrorKind::PermissionDenied)
    );
    assert!(
        matches!(broker.bind(&web(new)), Err(BrokerError::Refused(_))),
        "bound before it was read"
    );
    let read = broker.read(What::Config).unwrap().source;
    assert_eq!(
        (read.bytes, read.name),
        (format!("web {new}").into_bytes(), "test.conf".to_owned())
    );
    broker.bind(&web(new)).unwrap();
    assert!(
        matches!(broker.bind(&web(old)), Err(BrokerError::Refused(_))),
        "the old policy is still in effect"
    );
}

fn fifo() {
    fs::set_permissions(dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = dir().join("test.conf");
    let addr = "127.0.73.7:81";
    let mut root = RootShell::start();
    let broker = start_as_root(&path, &format!("web {addr}"));
    assert!(
        matches!(broker.read(What::Config), Err(BrokerError::Unreadable(why)) if why.contains("cannot open"))
    );
    let name = path.display();
    root.run(&format!("mkfifo {name}"));
    assert!(matches!(broker.read(What::Config), Err(BrokerError::Unreadable(why)) if why.contains("FIFO")));
    root.run(&format!("rm {name}; echo junk > {name}"));
    assert_eq!(
        broker.read(What::Config).unwrap().source.bytes,
        b"junk\n",
        "invalid bytes come back too"
    );
    broker
        .bind(&web(addr))
        .expect("an invalid file must not change the policy");
}

fn malformed() {
    let broker = start_as_root(&nowhere(), "web 127.0.73.8:81");
    let death = broker.news_fd().unwrap();
    fdpass::send(death.as_fd(), br#"{"number":1,"verb":"give_me_root"}"#, &[]).unwrap();
    assert!(matches!(
        fdpass::receive(death.as_fd()),
        Err(fdpass::RecvError::Closed)
    ));
    assert!(matches!(
        broker.bind(&web("127.0.73.8:81")),
        Err(BrokerError::Lost(_))
    ));
    assert!(matches!(broker.read(What::Config), Err(BrokerError::Lost(_))));
}

/// With a message comes a socket whose last close waits for an hour, as its peer does not read.
fn lingering(message: &[u8]) {
    let mut root = RootShell::start();
    let broker = start_as_root(&nowhere(), "web 127.0.73.12:81");
    let channel = broker.news_fd().unwrap();
    let listener = TcpListener::bind("127.0.73.12:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _peer = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 4_096]).is_ok() {}
    let hour = Some(Duration::from_secs(3_600));
    socket2::SockRef::from(&socket).set_linger(hour).unwrap();
    // ours is closed before the broker has looked at its own
    root.run(&format!("kill -STOP {}", broker.pid()));
    fdpass::send(channel.as_fd(), message, &[socket.as_fd()]).unwrap();
    drop(socket);
    root.run(&format!("kill -CONT {}", broker.pid()));
    let end = fdpass::receive(channel.as_fd());
    assert!(matches!(end, Err(fdpass::RecvError::Closed)), "{end:?}");
}

/// Says the broker's process id and waits, while another process holds the daemon's end of the socketpair too.
fn handed_on() {
    let broker = fork(&nowhere(), "", Some(&nobody())).unwrap();
    // it ends when the broker has
    let mut accomplice = std::process::Command::new("cat")
        .stdin(broker.news_fd().unwrap())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop_privileges(Some(&nobody())).unwrap();
    println!("{}", broker.pid());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    accomplice.wait().unwrap();
}

fn no_target() {
    assert!(matches!(fork(&nowhere(), "", None), Err(ForkError::NoTarget)));
    assert!(matches!(drop_privileges(None), Err(DropError::NoTarget)));
    assert_eq!(
        resolve_target(None).unwrap().map(|target| target.uid == 0),
        Some(false)
    );
    assert!(
        resolve_target(Some("no-such-user"))
            .unwrap_err()
            .to_string()
            .contains("no-such-user")
    );
    assert!(
        resolve_target(Some("root"))
            .unwrap_err()
            .to_string()
            .contains("is root")
    );
}

/// What the proof and the attempts to climb back are worth: they must fail a process that has not dropped.
fn still_root() {
    assert!(matches!(prove(), Err(DropError::Unproven { .. })));
    assert!(capability::try_regain_all());
}

/// A daemon at its limit of descriptors loses the one that it asked for, not the broker.
fn descriptors() {
    let addr = "127.0.73.9:81";
    let broker = start_as_root(&nowhere(), &format!("web {addr}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let failed = broker.bind(&web(addr));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let emfile = io::Error::from_raw_os_error(libc::EMFILE).kind();
    assert!(
        matches!(&failed, Err(BrokerError::Failed { source, .. }) if source.kind() == emfile),
        "{failed:?}"
    );
    broker.bind(&web(addr)).unwrap();
}

fn threads_later() {
    let _broker = start_as_root(&nowhere(), "");
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60))))
        .collect();
    let proof = prove().unwrap();
    assert_eq!((proof.threads, proof.uid), (5, NOBODY));
    for task in task_status::read_self().unwrap() {
        let none = task.permitted | task.effective | task.inheritable | task.ambient | task.bounding;
        assert!(
            none == 0 && task.no_new_privs && task.seccomp == 2 && task.groups.is_empty(),
            "{task:?}"
        );
    }
    drop(threads);
}

/// Says the broker's process id and waits.
fn idle() {
    // something that the broker must not keep
    let _inherited = fs::File::open("/proc/self/status").unwrap();
    let broker = start_as_root(&nowhere(), "");
    println!("{}", broker.pid());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

//! What the dropped daemon cannot do any more: each denied system call is made, each file tried.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    os::unix::fs::PermissionsExt,
    sync::mpsc,
};

use convey::{
    privilege::{BrokerError, ListenerRef, NoPacketModes, Sandbox, drop_privileges, prove, sandbox},
    sys::{calls, task_status},
};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::{
        signal::{Signal, kill, raise},
        socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket, socketpair},
    },
    unistd::Pid,
};
use notify::Watcher;
use socket2::{Domain, Socket};

use crate::PATIENCE;
use crate::attempts;
use crate::packets::RootShell;
use crate::scenario::{dir, nobody, nowhere};

fn dropped() {
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))
}

pub fn every_call() {
    dropped();
    for call in attempts::ATTACKS.iter().chain(attempts::ATTACKS_HERE) {
        assert!(is_denied(attempts::attempt(*call)), "{}", call.name);
    }
    let unknown = |result: io::Result<i64>| result.unwrap_err().raw_os_error() == Some(libc::ENOSYS);
    // what a C library falls back from
    assert!(unknown(attempts::attempt_in_vain(calls::CLONE3)));
    assert!(unknown(attempts::call_of_the_future()));
    assert!(is_denied(attempts::clone_process(0)), "a new process");
    for namespace in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        assert!(is_denied(attempts::clone_process(namespace)), "{namespace:#x}");
    }
    let (terminal, _peer) = io::pipe().unwrap();
    assert!(is_denied(attempts::type_into(terminal.as_fd(), b'x')));
    assert!(is_denied(attempts::map_program()));
    // threads are made as ever
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
}

/// The broker has the daemon's user id, so that nothing but the filter keeps the daemon from it.
pub fn others() {
    let broker = crate::config::fork(&nowhere(), "", Some(&nobody()), Box::new(NoPacketModes)).unwrap();
    dropped();
    let pid = Pid::from_raw(i32::try_from(broker.pid()).unwrap());
    for signal in [Signal::SIGSTOP, Signal::SIGKILL, Signal::SIGCONT] {
        assert_eq!(kill(pid, signal), Err(Errno::EPERM), "{signal}");
        // its whole group, and everybody
        assert_eq!(kill(Pid::from_raw(0), signal), Err(Errno::EPERM), "{signal}");
        assert_eq!(kill(Pid::from_raw(-1), signal), Err(Errno::EPERM), "{signal}");
    }
    assert!(is_denied(attempts::limit(pid.as_raw())));
    assert_eq!(sched_setaffinity(pid, &CpuSet::new()), Err(Errno::EPERM));
    let (pipe, _peer) = io::pipe().unwrap();
    assert!(is_denied(attempts::have_signals_sent(pipe.as_fd(), pid.as_raw())));
    // the broker has not noticed anything
    let unknown = broker.bind(&ListenerRef::Stats);
    assert!(matches!(unknown, Err(BrokerError::Refused(_))), "{unknown:?}");
    // our own are our own
    raise(Signal::SIGCONT).unwrap();
    kill(Pid::this(), Signal::SIGCONT).unwrap();
}

pub fn sockets() {
    dropped();
    let open = |family, kind, protocol: Option<SockProtocol>| {
        socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).map_err(io::Error::from)
    };
    for family in [
        AddressFamily::Packet,
        AddressFamily::Vsock,
        AddressFamily::Bluetooth,
        AddressFamily::Alg,
        AddressFamily::Can,
        AddressFamily::Tipc,
        AddressFamily::Key,
    ] {
        for kind in [SockType::Raw, SockType::Datagram, SockType::Stream] {
            assert!(is_denied(open(family, kind, None)), "{family:?} {kind:?}");
        }
    }
    // netfilter, auditing and generic netlink
    for protocol in [
        SockProtocol::NetlinkNetFilter,
        SockProtocol::NetlinkAudit,
        SockProtocol::NetlinkGeneric,
    ] {
        assert!(
            is_denied(open(AddressFamily::Netlink, SockType::Raw, Some(protocol))),
            "{protocol:?}"
        );
    }
    for (family, kind) in [
        (AddressFamily::Unix, SockType::Datagram),
        (AddressFamily::Inet, SockType::Stream),
        (AddressFamily::Inet6, SockType::Datagram),
    ] {
        open(family, kind, None).unwrap();
    }
    open(
        AddressFamily::Netlink,
        SockType::Raw,
        Some(SockProtocol::NetlinkRoute),
    )
    .unwrap();
    // ping, multipath TCP, SCTP
    for (kind, protocol) in [
        (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        (libc::SOCK_STREAM, 262),
        (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    ] {
        let made = Socket::new(Domain::IPV4, kind.into(), Some(protocol.into()));
        assert!(is_denied(made), "protocol {protocol}");
    }
    let packet_pair = socketpair(AddressFamily::Packet, SockType::Raw, None, SockFlag::SOCK_CLOEXEC);
    assert_eq!(packet_pair.unwrap_err(), Errno::EPERM);
    std::os::unix::net::UnixStream::pair().unwrap();
}

pub fn options() {
    dropped();
    let socket = TcpListener::bind("127.0.73.10:0").unwrap();
    let set = |level, option| attempts::set_option(socket.as_fd(), level, option, 1);
    for option in [
        libc::SO_ATTACH_FILTER,
        libc::SO_DETACH_FILTER,
        libc::SO_LOCK_FILTER,
        libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        libc::SO_ATTACH_REUSEPORT_EBPF,
    ] {
        assert!(is_denied(set(libc::SOL_SOCKET, option)), "{option}");
    }
    const SOL_XDP: i32 = 283;
    for option in 0..32 {
        assert!(
            is_denied(set(libc::SOL_PACKET, option)),
            "option {option} of packet sockets"
        );
        assert!(is_denied(set(SOL_XDP, option)), "option {option} of XDP sockets");
    }
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE).unwrap();
    set(libc::IPPROTO_TCP, libc::TCP_NODELAY).unwrap();
}

pub fn packet_thread() {
    dropped();
    let listener = TcpListener::bind("127.0.73.11:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (said, wait) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sandbox::confine_packet_thread().unwrap();
        for call in calls::NEEDLESS_TO_PACKET_THREADS {
            assert!(is_denied(attempts::attempt_in_vain(*call)), "{}", call.name());
        }
        assert!(is_denied(attempts::attempt(attempts::ATTACKS[0])));
        assert!(is_denied(TcpStream::connect(addr)) && is_denied(listener.accept()));
        said.send(()).unwrap();
        assert!(stopped.recv().is_err());
        fs::read("/dev/null").unwrap()
    });
    wait.recv().unwrap();
    // the others go on as before
    TcpStream::connect(addr).unwrap();
    let proof = prove().unwrap();
    assert_eq!(proof.threads, 2);
    assert!(
        task_status::read_self()
            .unwrap()
            .iter()
            .all(|task| task.seccomp == 2)
    );
    drop(stop);
    thread.join().unwrap();
}

pub fn panics() {
    dropped();
    panic!("the handler's last words");
}

/// Ends by the hand of the kernel.
#[cfg(target_arch = "x86_64")]
pub fn i386() {
    dropped();
    println!("{}", attempts::getpid_i386());
}

/// Ends by the hand of the kernel.
#[cfg(target_arch = "x86_64")]
pub fn x32() {
    dropped();
    println!("{}", attempts::getpid_x32());
}

pub fn files() {
    let mut root = RootShell::start();
    let dir = dir();
    for name in ["admin", "scripts", "etc"] {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.join("admin/admin.sock");
    let _admin = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let open_before = fs::File::create(dir.join("log")).unwrap();
    let files = Sandbox {
        removable: vec![dir.join("admin")],
        writable: vec![dir.join("scripts"), dir.join("does-not-exist")],
    };
    let proof = drop_privileges(Some(&nobody()), &files).unwrap();
    assert!(proof.landlock, "{proof}");

    let outside = |result: io::Result<()>| {
        let kind = result.map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::PermissionDenied));
    };
    outside(fs::read("/etc/hosts").map(drop));
    outside(fs::read_dir("/").map(drop));
    outside(fs::write(dir.join("etc/new"), ""));
    outside(fs::write("/tmp/convey-test-landlock", ""));
    outside(fs::write(dir.join("admin/new"), ""));
    outside(fs::rename(
        dir.join("admin/admin.sock"),
        dir.join("etc/admin.sock"),
    ));
    fs::remove_file(&socket).unwrap();
    let script = dir.join("scripts/new");
    fs::write(&script, "x").unwrap();
    fs::rename(&script, dir.join("scripts/web")).unwrap();
    assert_eq!(fs::read(dir.join("scripts/web")).unwrap(), b"x");
    fs::remove_file(dir.join("scripts/web")).unwrap();
    io::Write::write_all(&mut &open_before, b"what is open stays open").unwrap();
    std::thread::available_parallelism().unwrap();
    prove().unwrap();

    // the configuration's directory is still watched, although it cannot be read
    let (said, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| drop(said.send(event))).unwrap();
    watcher
        .watch(&dir.join("etc"), notify::RecursiveMode::NonRecursive)
        .unwrap();
    root.run(&format!("echo > {}", dir.join("etc/convey.toml").display()));
    changes.recv_timeout(PATIENCE).unwrap().unwrap();
}

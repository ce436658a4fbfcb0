//! Transparent sockets: who gets them, and what the daemon can do with them.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use convey::{
    base::{IpFamily, Protocol, SocketKind},
    config,
    privilege::{BrokerError, Channel, NoPacketModes, Start},
    sys::server_socket,
};
use nix::sys::resource::{Resource, setrlimit};
use socket2::SockRef;

use crate::{
    attempts,
    config::source,
    scenario::{drop_privileges, nobody, nowhere},
};

const KINDS: [SocketKind; 4] = [
    SocketKind {
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
        is_transparent: true,
        mark: None,
    },
    SocketKind {
        protocol: Protocol::Tcp,
        family: IpFamily::V6,
        is_transparent: true,
        mark: None,
    },
    SocketKind {
        protocol: Protocol::Udp,
        family: IpFamily::V4,
        is_transparent: true,
        mark: None,
    },
    SocketKind {
        protocol: Protocol::Udp,
        family: IpFamily::V6,
        is_transparent: true,
        mark: None,
    },
];

/// Frontends of both protocols and families, in this mode.
fn started(source_address: &str) -> Channel {
    let mut text = String::new();
    for (name, protocol) in [("tcp", "tcp"), ("udp", "udp")] {
        text += &format!(
            "[frontends.{name}]\nprotocol = \"{protocol}\"\nlisten_addr = [\"127.0.0.1:7000\", \"[::1]:7000\"]\n\
             source = \"{source_address}\"\nbackend = \"b\"\n"
        );
    }
    text += "[frontends.marked]\nlisten_addr = \"127.0.0.1:7001\"\nbackend = \"marked\"\n\
             [backends.marked]\nserver_socket.mark = 7\nservers.a = { addr = \"10.0.0.3:80\" }\n\
             [backends.b]\nhealth_check.enabled = false\nservers.a = { addr = \"10.0.0.2:80\" }\n\
             servers.b = { addr = \"[2001:db8::2]:80\" }\n";
    let target = nobody();
    let start = Start {
        parse: config::load,
        path: &nowhere(),
        source: &source(&text),
        options: config::Options::default(),
        target: Some(&target),
        kernel: Box::new(NoPacketModes),
        bound: Default::default(),
        kept: Vec::new(),
        keeps_sockets: false,
        hidden: Vec::new(),
    };
    let broker = start.fork().unwrap().broker;
    drop_privileges(Some(&target)).unwrap();
    broker
}

/// Without such a frontend the broker makes none.
pub fn refused() {
    let broker = started("own");
    for kind in KINDS {
        let error = broker.server_sockets(kind).unwrap_err();
        assert!(matches!(&error, BrokerError::Refused(_)), "{error}");
    }
}

/// With one the daemon, which has no capability, speaks for anybody; it cannot make such a socket itself.
pub fn supplied() {
    let broker = started("client");
    for kind in KINDS {
        let made = server_socket::make(kind, 1).map_err(|error| error.raw_os_error());
        assert_eq!(made.unwrap_err(), Some(libc::EPERM), "{kind}");
        let sockets = broker.server_sockets(kind).unwrap();
        assert_eq!(sockets.len(), SocketKind::BATCH);
        for socket in &sockets {
            assert!(SockRef::from(socket).nonblocking().unwrap(), "{kind}");
        }
        let foreign: SocketAddr = match kind.family {
            IpFamily::V4 => "198.51.100.7:0".parse().unwrap(),
            IpFamily::V6 => "[2001:db8:5::7]:0".parse().unwrap(),
        };
        let socket = sockets.into_iter().next().unwrap();
        SockRef::from(&socket).bind(&foreign.into()).unwrap();
        let own = own_socket(kind);
        let error = SockRef::from(&own).bind(&foreign.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{kind}");
    }
    // the option is not to be had after the drop, whoever has made the socket
    let own = own_socket(KINDS[0]);
    let set = attempts::set_option(own.as_fd(), libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1);
    assert_eq!(set.unwrap_err().raw_os_error(), Some(libc::EPERM));
}

/// A mark is to be had as the configuration has it, and by no call of the daemon's own.
pub fn marked() {
    let broker = started("own");
    let kind = |mark| SocketKind {
        is_transparent: false,
        mark: std::num::NonZeroU32::new(mark),
        ..KINDS[0]
    };
    for socket in broker.server_sockets(kind(7)).unwrap() {
        assert_eq!(SockRef::from(&socket).mark().unwrap(), 7);
        let set = attempts::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, 8);
        assert_eq!(set.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    for mark in [8, 0] {
        let error = broker.server_sockets(kind(mark)).unwrap_err();
        assert!(matches!(&error, BrokerError::Refused(_)), "{error}");
    }
}

/// A daemon without room for a batch hears so, and the broker goes on.
pub fn without_room() {
    let broker = started("client");
    setrlimit(Resource::RLIMIT_NOFILE, 32, 32).unwrap();
    let error = broker.server_sockets(KINDS[0]).unwrap_err();
    assert!(matches!(&error, BrokerError::Failed { .. }), "{error}");
}

fn own_socket(kind: SocketKind) -> OwnedFd {
    let any = match kind.family {
        IpFamily::V4 => socket2::Domain::IPV4,
        IpFamily::V6 => socket2::Domain::IPV6,
    };
    let of = match kind.protocol {
        Protocol::Tcp => socket2::Type::STREAM,
        Protocol::Udp => socket2::Type::DGRAM,
    };
    socket2::Socket::new(any, of, None).unwrap().into()
}

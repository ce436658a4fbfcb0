//! Two hosts on one cable, frames, and what packet sockets receive of them.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use convey::{
    base::{Endpoint, ListenAddr, PacketReason, PortRange, Protocol},
    config::PacketService,
    engine::raw::socket,
    packet::Offload,
    sys::packet_socket::{self, Outgoing, Receiver, Sender},
};

use crate::lab::{Host, Lab, PATIENCE, wait_until};

/// Fanout group of the tests' sockets: each has a namespace of its own.
pub const GROUP: u16 = 7;

/// Two hosts joined by a cable.
pub struct Wire {
    pub sender: Host,
    pub receiver: Host,
    /// Interfaces of the cable, by index, on either side.
    pub out: u32,
    pub into: u32,
    _lab: Lab,
}

impl Wire {
    /// The cable is `cable` on both; the receiver has 192.0.2.1 and the sender 192.0.2.2, who knows the way there.
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (sender, receiver) = (lab.host("sender"), lab.host("receiver"));
        lab.cable((&sender, "cable"), (&receiver, "cable"));
        sender.add_address("cable", "192.0.2.2/24");
        receiver.add_address("cable", "192.0.2.1/24");
        sender.run(&format!(
            "ip neigh replace 192.0.2.1 lladdr {} dev cable",
            mac(&receiver)
        ));
        Self {
            out: ifindex(&sender, "cable"),
            into: ifindex(&receiver, "cable"),
            sender,
            receiver,
            _lab: lab,
        }
    }

    /// A socket on the receiver's side.
    pub fn listen(&self, services: &[PacketService]) -> OwnedFd {
        open(&self.receiver, self.into, services)
    }

    /// A socket on the sender's side, for sending.
    pub fn speak(&self) -> OwnedFd {
        open(&self.sender, self.out, &[])
    }

    /// A UDP socket of the sender's kernel.
    pub fn udp(&self) -> UdpSocket {
        self.sender
            .inside(|| UdpSocket::bind("192.0.2.2:0"))
            .expect("a UDP socket")
    }

    /// Ethernet addresses of a frame from the sender to the receiver.
    pub fn addresses(&self) -> Vec<u8> {
        [mac_bytes(&self.receiver), mac_bytes(&self.sender)].concat()
    }

    /// Sends one frame the other way, by a socket of the receiver's side.
    pub fn send_back(&self, socket: &OwnedFd, frame: &[u8]) {
        let outgoing = Outgoing {
            ifindex: self.into,
            frame,
            offload: Offload::default(),
        };
        Sender::new(1).send(socket.as_fd(), [outgoing], |_, error| panic!("not sent: {error}"));
    }

    /// Sends one frame.
    pub fn send(&self, socket: &OwnedFd, frame: &[u8], offload: Offload) {
        let outgoing = Outgoing {
            ifindex: self.out,
            frame,
            offload,
        };
        Sender::new(1).send(socket.as_fd(), [outgoing], |_, error| panic!("not sent: {error}"));
    }
}

fn open(host: &Host, ifindex: u32, services: &[PacketService]) -> OwnedFd {
    host.inside(|| socket::open(ifindex, GROUP, services))
        .unwrap_or_else(|error| panic!("no packet socket on {}: {error}", host.name()))
}

/// An interface's index.
pub fn ifindex(host: &Host, interface: &str) -> u32 {
    let text = host.run(&format!(
        "cat /sys/class/net/{interface}/ifindex 2>/dev/null || ip -o link show {interface} | cut -d: -f1"
    ));
    text.trim().parse().expect("an interface's index")
}

/// The address of the host's end of the cable.
pub fn mac(host: &Host) -> String {
    mac_of(host, "cable")
}

/// The address of an interface.
pub fn mac_of(host: &Host, interface: &str) -> String {
    let text = host.run(&format!("ip -o link show {interface}"));
    let (_, rest) = text.split_once("link/ether ").expect("an Ethernet interface");
    rest.split(' ').next().expect("its address").to_owned()
}

pub fn mac_bytes(host: &Host) -> Vec<u8> {
    parse_mac(&mac(host))
}

pub fn parse_mac(text: &str) -> Vec<u8> {
    (text.split(':'))
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte of a MAC"))
        .collect()
}

/// A DSR service of UDP or TCP on the receiver's address.
pub fn service(protocol: Protocol, port: u16) -> PacketService {
    PacketService {
        vip: Endpoint {
            addr: ListenAddr::new(SocketAddr::from(([192, 0, 2, 1], port))),
            protocol,
        }
        .into(),
        nat_ports: None,
        servers: Vec::new(),
    }
}

/// A passthrough service that no test sends to.
pub fn another_service() -> PacketService {
    PacketService {
        nat_ports: Some(
            PortRange {
                first: 61_000,
                last: 65_535,
            }
            .into(),
        ),
        vip: Endpoint::tcp(SocketAddr::from(([198, 51, 100, 1], 443))).into(),
        ..service(Protocol::Tcp, 1)
    }
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

/// Reads sockets.
pub struct Reader(Receiver);

impl Reader {
    pub fn new() -> Self {
        Self(Receiver::new(64))
    }

    /// What waits now.
    pub fn waiting(&mut self, socket: &OwnedFd) -> Vec<Result<Seen, PacketReason>> {
        let count = self.0.receive(socket.as_fd(), 64).expect("receive");
        (0..count)
            .map(|index| {
                self.0.frame(index).map(|frame| Seen {
                    bytes: frame.bytes().to_vec(),
                    offload: frame.offload,
                })
            })
            .collect()
    }

    /// The next frames, so many, and nothing with them. That others do not come is shown by one that is sent after them.
    #[track_caller]
    pub fn next(&mut self, socket: &OwnedFd, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        wait_until(&format!("{count} frames"), PATIENCE, || {
            seen.extend(
                self.waiting(socket)
                    .into_iter()
                    .map(|frame| frame.expect("a sound frame")),
            );
            seen.len() >= count
        });
        assert_eq!(seen.len(), count, "{seen:02x?}");
        seen
    }
}

/// Packets that the kernel dropped at a socket.
pub fn drops(socket: &OwnedFd) -> u32 {
    packet_socket::take_drops(socket.as_fd()).expect("the statistics")
}

/// An IPv4 packet to the receiver's address without options, its header checksum done.
pub fn ip4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + transport.len()).expect("a packet");
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
    let checksum = !sum(0, &packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(transport);
    packet
}

/// One's complement sum of 16-bit words.
pub fn sum(start: u16, bytes: &[u8]) -> u16 {
    let mut sum = u32::from(start);
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A UDP datagram without a checksum.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("a datagram");
    [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &len.to_be_bytes(),
        &[0, 0],
        payload,
    ]
    .concat()
}

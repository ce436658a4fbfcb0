//! Asking the kernel: interfaces, addresses, the route to a server, one neighbour.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use nix::errno::Errno;
use socket2::SockRef;

use crate::sys::netlink;

use super::{
    NoWay,
    table::{Neighbour, NeighbourKey, NetworkEvent, RouteAnswer},
    wire::{self, Envelope, Message, Question},
};

/// Larger than any datagram of a dump (32 KiB, NLMSG_GOODSIZE and what recvmsg grows it to).
pub const DATAGRAM_BYTES: usize = 64 << 10;

/// Room for answers, in bytes. The kernel makes a dump's next part only when there is room for it.
const RECEIVE_BUFFER: usize = 256 << 10;

/// How often a dump is repeated because something changed meanwhile. The last one is taken as it is: what changed is
/// notified too.
const MAX_DUMPS: usize = 4;

/// The socket for questions. rtnetlink answers before the question's system call returns, so nothing here waits.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Kernel {
    /// Opens the socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: netlink::open(&[], RECEIVE_BUFFER)?,
            buffer: vec![0; DATAGRAM_BYTES],
            sequence: 0,
        })
    }

    /// All interfaces and addresses, as news.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn links_and_addresses(&mut self) -> io::Result<Vec<NetworkEvent>> {
        let mut events = self.dump(Question::Links)?;
        events.extend(self.dump(Question::Addresses)?);
        Ok(events)
    }

    /// The route to a server.
    ///
    /// # Errors
    /// The kernel did not answer, which is no statement about the route.
    pub fn route(&mut self, destination: IpAddr, source: Option<IpAddr>) -> io::Result<RouteAnswer> {
        let mut answer = None;
        let errno = self.ask(Question::Route { destination, source }, |message| {
            if let Message::Route(route) = message {
                answer = Some(RouteAnswer::Route(route));
            }
        })?;
        match answer {
            Some(answer) => Ok(answer),
            None => no_way(errno).map(RouteAnswer::None),
        }
    }

    /// What the kernel knows of a neighbour.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn neighbour(&mut self, key: NeighbourKey) -> io::Result<Neighbour> {
        let mut state = Neighbour::Unknown;
        // an errno says that there is no such entry, or no such interface any more
        self.ask(Question::Neighbour(key), |message| {
            if let Message::NetworkEvent(NetworkEvent::Neighbour(told, known)) = message
                && told == key
            {
                state = known;
            }
        })?;
        Ok(state)
    }

    fn dump(&mut self, question: Question) -> io::Result<Vec<NetworkEvent>> {
        let mut events = Vec::new();
        for _ in 0..MAX_DUMPS {
            events.clear();
            let mut is_interrupted = false;
            let errno = self.ask_all(question, |envelope| {
                is_interrupted |= envelope.is_interrupted;
                if let Message::NetworkEvent(event) = envelope.message {
                    events.push(event);
                }
            })?;
            if errno != 0 {
                return Err(io::Error::from_raw_os_error(errno));
            }
            if !is_interrupted {
                break;
            }
        }
        Ok(events)
    }

    /// Asks for one thing. Returns the errno of a refusal, 0 with an answer.
    fn ask(&mut self, question: Question, mut take: impl FnMut(Message)) -> io::Result<i32> {
        self.ask_all(question, |envelope| take(envelope.message))
    }

    fn ask_all(&mut self, question: Question, mut take: impl FnMut(Envelope)) -> io::Result<i32> {
        let is_dump = matches!(question, Question::Links | Question::Addresses);
        self.sequence = self.sequence.wrapping_add(1);
        // unconnected, it sends to port 0: the kernel
        SockRef::from(&self.socket).send(&wire::encode(question, self.sequence))?;
        loop {
            let len = netlink::receive(&self.socket, &mut self.buffer)?;
            for envelope in wire::decode(self.buffer.get(..len).unwrap_or_default()) {
                // an answer that cannot be understood is like none; a dump goes on without
                let Ok(envelope) = envelope else {
                    if is_dump {
                        continue;
                    }
                    return Ok(libc::EPROTO);
                };
                if envelope.sequence != self.sequence {
                    // of a question that was given up
                    continue;
                }
                if let Message::End { errno } = envelope.message {
                    return Ok(errno);
                }
                take(envelope);
                if !is_dump {
                    return Ok(0);
                }
            }
        }
    }
}

/// What a refusal to look up a route says of it. Only what may pass by itself is an error: one odd server must not keep
/// all others from being asked for.
fn no_way(errno: i32) -> io::Result<NoWay> {
    match Errno::from_raw(errno) {
        // with EINVAL the kernel says blackhole, as `ip route get` shows
        Errno::EINVAL => Ok(NoWay::Blackhole),
        Errno::EACCES => Ok(NoWay::Prohibited),
        errno @ (Errno::ENOMEM | Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN | Errno::EBUSY) => {
            Err(errno.into())
        }
        _ => Ok(NoWay::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::table::{Medium, RouteKind};
    use std::net::Ipv4Addr;

    #[test]
    fn the_kernel_knows_the_loopback_interface_and_its_address() {
        let events = Kernel::open().unwrap().links_and_addresses().unwrap();
        let index = events.iter().find_map(|event| match event {
            NetworkEvent::Link(index, link) if link.medium == Medium::Loopback => Some(*index),
            _ => None,
        });
        let own = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(events.iter().any(
            |event| matches!(event, NetworkEvent::Address(i, ip, _) if Some(*i) == index && *ip == own)
        ));
    }

    #[test]
    fn an_address_of_this_host_is_a_local_route() {
        let answer = Kernel::open()
            .unwrap()
            .route(Ipv4Addr::LOCALHOST.into(), None)
            .unwrap();
        assert!(matches!(answer, RouteAnswer::Route(route) if route.kind == RouteKind::Local));
    }

    #[test]
    fn a_refusal_is_an_answer_unless_it_may_pass() {
        assert_eq!(no_way(libc::EHOSTUNREACH).unwrap(), NoWay::Unreachable);
        assert_eq!(no_way(libc::EPROTO).unwrap(), NoWay::Unreachable);
        assert!(no_way(libc::ENOBUFS).is_err());
    }

    #[test]
    fn an_unknown_neighbour_is_unknown_and_the_next_question_is_answered() {
        let mut kernel = Kernel::open().unwrap();
        for _ in 0..2 {
            let key = NeighbourKey {
                ifindex: 1,
                address: Ipv4Addr::new(127, 9, 9, 9).into(),
            };
            assert_eq!(kernel.neighbour(key).unwrap(), Neighbour::Unknown);
        }
    }
}

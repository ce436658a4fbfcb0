//! Datagrams of a client on their way to its server.

use std::{io, os::fd::AsFd as _};

use nix::errno::Errno;

use super::{datagrams::Datagrams, live::Live, opening::is_servers_fault};
use crate::{
    base::IpFamily,
    sys::udp_socket::{Outgoing, Sender},
};

/// Bytes that a datagram carries at most, by IPv4 and by IPv6.
const LONGEST_IPV4: usize = 65_507;
const LONGEST_IPV6: usize = 65_527;

/// What became of them, in datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The kernel has taken them.
    pub sent: usize,
    /// The client's bytes in these.
    pub bytes: usize,
    /// They are longer than datagrams can be, with the header that the first one has.
    pub too_long: usize,
    /// The kernel did not take them.
    pub failed: usize,
}

/// The network, or a rule of this host, says that the server cannot be reached.
#[derive(Debug)]
pub struct Unreachable;

impl Live {
    /// Sends to the server. The PROXY header stands before the first datagram that leaves, whichever that is: one that does
    /// not leave leaves it to the next.
    ///
    /// # Errors
    /// The server cannot be reached, and the session is to be ended.
    pub fn forward(&mut self, sender: &mut Sender, all: Datagrams<'_>) -> Result<Forwarded, Unreachable> {
        let mut done = Forwarded::default();
        let mut left = Some(all);
        while let Some(datagrams) = left {
            let header = self.header.take();
            // a header stands before one datagram
            let (some, rest) = match &header {
                Some(_) => datagrams.split(1),
                None => (datagrams, None),
            };
            self.send(sender, header.as_deref().unwrap_or_default(), some, &mut done)?;
            if done.sent == 0 {
                self.header = header;
            }
            left = rest;
        }
        Ok(done)
    }

    fn send(
        &self,
        sender: &mut Sender,
        header: &[u8],
        some: Datagrams<'_>,
        done: &mut Forwarded,
    ) -> Result<(), Unreachable> {
        let is_ipv4 = self.chosen.addr().family() == Some(IpFamily::V4);
        let longest = if is_ipv4 { LONGEST_IPV4 } else { LONGEST_IPV6 };
        // the kernel would refuse it, and keep a note of that in the socket's queue
        if !header.is_empty() && header.len() + some.bytes.len() > longest {
            done.too_long += 1;
            return Ok(());
        }
        let outgoing = Outgoing {
            to: None,
            from: None,
            is_ipv4,
            ecn: some.ecn,
            dscp: self.chosen.backend.config.server_socket.common.dscp,
            segment: some.segment(),
            before: header,
            bytes: some.bytes,
        };
        let (mut too_long, mut failed) = (0, 0);
        let mut is_unreachable = false;
        sender.send(self.socket.as_fd(), !is_ipv4, &[outgoing], |_, count, error| {
            if is_servers_fault(&io::Error::from(error)) {
                is_unreachable = true;
            } else if error == Errno::EMSGSIZE {
                too_long += count;
            } else {
                failed += count;
            }
        });
        if is_unreachable {
            return Err(Unreachable);
        }
        let sent = (some.count() as usize).saturating_sub(too_long + failed);
        done.sent += sent;
        done.bytes += if sent == 0 { 0 } else { some.bytes.len() };
        done.too_long += too_long;
        done.failed += failed;
        Ok(())
    }
}

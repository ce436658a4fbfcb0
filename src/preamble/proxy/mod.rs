//! The PROXY protocol, by which a proxy says for whom it opens a connection: version 1, a line of text, and version 2,
//! binary. As HAProxy's doc/proxy-protocol.txt of 2020/03/05 specifies it; the sections named here are that document's.

mod crc32c;
mod tlvs;
mod v1;
mod v2;

use std::net::SocketAddr;

use super::Progress;
pub use tlvs::{Bytes, Ssl, Text, Tlvs, UNVERIFIED};
pub use v1::write as write_v1;
pub use v2::{write as write_v2, write_of as write_v2_of};

/// Longest line of version 1 in bytes (section 2.1).
pub const MAX_V1_BYTES: usize = 107;

/// Longest header that is read, in bytes. Version 2 could have eight times as much; the longest addresses take 232.
pub const MAX_HEADER_BYTES: usize = 8 << 10;

/// A PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The version it is written in.
    pub version: ProxyVersion,
    /// Whom the connection is from.
    pub source: ProxySource,
    /// What else is said of it; nothing in version 1.
    pub tlvs: Tlvs,
    /// How many bytes the header takes: what follows is the client's.
    pub length: usize,
}

/// The version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Whom a connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxySource {
    /// From the proxy itself, for a health check: LOCAL. The connection has its own addresses.
    Local,
    /// From somebody without an IP address, or whom the proxy does not know: UNKNOWN, UNSPEC, UNIX. The connection has its
    /// own addresses.
    Unknown,
    /// From a client. An IPv4 address that is mapped into IPv6 is read, and written, as the IPv4 address.
    Client {
        /// The client's address.
        client: SocketAddr,
        /// Where the client has connected to.
        destination: SocketAddr,
    },
}

/// Why what a peer sends is no PROXY header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyRefusal {
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    NotProxy,
    /// It breaks a rule of the protocol: which one.
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
    /// It is longer than [`MAX_V1_BYTES`] or [`MAX_HEADER_BYTES`].
    #[error("its PROXY header is too long")]
    TooLong,
    /// It has a checksum, of other bytes.
    #[error("the checksum of its PROXY header is wrong")]
    Checksum,
}

/// Reads a PROXY header, of either version, from everything that has been received so far.
///
/// Each call looks at [`MAX_V1_BYTES`] at most until the header is whole, and at the whole header once. What it gives keeps
/// no more memory than the header took.
#[must_use]
pub fn read(all: &[u8]) -> Progress<ProxyHeader, ProxyRefusal> {
    let [v1, v2] = [v1::SIGNATURE, v2::SIGNATURE].map(|signature| {
        let seen = all.len().min(signature.len());
        (all[..seen] == signature[..seen]).then_some(seen == signature.len())
    });
    let read = match (v1, v2) {
        (Some(true), _) => v1::read(all),
        (_, Some(true)) => v2::read(all),
        (None, None) => Err(ProxyRefusal::NotProxy),
        _ => Ok(None),
    };
    match read {
        Ok(Some(header)) => Progress::Done(header),
        Ok(None) => Progress::More,
        Err(refusal) => Progress::Refused(refusal),
    }
}

impl ProxySource {
    /// A client, with both addresses in the form that rules, limits and logs know.
    #[must_use]
    pub fn client(client: SocketAddr, destination: SocketAddr) -> Self {
        Self::Client {
            client: canonical(client),
            destination: canonical(destination),
        }
    }
}

/// Address and port alone, and an IPv4 address as one.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

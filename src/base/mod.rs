//! The words of the product as types: names, addresses, ids and reasons.
//!
//! The bottom layer: nothing here does I/O, reads a clock or draws randomness, and nothing here imports
//! another module of the crate.

pub(crate) mod addr;
mod alert;
mod certificate_name;
mod change;
mod check_outcome;
mod command_id;
pub(crate) mod connection_record;
mod datagram;
mod dns_proof;
mod dscp;
mod ending;
pub(crate) mod endpoint;
pub(crate) mod exit;
pub(crate) mod holder;
mod host_name;
mod host_pattern;
mod http_url;
pub(crate) mod label;
mod listener_id;
mod listener_options;
pub(crate) mod name;
mod origin;
mod otlp;
pub(crate) mod packet;
mod peer_timeouts;
mod port_map;
mod ports;
pub(crate) mod reason;
mod remote;
mod role;
pub(crate) mod server_addr;
mod server_tls;
mod socket_kind;
mod socket_options;
pub(crate) mod socket_path;
mod socket_rights;
pub(crate) mod time;
mod verdict;
mod xdp_attach;
mod zone;

pub use addr::{ClientAddr, IpServerAddr, ListenAddr, ListenRange, NotAnAddress, PeerAddr};
pub use alert::{Alert, Handshake, ServerDrop};
pub use certificate_name::{CertificateName, NotACertificateName};
pub use change::ChangeEvent;
pub use check_outcome::CheckOutcome;
pub use command_id::CommandId;
pub(crate) use connection_record::AccessSink;
pub use connection_record::{AccessRecord, TlsRecord};
pub use datagram::DatagramDrop;
pub use dns_proof::{Digest, DnsChange, DnsProof, NotADigest};
pub use dscp::Dscp;
pub use endpoint::{Endpoint, EndpointRange};
pub use holder::Holder;
pub use host_name::{HostName, NotAHostName};
pub use host_pattern::{HostPattern, HostPatternError, MAX_PATTERN_BYTES};
pub(crate) use http_url::host_and_port;
pub use http_url::{Host, HttpUrl, NotAHttpUrl};
pub use label::UnknownLabel;
pub(crate) use label::by_label;
pub use listener_id::{ListenPlace, ListenerId};
pub use listener_options::ListenerOptions;
pub use name::{
    BackendName, FrontendName, MAX_NAME_BYTES, NameError, NetworkListName, ServerKey, ServerName,
};
pub use origin::{NotAnOrigin, Origin};
pub use otlp::{OtlpLoss, OtlpResult, OtlpSignal};
pub use packet::{Mac, PacketReason, Protocol};
pub use peer_timeouts::{KeepAlive, PeerTimeouts};
pub(crate) use port_map::PortMap;
pub(crate) use ports::merged;
pub use ports::{NotPortRanges, PortRange, PortRanges};
pub use reason::{AccessReason, BackendState, ServerState, TerminationReason};
pub use remote::Remote;
pub use role::Role;
pub use server_addr::ServerAddr;
pub use server_tls::{ServerTlsFailure, ServerTlsRecord};
pub use socket_kind::{IpFamily, SocketKind};
pub use socket_options::{ServerSocketOptions, SocketOptions};
pub use socket_path::{NotASocketPath, SocketPath};
pub use socket_rights::{SocketMode, SocketRights};
pub use xdp_attach::XdpAttachMode;
pub use zone::Zone;

/// The number of a connection, which no other has: in a PROXY header as 32 hexadecimal digits, and so in the connection log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UniqueId(pub u128);

impl std::fmt::Display for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Index of a worker thread, from zero; also the shard that the thread writes in every counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub usize);

//! What a virtual service is, however it was described.

use std::net::IpAddr;

use crate::import::{At, DirectiveId, Draft, NoteKind};

/// Something that a directive says, or a part of one.
#[derive(Debug, Clone)]
pub struct Said<T> {
    /// The directive.
    pub id: DirectiveId,
    /// The words that say it.
    pub words: String,
    /// What they mean.
    pub value: T,
}

impl<T> Said<T> {
    /// It was translated, but means something else here.
    pub fn differs(&self, draft: &mut Draft, at: At, text: &str) {
        draft.note(self.id, at, &self.words, NoteKind::Differs, text);
    }

    /// Convey has nothing for it.
    pub fn no_equal(&self, draft: &mut Draft, at: At, text: &str) {
        draft.note(self.id, at, &self.words, NoteKind::NoEqual, text);
    }
}

/// How packets come to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Direct routing: only their MAC changes.
    Route,
    /// Masquerading: their destination is rewritten, and that of the answers back.
    Masquerade,
    /// Within packets to the server.
    Tunnel,
}

/// Clients that come back go to the server that they had.
#[derive(Debug, Clone)]
pub struct Persistence {
    /// For how many seconds.
    pub seconds: Said<u64>,
    /// Leading bits of a client's address that count, where it was said.
    pub prefix: Option<Said<u8>>,
    /// Another engine than the address.
    pub engine: Option<Said<String>>,
}

/// A virtual service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The directive that begins it.
    pub id: DirectiveId,
    /// What its frontend is to be called.
    pub name: String,
    /// Addresses, as `listen_addr` has them; at least one.
    pub listen: Vec<String>,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// The scheduler's name and its flags.
    pub scheduler: Option<Said<String>>,
    /// Flags of the scheduler.
    pub flags: Vec<Said<String>>,
    /// Persistence.
    pub persistence: Option<Persistence>,
    /// Each datagram is balanced by itself.
    pub one_packet: Option<Said<()>>,
    /// How servers are reached that do not say it.
    pub method: Option<Said<Method>>,
    /// Seconds after which an idle connection of TCP is forgotten, where it was said.
    pub idle_tcp: Option<Said<u64>>,
    /// The same once a side has closed.
    pub idle_fin: Option<Said<u64>>,
    /// The same of UDP.
    pub idle_udp: Option<Said<u64>>,
    /// Its servers.
    pub servers: Vec<RealServer>,
    /// Whether anything checks them.
    pub is_checked: bool,
    /// Where clients go while none of them is up.
    pub sorry: Option<Said<(IpAddr, u16)>>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct RealServer {
    /// The directive that begins it.
    pub id: DirectiveId,
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// How it is reached.
    pub method: Said<Method>,
    /// Its weight.
    pub weight: Said<u64>,
    /// Connections from which it gets no new ones.
    pub upper: Option<Said<u64>>,
    /// Connections below which it gets new ones again.
    pub lower: Option<Said<u64>>,
    /// Where it is checked instead.
    pub check_addr: Option<String>,
}

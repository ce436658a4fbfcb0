//! `[frontends.NAME.udp]`.

use std::num::NonZeroU32;

/// Sessions of a UDP frontend in mode proxy: a session is what comes from one client's address and port to one address and
/// port of ours, and what the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSessions {
    /// `max_sessions` of the process on this frontend; datagrams that would begin more are dropped. Default 16,384: some
    /// 50 MB with their sockets.
    pub max_sessions: NonZeroU32,
    /// `max_requests`: datagrams of the client after which the next one begins another session.
    pub max_requests: Option<NonZeroU32>,
    /// `max_responses`: datagrams of the server after which the session ends.
    pub max_responses: Option<NonZeroU32>,
    /// `buffer_size`: bytes of the longest datagram that is passed on, either way. Default 65,535: every one.
    pub buffer_size: u32,
}

//! Why a datagram was not passed on, in mode proxy.

use super::by_label;

/// Why a datagram of a client, or the answer of a server, was dropped by the UDP proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DatagramDrop {
    /// It is longer than `udp.buffer_size`, or with its PROXY header longer than any datagram.
    TooLong,
    /// It would have begun a session, and the frontend has `udp.max_sessions` or `max_connections`.
    SessionsFull,
    /// It would have begun a session, and the process has as many connections as its open files allow.
    ProcessFull,
    /// Its session is another worker's, whose queue was full.
    HandOver,
    /// It found the queue of its socket full: this process was too slow, or the burst too long. Merged ones count once.
    QueueFull,
    /// It was sent to a broadcast or multicast address.
    NotUnicast,
    /// The kernel did not take it: a queue on the way out is full, or there is no way.
    SendFailed,
    /// It would have begun a session at an address that a reload has removed.
    Removed,
    /// It would have begun a session that takes a socket of the broker's, and too many wait for those already.
    NoSourceSocket,
}

impl DatagramDrop {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 9] = [
        Self::TooLong,
        Self::SessionsFull,
        Self::ProcessFull,
        Self::HandOver,
        Self::QueueFull,
        Self::NotUnicast,
        Self::SendFailed,
        Self::Removed,
        Self::NoSourceSocket,
    ];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::SessionsFull => "sessions_full",
            Self::ProcessFull => "process_full",
            Self::HandOver => "hand_over",
            Self::QueueFull => "queue_full",
            Self::NotUnicast => "not_unicast",
            Self::SendFailed => "send_failed",
            Self::Removed => "removed",
            Self::NoSourceSocket => "no_source_socket",
        }
    }

    /// What drops it, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::TooLong => "it is longer than udp.buffer_size, or its PROXY header makes it too long",
            Self::SessionsFull => {
                "it would begin a session, and the frontend has udp.max_sessions or max_connections open"
            }
            Self::ProcessFull => {
                "it would begin a session, and all connections that the limit of open files allows are in use"
            }
            Self::HandOver => "its session belongs to another worker, whose queue is full",
            Self::QueueFull => {
                "it found the queue of its socket full: Convey was too slow, or the burst too long"
            }
            Self::NotUnicast => "it was sent to a broadcast or multicast address",
            Self::SendFailed => "the kernel did not send it: a queue is full, or there is no route",
            Self::Removed => "it would begin a session at an address that a reload has removed",
            Self::NoSourceSocket => {
                "it would begin a session with source = \"client\" or a mark, and too many datagrams wait for a socket of the broker's"
            }
        }
    }
}

by_label!(DatagramDrop, DatagramDrop::ALL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_stands_at_its_discriminant_and_is_read_by_its_label() {
        for (index, reason) in DatagramDrop::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(reason.label().parse(), Ok(*reason));
        }
    }
}

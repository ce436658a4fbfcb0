//! What Convey says of the packet modes: the one place that knows how the status spells it.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use convey::base::PacketReason;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::lab::{Convey, Host, PATIENCE, wait_until};

/// How often packets came to this end, over all workers.
#[track_caller]
pub fn packets(convey: &Convey, reason: PacketReason) -> u64 {
    let status = convey.status_json();
    let packets = &status["packet"]["packets"];
    assert!(packets.is_object(), "no counters of packets in {status}");
    // what has not occurred need not be listed
    packets[reason.label()].as_u64().unwrap_or(0)
}

/// Flows that have given way to new ones.
#[track_caller]
pub fn gave_way(convey: &Convey) -> u64 {
    let status = convey.status_json();
    let count = status["packet"]["flows"]["gave_way"].as_u64();
    count.unwrap_or_else(|| panic!("no such number in {status}"))
}

/// Flows in the tables now, of both modes.
#[track_caller]
pub fn flows(convey: &Convey) -> u64 {
    let status = convey.status_json();
    let flows = &status["packet"]["flows"];
    let count = |kind: &str| flows[kind].as_u64();
    match (count("nat"), count("dsr")) {
        (Some(nat), Some(dsr)) => nat + dsr,
        _ => panic!("no number of flows in {status}"),
    }
}

/// A client's passthrough flow: its state and our address towards the server; `None` if there is none.
#[track_caller]
pub fn flow(convey: &Convey, client: SocketAddr) -> Option<(String, SocketAddr)> {
    let json = convey.order("connections --json");
    let listed: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"));
    let connections = listed["connections"].as_array().expect("a list");
    let entry = connections
        .iter()
        .find(|entry| entry["client"] == client.to_string() && entry["mode"] == "passthrough")?;
    let text = |key: &str| {
        entry["flow"][key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {entry}"))
    };
    Some((text("state").to_owned(), text("nat").parse().expect("an address")))
}

/// Established passthrough flows of a client.
#[track_caller]
pub fn established(convey: &Convey, client: IpAddr) -> usize {
    let json = convey.order("connections --limit 20000 --json");
    let listed: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"));
    let of_client = |entry: &&Value| {
        let addr: Option<SocketAddr> = entry["client"].as_str().and_then(|text| text.parse().ok());
        addr.is_some_and(|addr| addr.ip() == client)
            && entry["mode"] == "passthrough"
            && entry["flow"]["state"] == "established"
    };
    listed["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(of_client)
        .count()
}

/// `live` or `waiting`.
#[track_caller]
pub fn state(convey: &Convey, frontend: &str) -> String {
    let status = convey.status_json();
    match &status["frontends"][frontend]["state"] {
        Value::String(state) => state.clone(),
        _ => panic!("no state of frontend {frontend} in {status}"),
    }
}

/// Waits for a frontend's state.
#[track_caller]
pub fn wait_state(convey: &Convey, frontend: &str, expected: &str) {
    wait_until(&format!("{frontend} is {expected}"), PATIENCE, || {
        state(convey, frontend) == expected
    });
}

/// What `convey explain` says of a flow: the server's name if it has one, and the whole answer.
#[track_caller]
pub fn explain(
    convey: &Convey,
    protocol: &str,
    client: SocketAddr,
    to: SocketAddr,
) -> (Option<String>, Value) {
    let output = convey.cli(&format!("explain --json {protocol} {client} {to}"));
    assert!(
        matches!(output.status.code(), Some(0 | 69)),
        "convey explain: {output:?}"
    );
    let answer: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in the explanation {output:?}"));
    let server = answer["server"].as_str().map(str::to_owned);
    assert_eq!(server.is_some(), output.status.success(), "{answer}");
    (server, answer)
}

/// A client that may be refused in silence: Convey then counts one more packet for one of these reasons, which nobody else
/// must be sending.
pub struct Applicant<'a> {
    client: &'a Host,
    to: SocketAddr,
    /// The kernel in its place does not tell.
    convey: Option<&'a Convey>,
    reasons: &'a [PacketReason],
    refused: u64,
}

impl<'a> Applicant<'a> {
    /// What was refused before does not count.
    #[track_caller]
    pub fn new(
        client: &'a Host,
        to: SocketAddr,
        convey: Option<&'a Convey>,
        reasons: &'a [PacketReason],
    ) -> Self {
        let mut applicant = Self {
            client,
            to,
            convey,
            reasons,
            refused: 0,
        };
        applicant.refused = applicant.count();
        applicant
    }

    #[track_caller]
    fn count(&self) -> u64 {
        let counted = |convey| self.reasons.iter().map(|reason| packets(convey, *reason)).sum();
        self.convey.map_or(0, counted)
    }

    /// Connects, or is refused.
    #[track_caller]
    pub fn try_connect(&mut self) -> Option<TcpStream> {
        let socket = self
            .client
            .inside(|| Socket::new(Domain::for_address(self.to), Type::STREAM, None).expect("a socket"));
        socket
            .set_nonblocking(true)
            .expect("a socket that does not block");
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other.expect("a connect that begins"),
        }
        let (start, mut is_connected) = (Instant::now(), false);
        wait_until("a connection or a refusal", PATIENCE, || {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::from(20_u8)).expect("poll");
            is_connected = socket.peer_addr().is_ok();
            is_connected
                || match self.convey {
                    Some(_) => self.count() > self.refused,
                    None => start.elapsed() > Duration::from_secs(1),
                }
        });
        if !is_connected {
            self.refused = self.count();
            return None;
        }
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false).expect("a stream that blocks");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Some(stream)
    }
}

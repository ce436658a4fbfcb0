//! The access log: one event for each finished connection.

use std::{fmt, num::NonZeroU32, time::Duration};

use tracing::{
    Level, Metadata,
    callsite::{Callsite, Identifier},
    field::{FieldSet, Value, display},
    metadata::Kind,
    subscriber::Interest,
};

use super::{queue::Queue, time::Utc};
use crate::base::{AccessRecord, AccessSink, BackendName, Protocol, ServerTlsFailure};

/// Sends access records to the logging thread.
#[derive(Debug)]
pub struct AccessLog {
    queue: Queue,
}

impl AccessLog {
    /// An access log that writes through a queue.
    pub(super) const fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

impl AccessSink for AccessLog {
    fn record(&self, record: AccessRecord) {
        self.queue.access(record);
    }
}

/// The event's description. It is never registered with `tracing`: only the logging thread makes such events.
pub static METADATA: Metadata<'static> = Metadata::new(
    "access",
    TARGET,
    Level::INFO,
    None,
    None,
    None,
    FieldSet::new(&FIELDS, Identifier(&AccessCallsite)),
    Kind::EVENT,
);

/// The event's target.
const TARGET: &str = "convey::access";

/// In the order of [`with_values`].
static FIELDS: [&str; 37] = [
    "message",
    "event",
    "frontend",
    "backend",
    "server",
    "server_addr",
    "client",
    "peer",
    "listen",
    "protocol",
    "reason",
    "code",
    "bytes_in",
    "bytes_out",
    "datagrams_in",
    "datagrams_out",
    "queue_ms",
    "connect_ms",
    "total_ms",
    "retries",
    "redispatched",
    "route",
    "sni",
    "unique_id",
    "tls_version",
    "tls_cipher",
    "tls_group",
    "alpn",
    "tls_resumed",
    "client_subject",
    "tls_failure",
    "server_tls_version",
    "server_tls_cipher",
    "server_tls_group",
    "server_alpn",
    "server_tls_resumed",
    "server_tls_failure",
];

struct AccessCallsite;

impl Callsite for AccessCallsite {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}

/// Calls `take` with the value of every field; those that the connection did not get to record nothing.
pub fn with_values(record: &AccessRecord, take: impl FnOnce(&[Option<&dyn Value>])) {
    let message = display(Line(record));
    let server = record.server.as_ref().map(|(name, _)| name.as_str());
    let server_addr = record.server.as_ref().map(|(_, addr)| display(addr));
    let backend = record.backend.as_ref().map(BackendName::as_str);
    let (client, listen) = (display(record.client), display(record.listen));
    let peer = (record.client != record.peer.into()).then(|| display(record.peer));
    let (queue_ms, connect_ms) = (record.queue_time.map(millis), record.connect_time.map(millis));
    let (sni, unique_id) = (record.sni.as_deref(), record.unique_id.map(display));
    // what is not said is TCP, as it always was
    let protocol = (record.protocol != Protocol::Tcp).then(|| record.protocol.label());
    let (tls, server_tls) = (record.tls.as_deref(), record.server_tls.as_deref());
    let route = record.route.map(NonZeroU32::get);
    // an Option that is None records nothing
    let values: [&dyn Value; FIELDS.len()] = [
        &message,
        &"access",
        &record.frontend.as_str(),
        &backend,
        &server,
        &server_addr,
        &client,
        &peer,
        &listen,
        &protocol,
        &record.reason.label(),
        &record.reason.code(),
        &record.bytes_in,
        &record.bytes_out,
        &record.datagrams.map(|(from_client, _)| from_client),
        &record.datagrams.map(|(_, from_server)| from_server),
        &queue_ms,
        &connect_ms,
        &millis(record.total_time),
        &record.retries,
        &record.redispatched,
        &route,
        &sni,
        &unique_id,
        &tls.map(|tls| tls.version),
        &tls.map(|tls| tls.cipher),
        &tls.and_then(|tls| tls.group),
        &tls.and_then(|tls| tls.alpn.as_deref()),
        &tls.map(|tls| tls.resumed),
        &tls.and_then(|tls| tls.client_subject.as_deref()),
        &record.tls_failure,
        &server_tls.map(|tls| tls.version),
        &server_tls.map(|tls| tls.cipher),
        &server_tls.and_then(|tls| tls.group),
        &server_tls.and_then(|tls| tls.alpn.as_deref()),
        &server_tls.map(|tls| tls.resumed),
        &record.server_tls_failure.map(ServerTlsFailure::label),
    ];
    take(&values.map(Some));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The line that a person reads, after HAProxy's tcplog (configuration manual, section 8.2.2):
///
/// ```text
/// CLIENT [ACCEPTED, UTC] FRONTEND BACKEND/SERVER QUEUE/CONNECT/TOTAL BYTES_IN/BYTES_OUT CODE FC/SC/RETRIES
///     [udp=DATAGRAMS_IN/DATAGRAMS_OUT] [sni=NAME] [peer=ADDR] [VERSION/CIPHER[/resumed]] [tls_failure=WHY] [server_tls=VERSION/CIPHER[/resumed]]
///     [server_tls_failure=WHY]
/// ```
///
/// `-` and `<NOSRV>` stand for a backend and a server that it did not get to. Times in milliseconds, -1 for what was not reached; FC and SC are the connections of frontend and server at the
/// end, this one included; a + before the retries says that one went to another server.
pub struct Line<'a>(pub &'a AccessRecord);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        write!(
            f,
            "{} [{}] {} {}/",
            record.client,
            Utc::from(record.accepted_at).common_log(),
            record.frontend,
            record.backend.as_ref().map_or("-", BackendName::as_str)
        )?;
        match &record.server {
            Some((name, _)) => f.write_str(name.as_str())?,
            None => f.write_str("<NOSRV>")?,
        }
        write!(
            f,
            " {}/{}/{} {}/{} {} {}/{}/{}{}",
            Millis(record.queue_time),
            Millis(record.connect_time),
            millis(record.total_time),
            record.bytes_in,
            record.bytes_out,
            record.reason.code(),
            record.frontend_connections,
            record.server_connections,
            if record.redispatched { "+" } else { "" },
            record.retries
        )?;
        if let Some((from_client, from_server)) = record.datagrams {
            write!(f, " udp={from_client}/{from_server}")?;
        }
        if let Some(sni) = &record.sni {
            write!(f, " sni={sni}")?;
        }
        // whom its PROXY header does not name
        if record.client != record.peer.into() {
            write!(f, " peer={}", record.peer)?;
        }
        if let Some(tls) = &record.tls {
            let resumed = if tls.resumed { "/resumed" } else { "" };
            write!(f, " {}/{}{resumed}", tls.version, tls.cipher)?;
        }
        if let Some(why) = record.tls_failure {
            write!(f, " tls_failure={why}")?;
        }
        if let Some(tls) = &record.server_tls {
            let resumed = if tls.resumed { "/resumed" } else { "" };
            write!(f, " server_tls={}/{}{resumed}", tls.version, tls.cipher)?;
        }
        if let Some(why) = record.server_tls_failure {
            write!(f, " server_tls_failure={why}")?;
        }
        Ok(())
    }
}

struct Millis(Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => fmt::Display::fmt(&millis(duration), f),
            None => f.write_str("-1"),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::base::{
        ClientAddr, FrontendName, ListenAddr, ListenPlace, PeerAddr, Remote, ServerAddr, ServerName,
        TerminationReason,
    };
    use std::time::UNIX_EPOCH;

    pub fn record() -> AccessRecord {
        AccessRecord {
            accepted_at: UNIX_EPOCH + Duration::from_millis(1_233_922_371_443),
            peer: Remote::Addr(PeerAddr(([10, 0, 1, 2], 33313).into())),
            client: Remote::Addr(ClientAddr(([10, 0, 1, 2], 33313).into())),
            listen: ListenPlace::Network(ListenAddr::new(([10, 0, 1, 1], 80).into()).into()),
            protocol: Protocol::Tcp,
            frontend: FrontendName::new("fnt").unwrap(),
            backend: Some(BackendName::new("bck").unwrap()),
            server: Some((
                ServerName::new("srv1").unwrap(),
                ServerAddr::new(([10, 0, 2, 1], 8080).into()),
            )),
            queue_time: Some(Duration::ZERO),
            connect_time: Some(Duration::from_micros(1_999)),
            total_time: Duration::from_millis(5007),
            bytes_in: 77,
            bytes_out: 212,
            datagrams: None,
            reason: TerminationReason::Normal,
            retries: 1,
            redispatched: true,
            frontend_connections: 3,
            server_connections: 2,
            route: None,
            sni: None,
            unique_id: None,
            tls: None,
            tls_failure: None,
            server_tls: None,
            server_tls_failure: None,
        }
    }

    /// Ended before a server was chosen.
    pub fn refused() -> AccessRecord {
        AccessRecord {
            server: None,
            queue_time: None,
            connect_time: None,
            reason: TerminationReason::NoServer,
            retries: 0,
            redispatched: false,
            server_connections: 0,
            ..record()
        }
    }

    #[test]
    fn a_line_reads_like_haproxys_tcplog() {
        assert_eq!(
            Line(&record()).to_string(),
            "10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 0/1/5007 77/212 -- 3/2/+1"
        );
    }

    #[test]
    fn who_comes_by_a_unix_socket_has_no_address() {
        let path = "unix:/run/convey/web.sock";
        let mut record = AccessRecord {
            peer: Remote::Unix,
            client: Remote::Unix,
            listen: path.parse().unwrap(),
            ..record()
        };
        let line = Line(&record).to_string();
        assert!(
            line.starts_with("unix [06/Feb/2009") && !line.contains("peer="),
            "{line}"
        );
        record.client = std::net::SocketAddr::from(([192, 0, 2, 1], 40_000)).into();
        let line = Line(&record).to_string();
        assert!(
            line.starts_with("192.0.2.1:40000 [") && line.ends_with(" peer=unix"),
            "{line}"
        );
    }

    #[test]
    fn the_name_asked_for_and_a_peer_that_speaks_for_the_client_stand_at_the_end() {
        let record = AccessRecord {
            peer: Remote::Addr(PeerAddr(([10, 0, 9, 9], 4000).into())),
            sni: Some("www.example.com".into()),
            ..record()
        };
        assert_eq!(
            Line(&record).to_string(),
            "10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 0/1/5007 77/212 -- 3/2/+1 sni=www.example.com \
             peer=10.0.9.9:4000"
        );
    }

    #[test]
    fn what_was_not_reached_is_minus_one_and_nosrv() {
        assert_eq!(
            Line(&refused()).to_string(),
            "10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/<NOSRV> -1/-1/5007 77/212 SC 3/0/0"
        );
    }
    #[test]
    fn a_connection_that_was_not_routed_has_no_backend() {
        let record = AccessRecord {
            backend: None,
            reason: TerminationReason::Resource,
            ..refused()
        };
        assert_eq!(
            Line(&record).to_string(),
            "10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt -/<NOSRV> -1/-1/5007 77/212 RC 3/0/0"
        );
    }
}

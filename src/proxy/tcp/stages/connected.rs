//! A connection to a server, and what is relayed over it.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::{routed::Routed, secured::secure};
use crate::{
    base::TerminationReason,
    proxy::{
        choose::Chosen,
        tcp::{
            connect::{ConnectError, connect},
            direction::Early,
            relay::{Relay, RelayTimeouts},
            ways::Plain,
        },
    },
    snapshot::live::StatsShard,
    sys::{
        readiness::{Stream, is_hung_up},
        tcp,
    },
};

/// Most of a pause before the same server is tried again, when there is no other; HAProxy waits as long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A connection that has a server.
pub struct Connected<'a> {
    routed: &'a mut Routed,
    server: Stream,
    chosen: Chosen,
}

impl<'a> Connected<'a> {
    /// Chooses a server and connects to it, and to others while connects fail and retries are left. `timer` is the
    /// connection's.
    ///
    /// # Errors
    /// The reason with which the connection ends.
    pub async fn establish(
        routed: &'a mut Routed,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<Self, TerminationReason> {
        loop {
            let chosen = routed.choose().await?;
            let chosen_at = Instant::now();
            let is_first = routed.outcome.retries == 0;
            let user_timeout = routed.frontend.config.tcp_user_timeout;
            let source = routed.source();
            let has_tls = routed.tls.is_some();
            let (up, client) = (&mut routed.up, &routed.identified.accepted.socket);
            let early = || {
                let early = if is_first && !has_tls {
                    up.read_early(client)
                } else {
                    still_there(client)
                };
                match early {
                    // a ClientHello follows in any case
                    Early::Nothing if chosen.backend.tls.is_some() => Early::Data,
                    early => early,
                }
            };
            let connected = connect(user_timeout, &chosen, source, timer.as_mut(), chosen_at, early).await;
            let secured = match (connected, &chosen.backend.tls) {
                // boxed, as all that TLS adds is
                (Ok(server), Some(tls)) => {
                    let deadline = chosen_at + chosen.backend.config.connect_timeout;
                    let shaken = Box::pin(secure(routed, &chosen, tls, &server, timer.as_mut(), deadline));
                    shaken.await.map(|()| server)
                }
                (Ok(server), None) => {
                    if let Some(how) = chosen.backend.config.send_proxy {
                        routed.announce(how);
                    }
                    Ok(server)
                }
                (Err(error), _) => Err(error),
            };
            match secured {
                Ok(server) => {
                    let took = chosen_at.elapsed();
                    let worker = routed.worker();
                    chosen.server().live.connect_time.own(worker).add(took);
                    chosen.backend.live.connect_time.own(worker).add(took);
                    routed.outcome.connect_time = Some(took);
                    return Ok(Self {
                        routed,
                        server,
                        chosen,
                    });
                }
                Err(error) if error.is_final() => return Err(error.reason()),
                Err(error) => prepare_retry(routed, &error, chosen, timer.as_mut()).await?,
            }
        }
    }

    /// Relays to the end, whose reason this returns.
    pub async fn relay(self, timer: Pin<&mut Sleep>) -> TerminationReason {
        let Self {
            routed,
            server,
            chosen,
        } = self;
        let worker = routed.worker();
        let accepted = &routed.identified.accepted;
        let live = &chosen.server().live;
        // with TLS 1.3 a server refuses our certificate only after the handshake
        let may_be_refused = routed.outcome.server_tls.is_some();
        if !may_be_refused {
            chosen.note_success();
        }
        let in_server = live.counters.shard(worker);
        let _open = Opened::new(in_server);
        accepted.registration.connected(
            &chosen.backend,
            chosen.index(),
            &server,
            routed.outcome.server_tls.as_ref(),
        );
        let limits = RelayTimeouts {
            frontend: &routed.frontend.config,
            begun: &accepted.origin.at,
            server_keepalive: (chosen.backend.config.server_keepalive.as_ref())
                .filter(|_| !chosen.server().addr.is_unix()),
        };
        let rates = routed.frontend.config.rates;
        let in_frontend = routed.frontend.live.counters.shard(worker);
        let in_backend = chosen.backend.live.counters.shard(worker);
        let count = |from_client, from_server| {
            accepted.bytes.from_client.add(from_client);
            accepted.bytes.from_server.add(from_server);
            for shard in [in_frontend, in_backend, in_server] {
                shard.bytes_in.add(from_client);
                shard.bytes_out.add(from_server);
            }
        };
        let is_cut = || accepted.registration.ended_by().is_some();
        let client = &accepted.socket;
        let reason = match &mut routed.tls {
            None => {
                let ways = Plain::new(&mut routed.up);
                let relay = Relay::new(client, &server, ways, limits).limited(rates);
                relay.run(timer, count, is_cut).await
            }
            // boxed, as all that TLS adds is
            Some(tls) => {
                let relay = Relay::new(client, &server, &mut **tls, limits).limited(rates);
                Box::pin(relay.run(timer, count, is_cut)).await
            }
        };
        let is_silent = accepted.bytes.from_server.read() == 0;
        let refusal = (routed.tls.as_ref())
            .filter(|_| is_silent)
            .and_then(|tls| tls.refusal());
        let reason = match refusal {
            Some(why) => {
                routed.outcome.server_tls_failure = Some(why);
                in_server.tls_failures[why as usize].add(1);
                TerminationReason::ServerTls
            }
            // a server that knows what a truncation is resets, or sends an alert
            None if reason == TerminationReason::ServerAbort
                && routed.tls.as_ref().is_some_and(|tls| tls.is_client_cut()) =>
            {
                TerminationReason::ClientAbort
            }
            None => reason,
        };
        if reason == TerminationReason::ServerTls {
            chosen.note_failure(accepted.shared(), refusal);
        } else if may_be_refused && !is_silent {
            chosen.note_success();
        }
        in_server.ended[accepted.registration.ended_by().unwrap_or(reason) as usize].add(1);
        live.session_time.own(worker).add(accepted.origin.age());
        if reason != TerminationReason::Normal {
            tcp::reset_on_close(&server);
        }
        routed.outcome.server_connections = live.slots.used();
        // out of the registry's reach before the descriptor is closed
        accepted.registration.disconnected();
        reason
    }
}

/// Counts a failed connect, and routes the connection anew for the next one.
///
/// # Errors
/// The reason with which the connection ends, when no retry is left.
async fn prepare_retry(
    routed: &mut Routed,
    error: &ConnectError,
    chosen: Chosen,
    mut timer: Pin<&mut Sleep>,
) -> Result<(), TerminationReason> {
    let server = chosen.server();
    let shards = [
        &server.live.counters,
        &chosen.backend.live.counters,
        &routed.frontend.live.counters,
    ]
    .map(|counters| counters.shard(routed.worker()));
    for shard in shards {
        shard.connect_failures.add(1);
    }
    tracing::debug!(
        event = "connect_failed",
        frontend = %routed.frontend.config.name,
        backend = %chosen.backend.config.name,
        server = %server.name,
        "connect to {} failed: {error}",
        chosen.addr()
    );
    let why = match error {
        ConnectError::Tls(why) => Some(*why),
        _ => None,
    };
    routed.outcome.server_tls_failure = why;
    if let Some(why) = why {
        let in_server = server.live.counters.shard(routed.worker());
        in_server.tls_failures[why as usize].add(1);
    }
    if error.is_servers_fault() {
        chosen.note_failure(routed.identified.accepted.shared(), why);
    }
    // a connection that ends here ends in the backend that it has failed in
    if routed.outcome.retries >= routed.backend_in_effect().config.retries {
        return Err(error.reason());
    }
    routed.outcome.retries += 1;
    for shard in shards {
        shard.retries.add(1);
    }
    routed.tried.add(server);
    // the slot is given back before any pause
    drop(chosen);
    routed.reroute();
    let mut next = Instant::now();
    if !routed.has_another() {
        routed.tried.clear();
        next += RETRY_PAUSE.min(routed.backend().config.connect_timeout);
        timer.as_mut().reset(next.into());
        timer.as_mut().await;
        routed.reroute();
    }
    timer.reset((next + routed.backend().config.connect_timeout).into());
    Ok(())
}

/// Before a retry: the client may have gone meanwhile.
fn still_there(client: &Stream) -> Early {
    if is_hung_up(client) {
        Early::Gone
    } else {
        Early::Nothing
    }
}

/// Counts a connection as open in its server until it is dropped.
struct Opened<'a>(&'a StatsShard);

impl<'a> Opened<'a> {
    fn new(shard: &'a StatsShard) -> Self {
        shard.opened.add(1);
        Self(shard)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}

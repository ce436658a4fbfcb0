//! Servers: there may be thousands, so each has a few dozen lines at most.

use std::sync::atomic::Ordering;

use super::{
    family::{Family, Samples, Scope::Server, Value},
    scrape::Scrape,
};
use crate::{
    admin::packets::ServerViews,
    base::{CheckOutcome, Handshake, ServerDrop, ServerTlsFailure, TerminationReason},
    snapshot::{
        ServerView,
        live::{Counter, StatsShard},
    },
};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::gauge(
        Server,
        "convey_server_state",
        "The server's state: the series of that state is there, with the value 1",
        |scrape, put| {
            all(scrape, |backend, server| {
                let labels = [("backend", backend), ("server", server.name.as_str())];
                put(
                    &[labels[0], labels[1], ("state", server.state.label())],
                    true.into(),
                );
            });
        },
    ),
    Family::gauge(
        Server,
        "convey_server_eligible",
        "Whether the server is eligible",
        |scrape, put| each(scrape, put, |server| Some(server.is_eligible().into())),
    ),
    Family::gauge(
        Server,
        "convey_server_last_change_timestamp",
        "Since when the server is in its state, in seconds since 1970",
        |scrape, put| {
            each(scrape, put, |server| {
                Some(Value::Number(scrape.timestamp(server.state_since?)))
            });
        },
    )
    .in_unit("seconds"),
    Family::gauge(
        Server,
        "convey_server_weight",
        "The weight in effect",
        |scrape, put| each(scrape, put, |server| Some(u32::from(server.weight).into())),
    ),
    Family::gauge(
        Server,
        "convey_server_current_connections",
        "Connections, sessions or flows that are open",
        |scrape, put| each(scrape, put, |server| Some(server.live.counters.current().into())),
    ),
    Family::gauge(
        Server,
        "convey_server_max_connections",
        "The limit of open connections, where there is one",
        |scrape, put| each(scrape, put, |server| Some(server.max_connections?.into())),
    ),
    Family::counter(
        Server,
        "convey_server_connections",
        "Established connections, sessions or flows",
        |scrape, put| count(scrape, put, |shard| &shard.opened),
    ),
    Family::counter(
        Server,
        "convey_server_in",
        "Bytes from clients to the server",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_in),
    )
    .in_unit("bytes"),
    Family::counter(
        Server,
        "convey_server_out",
        "Bytes from the server to clients",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_out),
    )
    .in_unit("bytes"),
    Family::counter(
        Server,
        "convey_server_connect_failures",
        "Connect attempts that failed",
        |scrape, put| count(scrape, put, |shard| &shard.connect_failures),
    ),
    Family::counter(
        Server,
        "convey_server_retries",
        "Connect attempts after which another was made",
        |scrape, put| count(scrape, put, |shard| &shard.retries),
    ),
    Family::counter(
        Server,
        "convey_server_connect_time",
        "How long its established connections took, together",
        |scrape, put| {
            each(scrape, put, |server| {
                Some(seconds(server.live.connect_time.times().micros))
            });
        },
    )
    .in_unit("seconds"),
    Family::counter(
        Server,
        "convey_server_session_time",
        "How long its ended connections lasted, together; in mode proxy",
        |scrape, put| {
            each(scrape, put, |server| {
                Some(seconds(server.live.session_time.times().micros))
            });
        },
    )
    .in_unit("seconds"),
    Family::counter(
        Server,
        "convey_server_ended_connections",
        "Ended connections by reason; reasons without any are absent",
        |scrape, put| {
            by_word(
                scrape,
                put,
                "reason",
                &TerminationReason::ALL,
                TerminationReason::label,
                |shard| &*shard.ended,
            );
        },
    ),
    Family::counter(
        Server,
        "convey_server_tls_failures",
        "TLS handshakes with the server that failed, by reason; reasons without any are absent",
        |scrape, put| {
            by_word(
                scrape,
                put,
                "reason",
                &ServerTlsFailure::ALL,
                ServerTlsFailure::label,
                |shard| &shard.tls_failures,
            );
        },
    ),
    Family::counter(
        Server,
        "convey_server_checks",
        "Health checks by result",
        |scrape, put| {
            all(scrape, |backend, server| {
                let Some(checks) = &server.checks else { return };
                for (outcome, count) in CheckOutcome::ALL.into_iter().zip(checks.counts().0) {
                    put(
                        &[
                            ("backend", backend),
                            ("server", server.name.as_str()),
                            ("result", outcome.label()),
                        ],
                        count.into(),
                    );
                }
            });
        },
    ),
    Family::gauge(
        Server,
        "convey_server_check_time",
        "How long the last health check took",
        |scrape, put| {
            each(scrape, put, |server| {
                let took = server.checks.as_ref()?.counts().1?;
                Some(Value::Number(took.as_secs_f64()))
            });
        },
    )
    .in_unit("seconds"),
    Family::counter(
        Server,
        "convey_server_handshakes",
        "TCP handshakes by how they ended, in packet modes; those without any are absent",
        |scrape, put| {
            by_word(
                scrape,
                put,
                "result",
                &Handshake::ALL,
                Handshake::label,
                |shard| &shard.handshakes,
            );
        },
    ),
    Family::counter(
        Server,
        "convey_server_dropped_packets",
        "Packets that did not leave for the server, by reason, in packet modes; reasons without any are absent",
        |scrape, put| {
            by_word(
                scrape,
                put,
                "reason",
                &ServerDrop::ALL,
                ServerDrop::label,
                |shard| &shard.dropped,
            );
        },
    ),
    Family::gauge(
        Server,
        "convey_server_nat_ports_claimed",
        "NAT ports towards the server that flows have claimed, in mode passthrough",
        |scrape, put| {
            each(scrape, put, |server| {
                let claimed = server.live.nat_ports.load(Ordering::Relaxed);
                (claimed > 0).then(|| claimed.into())
            });
        },
    ),
    Family::gauge(
        Server,
        "convey_server_nat_ports",
        "NAT ports towards the server that there are, in mode passthrough",
        |scrape, put| {
            let views = ServerViews::new(&scrape.status);
            for (name, backend) in &scrape.status.snapshot.backends {
                for server in &backend.servers {
                    if let Some(ports) = views.nat_ports(backend, server) {
                        let labels = [("backend", name.as_str()), ("server", server.name.as_str())];
                        put(&labels, ports.available.into());
                    }
                }
            }
        },
    ),
];

fn all(scrape: &Scrape, mut with: impl FnMut(&str, &ServerView)) {
    for (backend, view) in &scrape.status.snapshot.backends {
        for server in &view.servers {
            with(backend.as_str(), server);
        }
    }
}

fn each(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&ServerView) -> Option<Value>) {
    all(scrape, |backend, server| {
        if let Some(value) = value(server) {
            put(&[("backend", backend), ("server", server.name.as_str())], value);
        }
    });
}

fn count(scrape: &Scrape, put: &mut Samples<'_>, of: fn(&StatsShard) -> &Counter) {
    each(scrape, put, |server| Some(server.live.counters.sum(of).into()));
}

fn by_word<R: Copy>(
    scrape: &Scrape,
    put: &mut Samples<'_>,
    label: &'static str,
    words: &[R],
    name: fn(R) -> &'static str,
    of: fn(&StatsShard) -> &[Counter],
) {
    all(scrape, |backend, server| {
        for (index, word) in words.iter().enumerate() {
            let count = server.live.counters.sum(|shard| &of(shard)[index]);
            if count > 0 {
                let labels = [
                    ("backend", backend),
                    ("server", server.name.as_str()),
                    (label, name(*word)),
                ];
                put(&labels, count.into());
            }
        }
    });
}

#[allow(
    clippy::cast_precision_loss,
    reason = "exact for three hundred years of microseconds"
)]
fn seconds(micros: u64) -> Value {
    Value::Number(micros as f64 / 1e6)
}

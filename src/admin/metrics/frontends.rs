//! Frontends.

use super::{
    family::{Family, Samples, Scope::Frontend, Value},
    scrape::Scrape,
};
use crate::{
    admin::packets,
    base::{AccessReason, DatagramDrop, Protocol, TerminationReason},
    config::CipherSuite,
    snapshot::{
        FrontendView,
        live::{Counter, StatsShard},
    },
};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::gauge(
        Frontend,
        "convey_frontend_up",
        "Whether clients that reach the frontend are served",
        |scrape, put| {
            let status = &scrape.status;
            each(scrape, put, |view| {
                Some(packets::serves(&status.snapshot, view, &status.waiting).into())
            });
        },
    ),
    Family::gauge(
        Frontend,
        "convey_frontend_waiting_addresses",
        "Addresses that no interface has yet, or that cannot be listened on",
        |scrape, put| {
            let waiting = &scrape.status.waiting;
            each(scrape, put, |view| {
                Some(packets::frontend_state(view, waiting).1.len().into())
            });
        },
    ),
    Family::gauge(
        Frontend,
        "convey_frontend_current_connections",
        "Connections, sessions or flows that are open",
        |scrape, put| each(scrape, put, |view| Some(view.live.counters.current().into())),
    ),
    Family::gauge(
        Frontend,
        "convey_frontend_max_connections",
        "The limit of open connections or sessions, where there is one",
        |scrape, put| each(scrape, put, |view| Some(view.config.most_connections()?.into())),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_connections",
        "Connections, sessions or flows",
        |scrape, put| count(scrape, put, |shard| &shard.opened),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_in",
        "Bytes from clients to servers",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_in),
    )
    .in_unit("bytes"),
    Family::counter(
        Frontend,
        "convey_frontend_out",
        "Bytes from servers to clients",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_out),
    )
    .in_unit("bytes"),
    Family::counter(
        Frontend,
        "convey_frontend_in_datagrams",
        "Datagrams from clients to servers, in mode proxy",
        |scrape, put| datagrams(scrape, put, |shard| &shard.datagrams_in),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_out_datagrams",
        "Datagrams from servers to clients, in mode proxy",
        |scrape, put| datagrams(scrape, put, |shard| &shard.datagrams_out),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_dropped_datagrams",
        "Datagrams that the UDP proxy has dropped, by reason; reasons without any are absent",
        |scrape, put| {
            by_reason(
                scrape,
                put,
                "reason",
                &DatagramDrop::ALL,
                DatagramDrop::label,
                |shard| &shard.lost,
            );
        },
    ),
    Family::counter(
        Frontend,
        "convey_frontend_ended_connections",
        "Ended connections by reason; reasons without any are absent",
        |scrape, put| {
            by_reason(
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
        Frontend,
        "convey_frontend_refused_connections",
        "Connections refused by access rules or limits, by reason; reasons without any are absent",
        |scrape, put| {
            by_reason(
                scrape,
                put,
                "reason",
                &AccessReason::ALL,
                AccessReason::label,
                |shard| &shard.refused,
            );
        },
    ),
    Family::counter(
        Frontend,
        "convey_frontend_accept_errors",
        "Accept calls that failed for lack of descriptors or memory",
        |scrape, put| count(scrape, put, |shard| &shard.accept_errors),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_connect_failures",
        "Connect attempts to servers that failed",
        |scrape, put| count(scrape, put, |shard| &shard.connect_failures),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_retries",
        "Connect attempts after the first of a connection",
        |scrape, put| count(scrape, put, |shard| &shard.retries),
    ),
    Family::histogram(
        Frontend,
        "convey_frontend_session_time",
        "How long connections lasted, from accept to the end; in mode proxy",
        |scrape, put| each(scrape, put, |view| Value::times(view.live.session_time.times())),
    ),
    Family::histogram(
        Frontend,
        "convey_frontend_tls_handshake_time",
        "How long complete TLS handshakes with clients took",
        |scrape, put| each(scrape, put, |view| Value::times(view.live.handshake_times())),
    ),
    Family::counter(
        Frontend,
        "convey_frontend_tls_sessions",
        "TLS sessions with clients by version and cipher suite; those without any are absent",
        |scrape, put| {
            for (name, view) in &scrape.status.snapshot.frontends {
                for suite in CipherSuite::ALL {
                    let parts = view.live.tls.all();
                    let count: u64 = parts.map(|tls| tls.sessions[suite.index()].read()).sum();
                    if count > 0 {
                        put(
                            &[
                                ("frontend", name.as_str()),
                                ("version", suite.version().protocol()),
                                ("cipher", suite.label()),
                            ],
                            count.into(),
                        );
                    }
                }
            }
        },
    ),
    Family::counter(
        Frontend,
        "convey_frontend_tls_resumed_sessions",
        "TLS sessions with clients that went on with an earlier one",
        |scrape, put| {
            each(scrape, put, |view| {
                view.tls.as_ref()?;
                Some(
                    view.live
                        .tls
                        .all()
                        .map(|tls| tls.resumed.read())
                        .sum::<u64>()
                        .into(),
                )
            });
        },
    ),
];

fn each(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&FrontendView) -> Option<Value>) {
    for (name, view) in &scrape.status.snapshot.frontends {
        if let Some(value) = value(view) {
            put(&[("frontend", name.as_str())], value);
        }
    }
}

fn count(scrape: &Scrape, put: &mut Samples<'_>, of: fn(&StatsShard) -> &Counter) {
    each(scrape, put, |view| Some(view.live.counters.sum(of).into()));
}

fn datagrams(scrape: &Scrape, put: &mut Samples<'_>, of: fn(&StatsShard) -> &Counter) {
    each(scrape, put, |view| {
        (view.config.protocol == Protocol::Udp).then(|| view.live.counters.sum(of).into())
    });
}

fn by_reason<R: Copy>(
    scrape: &Scrape,
    put: &mut Samples<'_>,
    label: &'static str,
    reasons: &[R],
    name: fn(R) -> &'static str,
    of: fn(&StatsShard) -> &[Counter],
) {
    for (frontend, view) in &scrape.status.snapshot.frontends {
        for (index, reason) in reasons.iter().enumerate() {
            let count = view.live.counters.sum(|shard| &of(shard)[index]);
            if count > 0 {
                put(
                    &[("frontend", frontend.as_str()), (label, name(*reason))],
                    count.into(),
                );
            }
        }
    }
}

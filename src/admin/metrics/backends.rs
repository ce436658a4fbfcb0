//! Backends.

use super::{
    family::{Family, Samples, Scope::Backend, Value},
    scrape::Scrape,
};
use crate::{
    base::{ServerState, TerminationReason},
    snapshot::{
        BackendView,
        live::{Counter, StatsShard},
    },
};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::gauge(
        Backend,
        "convey_backend_up",
        "Whether the backend has an eligible server",
        |scrape, put| each(scrape, put, |view| Some((view.counts.eligible > 0).into())),
    ),
    Family::gauge(
        Backend,
        "convey_backend_eligible_servers",
        "Eligible servers",
        |scrape, put| each(scrape, put, |view| Some(view.counts.eligible.into())),
    ),
    Family::gauge(
        Backend,
        "convey_backend_servers",
        "Servers by state",
        |scrape, put| {
            for (name, view) in &scrape.status.snapshot.backends {
                for state in ServerState::ALL {
                    let count = view.servers.iter().filter(|server| server.state == state).count();
                    put(
                        &[("backend", name.as_str()), ("state", state.label())],
                        count.into(),
                    );
                }
            }
        },
    ),
    Family::gauge(
        Backend,
        "convey_backend_current_connections",
        "Connections, sessions or flows that are open",
        |scrape, put| each(scrape, put, |view| Some(view.live.counters.current().into())),
    ),
    Family::gauge(
        Backend,
        "convey_backend_queued_connections",
        "Connections that wait for a server now",
        |scrape, put| each(scrape, put, |view| Some(view.live.queue.used().into())),
    ),
    Family::counter(
        Backend,
        "convey_backend_connections",
        "Connections, sessions or flows",
        |scrape, put| count(scrape, put, |shard| &shard.opened),
    ),
    Family::counter(
        Backend,
        "convey_backend_in",
        "Bytes from clients to servers",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_in),
    )
    .in_unit("bytes"),
    Family::counter(
        Backend,
        "convey_backend_out",
        "Bytes from servers to clients",
        |scrape, put| count(scrape, put, |shard| &shard.bytes_out),
    )
    .in_unit("bytes"),
    Family::counter(
        Backend,
        "convey_backend_ended_connections",
        "Ended connections by reason; reasons without any are absent",
        |scrape, put| {
            for (name, view) in &scrape.status.snapshot.backends {
                for reason in TerminationReason::ALL {
                    let count = view.live.counters.sum(|shard| &shard.ended[reason as usize]);
                    if count > 0 {
                        put(
                            &[("backend", name.as_str()), ("reason", reason.label())],
                            count.into(),
                        );
                    }
                }
            }
        },
    ),
    Family::counter(
        Backend,
        "convey_backend_connect_failures",
        "Connect attempts to servers that failed",
        |scrape, put| count(scrape, put, |shard| &shard.connect_failures),
    ),
    Family::counter(
        Backend,
        "convey_backend_retries",
        "Connect attempts after the first of a connection",
        |scrape, put| count(scrape, put, |shard| &shard.retries),
    ),
    Family::histogram(
        Backend,
        "convey_backend_queue_time",
        "How long those waited that waited for a server, whatever came of it",
        |scrape, put| each(scrape, put, |view| Value::times(view.live.queue_time.times())),
    ),
    Family::histogram(
        Backend,
        "convey_backend_connect_time",
        "How long connections to servers took to be established, TLS included",
        |scrape, put| each(scrape, put, |view| Value::times(view.live.connect_time.times())),
    ),
    Family::histogram(
        Backend,
        "convey_backend_session_time",
        "How long connections lasted, from accept to the end; in mode proxy",
        |scrape, put| each(scrape, put, |view| Value::times(view.live.session_time.times())),
    ),
    Family::gauge(
        Backend,
        "convey_backend_sticky_entries",
        "Client networks that stick to a server",
        |scrape, put| {
            each(scrape, put, |view| {
                let sticky = view.config.sticky?;
                Some(view.live.sticky().entries(sticky.ttl, scrape.now).into())
            });
        },
    ),
    Family::counter(
        Backend,
        "convey_backend_sticky_refused",
        "Client networks that did not fit into the table",
        |scrape, put| {
            each(scrape, put, |view| {
                view.config.sticky?;
                Some(view.live.sticky().refused().into())
            });
        },
    ),
];

fn each(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&BackendView) -> Option<Value>) {
    for (name, view) in &scrape.status.snapshot.backends {
        if let Some(value) = value(view) {
            put(&[("backend", name.as_str())], value);
        }
    }
}

fn count(scrape: &Scrape, put: &mut Samples<'_>, of: fn(&StatsShard) -> &Counter) {
    each(scrape, put, |view| Some(view.live.counters.sum(of).into()));
}

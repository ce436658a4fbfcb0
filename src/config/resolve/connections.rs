//! What a frontend says of each TCP connection besides where it goes: options of its listeners, and rates.

use std::{num::NonZeroU64, sync::Arc};

use super::{int, limit, value};
use crate::{
    base::ListenerOptions,
    config::{
        connections::ConnectionRates,
        findings::Findings,
        model::{Config, Frontend, Mode},
        raw,
    },
};

/// `tcp_fast_open`, `defer_accept` and `backlog`.
pub fn listener(own: &raw::FrontendOptions) -> ListenerOptions {
    ListenerOptions {
        fast_open: value(own.tcp_fast_open.as_ref(), false, |v| v),
        defer_accept: value(own.defer_accept.as_ref(), false, |v| v),
        backlog: limit(own.backlog.as_ref()),
    }
}

/// `upload_rate` and `download_rate`.
pub fn rates(own: &raw::FrontendOptions) -> ConnectionRates {
    ConnectionRates {
        upload: NonZeroU64::new(int(own.upload_rate.as_ref(), 0)),
        download: NonZeroU64::new(int(own.download_rate.as_ref(), 0)),
    }
}

/// Whether it relays TCP.
fn has_connections(frontend: &Frontend) -> bool {
    frontend.mode == Mode::Proxy && !frontend.has_sessions()
}

/// Warns about keys of frontends that have no effect there.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let Some(frontend) = config.frontends.get(name.as_str()) else {
            continue;
        };
        if has_connections(frontend) {
            continue;
        }
        let (why, help) = if frontend.has_sessions() {
            ("with protocol udp".to_owned(), "remove it: it is about TCP")
        } else {
            (
                format!("in mode {}", frontend.mode),
                "remove it: packets are forwarded, there are no connections to apply it to",
            )
        };
        let own = &at.value.options;
        let flag =
            |at: &Option<raw::Located<bool>>| at.as_ref().filter(|at| at.value).map(|at| at.key.clone());
        let keys = [
            ("tcp_fast_open", flag(&own.tcp_fast_open)),
            ("defer_accept", flag(&own.defer_accept)),
            ("backlog", own.backlog.as_ref().map(|at| at.key.clone())),
            ("upload_rate", own.upload_rate.as_ref().map(|at| at.key.clone())),
            (
                "download_rate",
                own.download_rate.as_ref().map(|at| at.key.clone()),
            ),
        ];
        findings.within_all(&["frontends", name], |findings| {
            for (key, span) in keys {
                let Some(span) = span else { continue };
                findings.within(key, |findings| {
                    findings.warn(span, format!("`{key}` has no effect {why}"), help.to_owned());
                });
            }
        });
    }
}

/// Puts what has no effect back to its default.
pub fn clear(config: &mut Config) {
    for frontend in config.frontends.values_mut() {
        let (listener, rates) = (ListenerOptions::default(), ConnectionRates::default());
        if !has_connections(frontend) && (frontend.listener, frontend.rates) != (listener, rates) {
            let frontend = Arc::make_mut(frontend);
            (frontend.listener, frontend.rates) = (listener, rates);
        }
    }
}

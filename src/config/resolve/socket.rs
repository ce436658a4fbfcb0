//! Options of sockets.

use std::{collections::BTreeMap, ops::Range};

use super::{limit, merged};
use crate::{
    base::{Dscp, ListenRange, ServerName, ServerSocketOptions, SocketOptions, Zone},
    config::{
        findings::Findings,
        model::Server,
        raw::{self, InterfaceName, Located},
    },
};

/// What a section says, with what `[defaults]` says for the rest.
pub fn options(
    own: Option<&Located<raw::SocketOptions>>,
    defaults: Option<&Located<raw::SocketOptions>>,
) -> SocketOptions {
    says(&merged(own, defaults))
}

/// What one section says by itself.
pub fn says(raw: &raw::SocketOptions) -> SocketOptions {
    SocketOptions {
        mark: limit(raw.mark.as_ref()),
        // 0 is what the kernel writes unasked
        dscp: raw
            .dscp
            .as_ref()
            .map(|at| at.value)
            .filter(|dscp| *dscp != Dscp::BEST_EFFORT),
        receive_buffer: limit(raw.receive_buffer.as_ref()),
        send_buffer: limit(raw.send_buffer.as_ref()),
    }
}

/// As [`options`], of the sockets towards servers.
pub fn server_options(
    own: Option<&Located<raw::ServerSocketOptions>>,
    defaults: Option<&Located<raw::ServerSocketOptions>>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> ServerSocketOptions {
    let own_interface = own.and_then(|at| at.value.interface.as_ref());
    if let Some(at) = own_interface
        && let Some(elsewhere) = servers.values().find(|server| {
            (server.addr.on_network()).is_some_and(|addr| addr.zone().is_some_and(|zone| *zone != at.value))
        })
    {
        findings.within_all(&["server_socket", "interface"], |findings| {
            findings.error(
                at.span.clone(),
                format!(
                    "server `{}` is on another interface: {}",
                    elsewhere.name, elsewhere.addr
                ),
                "write that interface, or put the server in a backend of its own".to_owned(),
            );
        });
    }
    server_says(&merged(own, defaults))
}

/// What one section says by itself.
pub fn server_says(raw: &raw::ServerSocketOptions) -> ServerSocketOptions {
    ServerSocketOptions {
        common: says(&raw.common),
        interface: raw.interface.as_ref().map(|at| at.value),
    }
}

/// What a frontend in mode proxy listens on: at its `interface`, if it names one.
pub fn listen_at(
    interface: Option<&Located<InterfaceName>>,
    listen: &[(ListenRange, Range<usize>)],
    findings: &mut Findings,
) -> Vec<ListenRange> {
    let plain = || listen.iter().map(|(range, _)| *range).collect();
    let Some(at) = interface else { return plain() };
    let name = &at.value.0;
    let Some(zone) = Zone::new(name) else {
        findings.within("interface", |findings| {
            findings.error(
                at.span.clone(),
                format!("interface \"{name}\" cannot be listened on or connected from"),
                raw::NOT_A_ZONE.to_owned(),
            );
        });
        return plain();
    };
    for (range, span) in listen {
        let own = range.first().zone().copied();
        if own.is_some_and(|own| own != zone) {
            findings.within("listen_addr", |findings| {
                findings.error(
                    span.clone(),
                    format!("{range} is not on `interface` \"{name}\""),
                    "write that interface, or make two frontends of it".to_owned(),
                );
            });
        }
    }
    listen.iter().map(|(range, _)| range.at(zone)).collect()
}

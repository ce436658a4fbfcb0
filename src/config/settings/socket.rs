//! Options of sockets.

use super::{Setting, Settings, list, set, text};
use crate::{
    base::{Dscp, ListenPlace, ListenRange, ServerSocketOptions, SocketOptions, SocketPath},
    config::model::Mode,
};

/// `listen_addr` of a frontend.
pub fn listen_addr(listen: &[ListenRange], sockets: &[SocketPath]) -> Setting {
    let ranges = listen.iter().map(|range| ListenPlace::Network(range.written()));
    let sockets = sockets.iter().copied().map(ListenPlace::Unix);
    let written: Vec<_> = ranges.chain(sockets).collect();
    match written.as_slice() {
        [one] => text(&one.to_string()),
        several => list(several),
    }
}

/// `interface` of a frontend.
pub fn interface(mode: Mode, interface: Option<&str>) -> Setting {
    let every = if mode.is_packet() {
        "the one that has the address"
    } else {
        "every interface"
    };
    interface.map_or(Setting::Unset(every), text)
}

/// `[frontends.NAME.client_socket]`, and what `[backends.NAME.server_socket]` has of it.
pub fn socket(options: SocketOptions) -> Settings {
    let SocketOptions {
        mark,
        dscp,
        receive_buffer,
        send_buffer,
    } = options;
    let kernels = Setting::Unset("the kernel's");
    vec![
        ("mark", mark.map_or(Setting::Unset("no mark"), set)),
        ("dscp", dscp.map_or(Setting::Unset("best effort"), class)),
        ("receive_buffer", receive_buffer.map_or(kernels.clone(), set)),
        ("send_buffer", send_buffer.map_or(kernels, set)),
    ]
}

/// `[backends.NAME.server_socket]`.
pub fn server_socket(options: ServerSocketOptions) -> Settings {
    let ServerSocketOptions { common, interface } = options;
    let interface = interface.map_or(Setting::Unset("what the routes say"), |zone| text(zone.as_str()));
    let mut all = vec![("interface", interface)];
    all.append(&mut socket(common));
    all
}

fn class(dscp: Dscp) -> Setting {
    match dscp.name() {
        Some(name) => text(name),
        None => set(dscp.number()),
    }
}

//! Unix sockets that frontends listen at, and what listeners have.

use convey::{
    base::{ListenerOptions, SocketMode, SocketPath, SocketRights},
    config::Frontend,
};
use proptest::{option, prelude::*};

use super::configs::count;

/// Gives a frontend paths that no other one has, if it can listen at some.
pub fn settle_sockets(frontend: &mut Frontend, index: usize) {
    if frontend.listen.iter().any(|range| range.is_several()) {
        frontend.sockets.clear();
    }
    for (number, path) in frontend.sockets.iter_mut().enumerate() {
        if let Ok(own) = SocketPath::new(&format!("{}-{index}-{number}", path.as_str())) {
            *path = own;
        }
    }
    if frontend.sockets.len() > 1 {
        frontend.listen.clear();
    }
    if let Some(proxy) = &mut frontend.proxy_protocol {
        proxy.unix = !frontend.sockets.is_empty();
    }
}

/// A path.
pub fn socket_path() -> impl Strategy<Value = SocketPath> {
    "/run/[a-zäß\"\\\\ #.-]{0,9}[a-z]{1,9}"
        .prop_filter_map("a usable path", |path| SocketPath::new(&path).ok())
}

/// `socket_mode` and `socket_group`.
pub fn socket_rights() -> impl Strategy<Value = SocketRights> {
    let mode = prop::sample::select(vec!["0660", "0666", "0600", "0777", "0220"]);
    (mode, option::of("[a-z_][a-z0-9_-]{0,12}")).prop_filter_map("a usable mode", |(mode, group)| {
        Some(SocketRights {
            mode: SocketMode::parse(mode)?,
            group,
        })
    })
}

/// `tcp_fast_open`, `defer_accept`, `backlog`.
pub fn listener_options() -> impl Strategy<Value = ListenerOptions> {
    let options = (any::<bool>(), any::<bool>(), option::of(count(65_535)));
    options.prop_map(|(fast_open, defer_accept, backlog)| ListenerOptions {
        fast_open,
        defer_accept,
        backlog,
    })
}

//! Options of sockets.

use super::{Setting, Settings, set};
use crate::base::SocketOptions;

/// `[frontends.NAME.client_socket]` and `[backends.NAME.server_socket]`.
pub fn socket(options: SocketOptions) -> Settings {
    let SocketOptions { mark } = options;
    vec![("mark", mark.map_or(Setting::Unset("no mark"), set))]
}

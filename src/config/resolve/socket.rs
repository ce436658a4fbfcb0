//! Options of sockets.

use super::{limit, merged};
use crate::{
    base::SocketOptions,
    config::raw::{self, Located},
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
    }
}

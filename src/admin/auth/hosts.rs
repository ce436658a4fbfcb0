//! Names that a request may be for. A web page whose owner lets its name lead to this host (DNS rebinding) is of the same
//! origin to a browser; it is told by its name in `Host`.

use std::net::IpAddr;

use axum::http::{HeaderValue, uri::Authority};

/// The host of a `Host` header, without its port; `None` if it is none.
pub fn host_of(header: &HeaderValue) -> Option<String> {
    let authority: Authority = header.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_owned())
}

/// Whether this is an address, or a name that nobody can register.
pub fn is_no_domain(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(host);
    // RFC 6761: every name under localhost is this host's
    let is_local = name.to_ascii_lowercase().ends_with(".localhost");
    bare.parse::<IpAddr>().is_ok() || !name.contains('.') || is_local
}

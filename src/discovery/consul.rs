//! How Consul is asked: it answers at once, and from then on when there is something newer (blocking queries).

use std::time::Duration;

use percent_encoding::utf8_percent_encode;

use super::service::PLAIN;
use crate::config::ConsulQuery;

/// The header with how new an answer is.
pub(super) const INDEX: &str = "x-consul-index";

/// How long it may wait for something newer, and what it adds to that at most: a sixteenth.
const WAIT: Duration = Duration::from_secs(60);

/// How soon it is asked again: a service that changes without end is not asked without end.
pub(super) const REST: Duration = Duration::from_secs(1);

/// How long an answer takes that waits for something newer than `index`.
pub(super) fn wait(index: Option<u64>) -> Duration {
    match index {
        Some(_) => WAIT + WAIT / 16,
        None => Duration::ZERO,
    }
}

/// What is asked for: path and query, below the path of the agent's URL.
pub(super) fn target(query: &ConsulQuery, index: Option<u64>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let below = query.agent.url.target.trim_end_matches('/');
    let mut target = format!("{below}/v1/health/service/{}?passing=1", encoded(&query.service));
    if let Some(datacenter) = &query.datacenter {
        target += &format!("&dc={}", encoded(datacenter));
    }
    for tag in &query.tags {
        target += &format!("&tag={}", encoded(tag));
    }
    if let Some(index) = index {
        target += &format!("&index={index}&wait={}s", WAIT.as_secs());
    }
    target
}

/// What to wait for next. An index that goes back, as after a restore, or is none, begins anew.
pub(super) fn next(before: Option<u64>, header: Option<&[u8]>) -> Option<u64> {
    let index: u64 = std::str::from_utf8(header?).ok()?.parse().ok()?;
    (index > 0 && before.is_none_or(|before| index >= before)).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpService, SourceTls};

    #[test]
    fn a_query_says_what_it_is_about_and_how_new() {
        let mut query = ConsulQuery {
            agent: HttpService {
                url: "http://127.0.0.1:8500".parse().unwrap(),
                socket: None,
                tls: SourceTls::default(),
                token: None,
                timeout: Duration::from_secs(5),
            },
            service: "web".to_owned(),
            tags: Vec::new(),
            datacenter: None,
        };
        assert_eq!(target(&query, None), "/v1/health/service/web?passing=1");
        query.agent.url = query.agent.url.with_target("/consul/");
        query.service = "a/b &c".to_owned();
        query.tags = ["blue".to_owned(), "v=1&x".to_owned()].into();
        query.datacenter = Some("dc1".to_owned());
        assert_eq!(
            target(&query, Some(7)),
            "/consul/v1/health/service/a%2Fb%20%26c?passing=1&dc=dc1&tag=blue&tag=v%3D1%26x&index=7&wait=60s"
        );
    }

    #[test]
    fn an_index_that_goes_back_or_is_none_begins_anew() {
        assert_eq!(next(None, Some(b"7")), Some(7));
        assert_eq!(next(Some(7), Some(b"7")), Some(7));
        assert_eq!(next(Some(7), Some(b"9")), Some(9));
        for header in [
            &b"6"[..],
            b"0",
            b"",
            b"x",
            b"-1",
            b"99999999999999999999",
            b"\xff",
        ] {
            assert_eq!(next(Some(7), Some(header)), None);
        }
        assert_eq!(next(Some(7), None), None);
        assert_eq!(wait(None), Duration::ZERO);
    }
}

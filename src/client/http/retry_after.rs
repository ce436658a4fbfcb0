//! The header field `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, header::RETRY_AFTER};

/// How long an answer says that the next request is to wait: any time, by seconds or until a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?;
            let at = SystemTime::try_from(at.timestamp()).ok()?;
            Some(at.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_server_says_by_seconds_or_by_a_date_how_long_it_is_to_be_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        let said = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            retry_after(&headers, now)
        };
        assert_eq!(said("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            said("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(said("Thu, 06 Nov 1980 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(said("18446744073709551615"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(said("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}

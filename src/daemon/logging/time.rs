//! Moments as text, in UTC.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

/// A moment, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc(Timestamp);

impl From<SystemTime> for Utc {
    /// Moments before 1970 become 1970, those after the year 9999 its last.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Self(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
    }
}

impl Utc {
    /// As in the logs of web servers and HAProxy: `06/Feb/2009:12:12:51.443`.
    pub fn common_log(self) -> impl fmt::Display {
        self.0.strftime("%d/%b/%Y:%H:%M:%S%.3f")
    }
}

impl Utc {
    /// The time alone, for somebody who has seen the day: `12:12:51Z`.
    pub fn time_of_day(self) -> impl fmt::Display {
        self.0.strftime("%H:%M:%SZ")
    }
}

impl fmt::Display for Utc {
    /// RFC 3339: `2009-02-06T12:12:51.443Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> Utc {
        (UNIX_EPOCH + Duration::from_millis(millis)).into()
    }

    #[test]
    fn known_moments_have_their_known_dates() {
        // seconds from `date -u -d DATE +%s`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_233_922_371, "2009-02-06T12:12:51.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(at(seconds * 1000).to_string(), text);
        }
        assert_eq!(
            at(1_233_922_371_443).common_log().to_string(),
            "06/Feb/2009:12:12:51.443"
        );
    }

    #[test]
    fn whole_seconds_keep_their_three_zeros() {
        assert_eq!(
            at(1_233_922_371_000).common_log().to_string(),
            "06/Feb/2009:12:12:51.000"
        );
    }

    #[test]
    fn milliseconds_are_cut_off_not_rounded() {
        let moment = UNIX_EPOCH + Duration::from_nanos(1_999_999_999);
        assert_eq!(Utc::from(moment).to_string(), "1970-01-01T00:00:01.999Z");
    }

    #[test]
    fn a_clock_before_1970_shows_1970() {
        let moment = UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(Utc::from(moment).to_string(), "1970-01-01T00:00:00.000Z");
    }
}

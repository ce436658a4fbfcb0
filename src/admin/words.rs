//! The closed sets of the answers.

use std::{cmp::Ordering, convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    base::{UnknownLabel, by_label},
    flow,
    pools::{AdminState, Override},
};

/// A value of a closed set, in JSON its text; or the text of one that this version does not know.
///
/// A daemon makes known ones only. Whoever reads the answer of a newer one shows the other texts as they are, and takes
/// them for none of those it knows: it must not fail for them, for somebody may watch over a host with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word<T> {
    /// One that this version knows.
    Known(T),
    /// Another text.
    Other(String),
}

impl<T: Copy> Word<T> {
    /// The value, if this version knows it.
    pub const fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Other(_) => None,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, value: &T) -> bool {
        matches!(self, Self::Known(known) if known == value)
    }
}

impl<T: PartialOrd> PartialOrd<T> for Word<T> {
    fn partial_cmp(&self, value: &T) -> Option<Ordering> {
        match self {
            Self::Known(known) => known.partial_cmp(value),
            Self::Other(_) => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Other(text) => f.pad(text),
        }
    }
}

impl<T: FromStr> FromStr for Word<T> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::Other(text.to_owned()), Self::Known))
    }
}

impl<T: fmt::Display> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.parse() {
            Ok(value) => Self::Known(value),
            Err(_) => Self::Other(text),
        })
    }
}

/// Whether a certificate is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateState {
    /// Not yet.
    Missing,
    /// It is.
    Valid,
    /// It is, but has expired.
    Expired,
}

impl CertificateState {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Valid => "valid",
            Self::Expired => "expired",
        }
    }
}

by_label!(
    CertificateState,
    [
        CertificateState::Missing,
        CertificateState::Valid,
        CertificateState::Expired
    ]
);

/// What the daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It takes no connections yet.
    Starting,
    /// It serves.
    Running,
    /// It lets connections end.
    Stopping,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

by_label!(Phase, [Phase::Starting, Phase::Running, Phase::Stopping]);

/// How far a next hop is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopState {
    /// Its link address is known.
    Resolved,
    /// There is a route; its link address is being asked for.
    Unresolved,
    /// There is no route.
    NoRoute,
}

impl HopState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Resolved, Self::Unresolved, Self::NoRoute];

    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Unresolved => "unresolved",
            Self::NoRoute => "no_route",
        }
    }
}

by_label!(HopState, HopState::ALL);

/// Whether packets to a frontend's addresses reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrontendState {
    /// They do.
    Live,
    /// Those to one of them do not.
    Waiting,
}

impl FrontendState {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Waiting => "waiting",
        }
    }
}

by_label!(FrontendState, [FrontendState::Live, FrontendState::Waiting]);

/// An override, in JSON as text: `draining`, `weight 3`, `maintenance, weight 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overridden(pub Override);

impl fmt::Display for Overridden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Override { admin, weight } = self.0;
        let admin = admin.map(|state| match state {
            AdminState::Draining => "draining",
            AdminState::Maintenance => "maintenance",
        });
        match (admin, weight) {
            (None, None) => f.write_str("none"),
            (Some(admin), None) => f.write_str(admin),
            (None, Some(weight)) => write!(f, "weight {weight}"),
            (Some(admin), Some(weight)) => write!(f, "{admin}, weight {weight}"),
        }
    }
}

impl FromStr for Overridden {
    type Err = UnknownLabel;

    fn from_str(text: &str) -> Result<Self, UnknownLabel> {
        let mut found = Override::default();
        for part in text.split(", ") {
            match (part, part.strip_prefix("weight ")) {
                ("draining", _) => found.admin = Some(AdminState::Draining),
                ("maintenance", _) => found.admin = Some(AdminState::Maintenance),
                (_, Some(weight)) => found.weight = Some(weight.parse().map_err(|_| UnknownLabel)?),
                _ => return Err(UnknownLabel),
            }
        }
        Ok(Self(found))
    }
}

/// Why a 5-tuple goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Its frontend is in mode proxy, where the choice is made for each connection.
    Proxied,
    /// What the packet modes say.
    Packets(flow::Because),
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxied => f.pad("proxied"),
            Self::Packets(because) => because.fmt(f),
        }
    }
}

impl FromStr for Because {
    type Err = UnknownLabel;

    fn from_str(text: &str) -> Result<Self, UnknownLabel> {
        match text {
            "proxied" => Ok(Self::Proxied),
            other => other.parse().map(Self::Packets),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::{PacketReason, ServerState};

    #[test]
    fn a_word_of_a_newer_version_is_kept_and_is_none_of_ours() {
        let word: Word<ServerState> = serde_json::from_str(r#""asleep""#).expect("a word");
        assert_eq!(word, Word::Other("asleep".into()));
        assert_eq!((word.known(), word == ServerState::Up), (None, false));
        assert_eq!(serde_json::to_string(&word).expect("JSON"), r#""asleep""#);
        let up: Word<ServerState> = serde_json::from_str(r#""up""#).expect("a word");
        assert!(up == ServerState::Up);
    }

    #[test]
    fn overrides_are_told_in_words_and_understood_again() {
        for (admin, weight, text) in [
            (None, Some(3), "weight 3"),
            (Some(AdminState::Maintenance), None, "maintenance"),
            (Some(AdminState::Draining), Some(0), "draining, weight 0"),
        ] {
            let overridden = Overridden(Override { admin, weight });
            assert_eq!(overridden.to_string(), text);
            assert_eq!(text.parse(), Ok(overridden));
        }
        assert_eq!("drain".parse::<Overridden>(), Err(UnknownLabel));
    }

    #[test]
    fn words_are_keys_in_the_order_of_the_set_and_unknown_ones_come_last() {
        let text = r#"{"a_new_one":1,"reset_no_flow":2,"to_server":3}"#;
        let counts: BTreeMap<Word<PacketReason>, u64> = serde_json::from_str(text).expect("counts");
        assert_eq!(counts.get(&PacketReason::ToServer.into()), Some(&3));
        assert_eq!(
            serde_json::to_string(&counts).expect("JSON"),
            r#"{"to_server":3,"reset_no_flow":2,"a_new_one":1}"#
        );
    }
}

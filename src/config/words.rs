//! The words of closed sets: read, printed and described from one list each.

use super::{
    acme::Challenge,
    answer_format::FormatKind,
    checks::{CheckKind, HttpMethod},
    connection_log::Facility,
    discovery::OnFailure,
    discovery_source::DiscoveryKind,
    families::Families,
    model::{Algorithm, DsrMethod, EngineChoice, InitialState, LogFormat, LogLevel, Mode, OnDown, XdpMode},
    named_server::Resolve,
    otlp::Compression,
    platforms::KubernetesVia,
    routing::{NonTls, ProxyTlv, UnexpectedSni},
    source::SourceAddress,
    tls_names::{ClientAuth, CrlPolicy},
};
use crate::base::{Protocol, Role, by_label};

/// A closed set of values that the file names by words.
pub trait Words: Copy + Eq + 'static {
    /// Every value with its word.
    const ALL: &'static [(Self, &'static str)];
}

/// Gives an enum its words, and a `label` that every output shares.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl Words for $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];
        }

        impl $name {
            /// The word for it in the configuration, logs and the API.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        by_label!($name, [$(Self::$variant),+]);
    };
}

impl Words for Protocol {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Tcp, Self::Tcp.label()), (Self::Udp, Self::Udp.label())];
}

impl Words for Role {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Read, Self::Read.label()),
        (Self::Operate, Self::Operate.label()),
        (Self::Configure, Self::Configure.label()),
    ];
}

words!(LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" });
words!(LogFormat { Text = "text", Json = "json" });
words!(Facility {
    User = "user",
    Daemon = "daemon",
    Local0 = "local0",
    Local1 = "local1",
    Local2 = "local2",
    Local3 = "local3",
    Local4 = "local4",
    Local5 = "local5",
    Local6 = "local6",
    Local7 = "local7",
});
words!(Mode { Proxy = "proxy", Passthrough = "passthrough", Dsr = "dsr" });
words!(EngineChoice { Auto = "auto", Xdp = "xdp", Raw = "raw" });
words!(XdpMode { Auto = "auto", Native = "native", Generic = "generic" });
words!(DsrMethod { Tc = "tc", Nft = "nft", L2 = "l2" });
words!(Algorithm {
    RoundRobin = "round_robin",
    Random = "random",
    LeastConnections = "least_connections",
    LeastBandwidth = "least_bandwidth",
    PowerOfTwo = "power_of_two",
    SourceHash = "source_hash",
    Maglev = "maglev",
    First = "first",
});
words!(DiscoveryKind {
    File = "file",
    Exec = "exec",
    Http = "http",
    Consul = "consul",
    Docker = "docker",
    Kubernetes = "kubernetes",
    Lxd = "lxd",
    Incus = "incus",
    Dns = "dns",
    Srv = "srv",
    Api = "api",
});
words!(KubernetesVia { Endpoints = "endpoints", NodePort = "node_port" });
words!(CheckKind {
    Tcp = "tcp",
    Tls = "tls",
    Http = "http",
    Exec = "exec",
    Probe = "probe",
    Redis = "redis",
    Postgresql = "postgresql",
    Mysql = "mysql",
    Smtp = "smtp",
    Dns = "dns",
    Ntp = "ntp",
});
words!(HttpMethod { Get = "GET", Head = "HEAD", Options = "OPTIONS" });
words!(FormatKind { Text = "text", Json = "json", Regex = "regex" });
words!(Resolve { First = "first", All = "all" });
words!(Families { Any = "any", Ipv4 = "ipv4", Ipv6 = "ipv6" });
words!(OnFailure { Keep = "keep", Empty = "empty" });
words!(OnDown { Keep = "keep", Close = "close" });
words!(Challenge { TlsAlpn01 = "tls-alpn-01", Http01 = "http-01", Dns01 = "dns-01" });
words!(ClientAuth { None = "none", Optional = "optional", Required = "required" });
words!(CrlPolicy { Complete = "complete", Listed = "listed" });
words!(UnexpectedSni { Default = "default", Reject = "reject", Any = "any" });
words!(NonTls { Reject = "reject", Backend = "backend" });
words!(ProxyTlv {
    Authority = "authority",
    Alpn = "alpn",
    Ssl = "ssl",
    UniqueId = "unique_id",
    Crc32c = "crc32c",
});
words!(Compression { Gzip = "gzip", None = "none" });
words!(SourceAddress { Own = "own", Client = "client" });
words!(InitialState { Up = "up", Down = "down", Check = "check" });

/// The candidate that `word` is most likely a misspelling of.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(3).min(4);
    let folded = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (candidate.to_lowercase(), candidate))
        .filter(|(other, _)| letters_apart(&folded, other) <= allowed)
        .map(|(other, candidate)| (strsim::damerau_levenshtein(&folded, &other), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters that one word has and the other has not, of the side that has more such: no edit makes them up more than one at
/// a time, so the distance is not below. Cheap, where the distance costs the product of both lengths. 0 beyond ASCII.
fn letters_apart(one: &str, other: &str) -> usize {
    if !one.is_ascii() || !other.is_ascii() {
        return 0;
    }
    let mut surplus = [0_i32; 128];
    one.bytes().for_each(|byte| surplus[usize::from(byte)] += 1);
    other.bytes().for_each(|byte| surplus[usize::from(byte)] -= 1);
    let (of_one, of_other) = surplus.iter().fold((0, 0), |(of_one, of_other), surplus| {
        (of_one + (*surplus).max(0), of_other + (-*surplus).max(0))
    });
    usize::try_from(of_one.max(of_other)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_what_was_probably_meant() {
        let keys = ["listen_addr", "backend", "mode"];
        assert_eq!(nearest("lisen_addr", keys), Some("listen_addr"));
        assert_eq!(nearest("Listen-Addr", keys), Some("listen_addr"));
        assert_eq!(nearest("backends", keys), Some("backend"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn letters_apart_are_never_more_than_edits() {
        for (one, other) in [
            ("", ""),
            ("web", ""),
            ("ab", "ba"),
            ("lisen_addr", "listen_addr"),
            ("b12", "x34"),
            ("ß", "s"),
        ] {
            let distance = strsim::damerau_levenshtein(one, other);
            assert!(letters_apart(one, other) <= distance, "{one} {other}");
        }
        assert_eq!(letters_apart("b12", "x34"), 3);
    }
}

//! Any export by OTLP.

use convey::config::{Compression, Otlp, Secret, ServerTrust, SourceTls};
use proptest::{collection::btree_map, option, prelude::*};

use super::{configs::millis, routing::HOUR, tls::path};

/// Any `[otlp]`.
pub fn otlp() -> impl Strategy<Value = Otlp> {
    let endpoint = prop::sample::select(vec![
        "http://127.0.0.1:4318/",
        "https://otlp.example.com/otlp",
        "https://[2001:db8::1]:4318/a/b/",
        "http://localhost/",
    ]);
    let secret = prop::sample::select(vec!["file:/etc/convey/otlp.key", "${OTLP_KEY}"]);
    let secret = secret.prop_map(|text| text.parse::<Secret>().expect("a place of a secret"));
    let trust = prop_oneof![
        Just(ServerTrust::System),
        Just(ServerTrust::Anybody),
        path().prop_map(ServerTrust::Ca)
    ];
    (
        endpoint,
        btree_map("x-[a-z0-9]{1,9}", secret, 0..4),
        trust,
        prop::sample::select(vec![Compression::Gzip, Compression::None]),
        (millis(1, HOUR), millis(1_000, HOUR)),
        any::<(bool, bool)>(),
        option::of("[a-zé. ]{1,20}"),
    )
        .prop_map(
            |(
                endpoint,
                headers,
                trust,
                compression,
                (timeout, interval),
                (metrics, connections),
                instance,
            )| {
                let endpoint: convey::base::HttpUrl = endpoint.parse().expect("a URL");
                Otlp {
                    headers: headers
                        .into_iter()
                        .map(|(name, secret)| (name.into(), secret))
                        .collect(),
                    tls: match endpoint.is_tls {
                        true => SourceTls {
                            trust,
                            ..SourceTls::default()
                        },
                        false => SourceTls::default(),
                    },
                    endpoint,
                    compression,
                    timeout,
                    metrics,
                    interval,
                    connections,
                    instance: instance.map(Into::into),
                }
            },
        )
}

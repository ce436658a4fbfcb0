//! Settings of the export by OTLP.

use super::{Setting, Settings, discovery::of_tls, quote, set, string, text, time};
use crate::config::otlp::Otlp;

/// `[otlp]`.
pub fn otlp(otlp: &Otlp) -> Settings {
    let Otlp {
        endpoint,
        headers,
        tls,
        compression,
        timeout,
        metrics,
        interval,
        connections,
        instance,
    } = otlp;
    let headers: Vec<String> = (headers.iter())
        .map(|(name, secret)| format!("{} = {}", quote::key(name), string(&secret.to_string())))
        .collect();
    let mut settings = vec![
        ("endpoint", text(&endpoint.to_string())),
        (
            "headers",
            match headers.as_slice() {
                [] => Setting::Unset("none"),
                some => Setting::Value(format!("{{ {} }}", some.join(", "))),
            },
        ),
        ("compression", text(compression.label())),
        ("timeout", time(*timeout)),
        ("metrics", set(*metrics)),
        ("interval", time(*interval)),
        ("connections", set(*connections)),
        (
            "instance",
            (instance.as_deref()).map_or(Setting::Unset("the name of the host"), text),
        ),
    ];
    if endpoint.is_tls {
        settings.extend(of_tls(tls));
    }
    settings
}

//! What is exported by OTLP, and what becomes of it.

use super::family::{Family, Scope::Process, Value};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::counter(
        Process,
        "convey_otlp_requests",
        "Requests to the OpenTelemetry collector by what came of them",
        |scrape, put| {
            for export in scrape.live.otlp() {
                for (result, count) in &export.requests {
                    put(
                        &[("result", result), ("signal", &export.signal.to_string())],
                        (*count).into(),
                    );
                }
            }
        },
    ),
    Family::counter(
        Process,
        "convey_otlp_dropped_items",
        "Data points and log records that did not get to the OpenTelemetry collector",
        |scrape, put| {
            for export in scrape.live.otlp() {
                for (reason, count) in &export.dropped {
                    put(
                        &[("reason", reason), ("signal", &export.signal.to_string())],
                        (*count).into(),
                    );
                }
            }
        },
    ),
    Family::gauge(
        Process,
        "convey_otlp_up",
        "Whether the OpenTelemetry collector takes what is exported",
        |scrape, put| {
            for export in scrape.live.otlp() {
                put(
                    &[("signal", &export.signal.to_string())],
                    export.error.is_none().into(),
                );
            }
        },
    ),
    Family::gauge(
        Process,
        "convey_otlp_last_success_timestamp",
        "When the OpenTelemetry collector has accepted a request last, in seconds since 1970",
        |scrape, put| {
            for export in scrape.live.otlp() {
                if let Some(at) = export.last_success {
                    put(&[("signal", &export.signal.to_string())], Value::Number(at));
                }
            }
        },
    )
    .in_unit("seconds"),
];

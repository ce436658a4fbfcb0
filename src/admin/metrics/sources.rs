//! Sources of servers, and certificates.

use super::{
    family::{Family, Samples, Scope::Source, Value},
    scrape::{Scrape, seconds},
};
use crate::admin::status::{CertificateStatus, SourceStatus};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::gauge(
        Source,
        "convey_discovery_up",
        "Whether the backend's source of servers answers as it should, and its answer is in effect",
        |scrape, put| each(scrape, put, |source| Some(source.problem.is_none().into())),
    ),
    Family::gauge(
        Source,
        "convey_discovery_servers",
        "Servers in effect that come from the source",
        |scrape, put| each(scrape, put, |source| Some(source.servers.into())),
    ),
    Family::gauge(
        Source,
        "convey_discovery_left_out_servers",
        "Servers of the last answer that may not be taken",
        |scrape, put| each(scrape, put, |source| Some(source.left_out.into())),
    ),
    Family::gauge(
        Source,
        "convey_discovery_last_answer_timestamp",
        "When the last answer that was obeyed came, in seconds since 1970",
        |scrape, put| {
            each(scrape, put, |source| {
                Some(Value::Number(scrape.timestamp(source.answered?)))
            });
        },
    )
    .in_unit("seconds"),
    Family::gauge(
        Source,
        "convey_certificate_expiry_timestamp",
        "When a certificate that clients get ends to be valid, in seconds since 1970; of several of one name the first",
        |scrape, put| {
            for (frontend, view) in &scrape.status.snapshot.frontends {
                let Some(tls) = &view.tls else { continue };
                let mut served = tls.certificates.served();
                served.sort_by(|a, b| (&a.name, a.not_after).cmp(&(&b.name, b.not_after)));
                served.dedup_by(|later, first| later.name == first.name);
                for one in served {
                    put(
                        &[("frontend", frontend.as_str()), ("certificate", &one.name)],
                        Value::Number(seconds(one.not_after)),
                    );
                }
            }
        },
    )
    .in_unit("seconds"),
    Family::gauge(
        Source,
        "convey_acme_up",
        "Whether the last order of the certificate has not failed",
        |scrape, put| ordered(scrape, put, |one| Some(one.problem.is_none().into())),
    ),
    Family::gauge(
        Source,
        "convey_acme_next_order_timestamp",
        "When the certificate is ordered next, in seconds since 1970",
        |scrape, put| ordered(scrape, put, |one| Some(Value::Number(seconds(one.due?)))),
    )
    .in_unit("seconds"),
    Family::gauge(
        Source,
        "convey_acme_expiry_timestamp",
        "When the ordered certificate ends to be valid, in seconds since 1970",
        |scrape, put| ordered(scrape, put, |one| Some(Value::Number(seconds(one.not_after?)))),
    )
    .in_unit("seconds"),
];

fn each(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&SourceStatus) -> Option<Value>) {
    for (backend, source) in &*scrape.status.discovery {
        if let Some(value) = value(source) {
            put(
                &[("backend", backend.as_str()), ("kind", source.kind.label())],
                value,
            );
        }
    }
}

fn ordered(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&CertificateStatus) -> Option<Value>) {
    for one in &scrape.status.acme.certificates {
        if let Some(value) = value(one) {
            put(&[("certificate", &one.name)], value);
        }
    }
}

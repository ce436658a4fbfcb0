//! Certificates: those that clients get, and those that are ordered.

use std::time::{Instant, SystemTime};

use crate::{
    admin::{
        status::{AcmeStatus, CertificateStatus},
        views,
    },
    base::FrontendName,
    snapshot::{ServedCertificate, Snapshot},
};

/// The certificates that clients get.
#[must_use]
pub fn certificates(snapshot: &Snapshot, wall: SystemTime) -> views::Certificates {
    let of_frontends = snapshot
        .frontends
        .values()
        .filter_map(|view| Some((view, view.tls.as_ref()?)));
    let mut certificates: Vec<_> = of_frontends
        .flat_map(|(view, tls)| {
            let served = tls.certificates.served();
            served
                .into_iter()
                .map(|one| served_by(&view.config.name, one, wall))
        })
        .collect();
    certificates.sort_by(|a, b| a.frontend.cmp(&b.frontend));
    views::Certificates { certificates }
}

fn served_by(frontend: &FrontendName, one: ServedCertificate, wall: SystemTime) -> views::ServedCertificate {
    let date = |at: SystemTime| {
        jiff::Timestamp::try_from(at)
            .map(|at| at.to_string())
            .unwrap_or_default()
    };
    views::ServedCertificate {
        frontend: frontend.clone(),
        name: one.name.to_string(),
        ordered: one.is_ordered,
        subject: one.subject,
        issuer: one.issuer,
        names: one.names.into_iter().map(Into::into).collect(),
        key: one.key.to_owned(),
        not_before: date(one.not_before),
        not_after: date(one.not_after),
        expires_seconds: until(one.not_after, wall),
        serial: one.serial,
    }
}

/// Seconds until then, negative since then.
fn until(at: SystemTime, wall: SystemTime) -> f64 {
    match at.duration_since(wall) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}

/// The certificates that are ordered.
#[must_use]
pub fn acme(acme: &AcmeStatus, now: Instant, wall: SystemTime) -> views::Acme {
    views::Acme {
        directory: acme.directory.as_deref().map(str::to_owned),
        leads: acme.leads,
        certificates: (acme.certificates.iter())
            .map(|status| certificate(status, now, wall))
            .collect(),
    }
}

fn certificate(status: &CertificateStatus, now: Instant, wall: SystemTime) -> views::Certificate {
    let until = |at| until(at, wall);
    let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    views::Certificate {
        name: status.name.to_string(),
        names: status.names.clone(),
        frontends: status.frontends.clone(),
        challenge: status.challenge.into(),
        state: status.state.into(),
        ordering_seconds: status.ordering.map(since),
        expires_seconds: status.not_after.map(until),
        serial: status.serial.as_deref().map(str::to_owned),
        next_order_seconds: status.due.map(|due| until(due).max(0.0)),
        problem: status.problem.as_ref().map(|problem| views::CertificateProblem {
            reason: problem.label.to_owned(),
            text: problem.text.to_string(),
            seconds: since(problem.since),
        }),
    }
}

//! Certificates that are ordered.

use std::time::{Instant, SystemTime};

use crate::admin::{
    status::{AcmeStatus, CertificateStatus},
    views,
};

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
    let until = |at: SystemTime| match at.duration_since(wall) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    };
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

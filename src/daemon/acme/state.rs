//! How each certificate is, and what is said of it: each trouble once, until it is another.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::Certificates;
use crate::{
    acme::{
        Bundle, Failure, FailureKind,
        plan::{Step, Why},
    },
    admin::{
        status::{AcmeStatus, CertificateProblem, CertificateStatus},
        views::CertificateState,
    },
    base::time::two_units,
    config::{Acme, CertificateOrder},
    tls,
};

/// How soon the same trouble in other words is said again.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What is wrong, by certificate.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<Arc<str>, CertificateProblem>);

impl Troubles {
    /// Forgets those of certificates that are not ordered any more.
    pub fn keep(&mut self, is_ordered: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_ordered(name));
    }

    /// At the start: which certificates are not there yet.
    pub fn say_missing(
        &self,
        orders: &BTreeMap<Arc<str>, CertificateOrder>,
        bundles: &BTreeMap<Arc<str>, Arc<Bundle>>,
    ) {
        let missing: Vec<&str> = (orders.keys())
            .filter(|name| !bundles.contains_key(*name))
            .map(|name| &**name)
            .collect();
        if !missing.is_empty() {
            tracing::info!(
                event = "acme_missing",
                "acme: not there yet: {}; until they are, clients get another certificate of their frontend, or none",
                missing.join(", ")
            );
        }
    }

    /// A certificate is ordered.
    pub fn say_order(
        &self,
        name: &str,
        order: &CertificateOrder,
        acme: &Acme,
        due: Option<(SystemTime, Why)>,
    ) {
        // a try after a failure says how it ends, if that is otherwise
        if self.0.contains_key(name) {
            return;
        }
        let why = match due.map(|(_, why)| why) {
            Some(Why::Renewal) => "renewed",
            Some(Why::Changed) => "replaced",
            Some(Why::Asked) => "renewed on request",
            Some(Why::Missing) | None => "ordered",
        };
        tracing::info!(
            event = "acme_order",
            certificate = name,
            "acme: certificate {name} is {why}: {} name(s), {}, by {}",
            order.names.len(),
            acme.directory_text(),
            order.challenge(acme).label()
        );
    }

    /// A certificate was issued.
    pub fn issued(&mut self, name: &str, bundle: &Bundle) {
        self.0.remove(name);
        let facts = bundle.pair.facts();
        tracing::info!(
            event = "acme_issued",
            certificate = name,
            "acme: certificate {name} was issued by {} and is in use; it is valid until {}",
            facts.issuer,
            tls::date(facts.not_after)
        );
    }

    /// An order has failed: `due` is when it is tried again, `until` how long the certificate is valid that is there.
    pub fn failed(
        &mut self,
        name: &Arc<str>,
        failure: &Failure,
        due: Option<SystemTime>,
        until: Option<SystemTime>,
        now: SystemTime,
    ) {
        if failure.kind == FailureKind::GivenUp {
            return;
        }
        let (label, at) = (failure.kind.label(), Instant::now());
        let same = self.0.get(name).filter(|before| before.label == label);
        let (since, said) = match same {
            // a text may have the number of an order in it, and be another each time
            Some(before) if *before.text == *failure.text || at < before.said + SAID_AGAIN => {
                (before.since, before.said)
            }
            before => {
                say(name, failure, due, until, now);
                (before.map_or(at, |before| before.since), at)
            }
        };
        let problem = CertificateProblem {
            label,
            text: failure.text.as_str().into(),
            since,
            said,
        };
        self.0.insert(Arc::clone(name), problem);
    }
}

fn say(name: &str, failure: &Failure, due: Option<SystemTime>, until: Option<SystemTime>, now: SystemTime) {
    let meanwhile = match until {
        Some(until) if until > now => {
            format!("the one before stays in use, valid until {}", tls::date(until))
        }
        Some(until) => format!(
            "the one before stays in use, which has expired on {}",
            tls::date(until)
        ),
        None => "there is none yet".to_owned(),
    };
    let next = due
        .and_then(|due| due.duration_since(now).ok())
        .unwrap_or_default();
    tracing::warn!(
        event = "acme_failed",
        certificate = name,
        reason = failure.kind.label(),
        "acme: certificate {name}: {failure}; {meanwhile}; tried again in {}",
        two_units(next)
    );
}

/// What is shown of all.
pub fn statuses(all: &Certificates, now: SystemTime) -> AcmeStatus {
    let Some(acme) = &all.acme else {
        return AcmeStatus::default();
    };
    let ordering = all
        .running
        .as_ref()
        .filter(|running| matches!(running.step, Step::Order(..)));
    let certificates = all.orders.iter().map(|(name, order)| {
        let facts = all.bundles.get(name).map(|bundle| bundle.pair.facts());
        let due = all.planner.due(name).map(|(due, _)| due);
        CertificateStatus {
            name: Arc::clone(name),
            names: order.names.iter().map(ToString::to_string).collect(),
            frontends: all.frontends.get(name).cloned().unwrap_or_default(),
            challenge: order.challenge(acme),
            state: match facts {
                None => CertificateState::Missing,
                Some(facts) if facts.not_after <= now => CertificateState::Expired,
                Some(_) => CertificateState::Valid,
            },
            ordering: ordering
                .filter(|running| running.step.name() == name)
                .map(|running| running.since),
            not_after: facts.map(|facts| facts.not_after),
            serial: facts.map(|facts| facts.serial.as_str().into()),
            due: due.filter(|_| acme.lead),
            problem: all.troubles.0.get(name).cloned(),
        }
    });
    AcmeStatus {
        directory: Some(acme.directory_text().into()),
        leads: acme.lead,
        certificates: certificates.collect(),
    }
}

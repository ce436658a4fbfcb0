//! `[acme]` and what frontends order by it.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use super::{time, value};
use crate::{
    base::Protocol,
    config::{
        acme::{Acme, CertificateOrder, Challenge, ExternalAccount},
        commands::Command,
        findings::Findings,
        model::Config,
        raw::{self, Located},
    },
};

/// How long a command may take that changes the DNS: some providers' interfaces are slow.
const HOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// What to do where a challenge is not possible.
const OTHER_WAYS: &str =
    "\"tls-alpn-01\" needs no port but the frontend's 443, \"dns-01\" needs none at all but a dns_hook";

/// The section; `None` if there is none, or it has a mistake, which has been said.
pub fn acme(section: Option<&Located<raw::Acme>>, findings: &mut Findings) -> Option<Acme> {
    let raw = &section?.value;
    findings.within("acme", |findings| {
        let dns_hook = hook(raw, findings);
        let external_account = match &raw.eab {
            Some(at) => Some(ExternalAccount {
                kid: at.value.kid.as_ref()?.value.0.clone()?,
                hmac_key: at.value.hmac_key.as_ref()?.value.0.clone()?,
            }),
            None => None,
        };
        Some(Acme {
            directory: raw.directory.as_ref()?.value.0.clone()?,
            contact: value(raw.contact.as_ref(), Vec::new(), |v| v.0),
            ca: raw.ca.as_ref().map(|at| at.value.0.clone()),
            challenge: value(raw.challenge.as_ref(), Challenge::TlsAlpn01, |v| v),
            http_listen_addr: match &raw.http_listen_addr {
                Some(at) => Some(at.value.0?),
                None => None,
            },
            external_account,
            profile: text(raw.profile.as_ref())?,
            dns_hook,
            dns_wait: time(raw.dns_wait.as_ref(), Duration::ZERO),
            renew_before: raw.renew_before.as_ref().map(|at| at.value.0),
            lead: value(raw.lead.as_ref(), true, |v| v),
        })
    })
}

/// A text that may be left out; `None` if it has a mistake.
fn text(at: Option<&Located<raw::AcmeText>>) -> Option<Option<Box<str>>> {
    match at {
        Some(at) => at.value.0.clone().map(Some),
        None => Some(None),
    }
}

fn hook(raw: &raw::Acme, findings: &mut Findings) -> Option<Command> {
    let timeout = raw.dns_hook_timeout.as_ref();
    if let (None, Some(at)) = (&raw.dns_hook, timeout) {
        findings.within("dns_hook_timeout", |findings| {
            findings.warn(
                at.key.clone(),
                "`dns_hook_timeout` has no command to end",
                "write dns_hook = [\"/usr/local/bin/acme-dns\"] beside it, or leave it out".to_owned(),
            );
        });
    }
    Some(Command {
        line: raw.dns_hook.as_ref()?.value.0.clone(),
        timeout: time(timeout, HOOK_TIMEOUT),
    })
}

/// `acme` of a frontend's `tls`; `None` if there is none, or it has a mistake, which has been said.
pub fn order(at: Option<&Located<raw::OrderedCertificate>>) -> Option<CertificateOrder> {
    let raw = &at?.value;
    let names: Vec<_> = (raw.names.as_ref()?.value.0.iter())
        .map(|(name, _)| name.clone())
        .collect();
    Some(CertificateOrder {
        challenge: raw.challenge.as_ref().map(|at| at.value),
        profile: text(raw.profile.as_ref())?,
        names: Some(names).filter(|names| !names.is_empty())?,
    })
}

/// Checks what the section and the frontends say together.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    let mut orders: BTreeMap<Arc<str>, (&CertificateOrder, &str)> = BTreeMap::new();
    let mut used = Vec::new();
    for (name, frontend) in &config.frontends {
        let Some(order) = frontend.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
            continue;
        };
        let Some(at) = section_of(file, name.as_str()) else {
            continue;
        };
        findings.within_all(&["frontends", name.as_str(), "tls", "acme"], |findings| {
            match &config.acme {
                Some(acme) => {
                    let challenge = order.challenge(acme);
                    used.push(challenge);
                    possible(at, order, acme, challenge, findings);
                }
                None if file.acme.is_none() && findings.absence_counts() => findings.error(
                    at.key.clone(),
                    "`acme` without a section [acme]: nobody is asked for the certificate",
                    "add a section [acme] with directory = \"letsencrypt\"".to_owned(),
                ),
                None => {}
            }
            match orders.get(&order.name()) {
                Some((other, owner)) if *other != order => findings.error(
                    span(at),
                    format!("frontend `{owner}` orders another certificate that begins with {}", order.name()),
                    "give both the same names, challenge and profile, and they share it; or let one begin with another name".to_owned(),
                ),
                Some(_) => {}
                None => {
                    orders.insert(order.name(), (order, name.as_str()));
                }
            }
        });
    }
    if let (Some(at), Some(acme)) = (&file.acme, &config.acme) {
        findings.within("acme", |findings| useless(at, acme, &used, config, findings));
    }
}

/// Where a frontend orders its certificate: itself, or `[defaults]`.
fn section_of<'a>(file: &'a raw::File, frontend: &str) -> Option<&'a Located<raw::OrderedCertificate>> {
    let frontends = &file.frontends.as_ref()?.value.0;
    let own = frontends.get(frontend)?.value.options.tls.as_ref();
    let defaults = file
        .defaults
        .as_ref()
        .and_then(|at| at.value.frontend.tls.as_ref());
    let of = |at: Option<&'a Located<raw::FrontendTls>>| at.and_then(|at| at.value.acme.as_ref());
    of(own).or_else(|| of(defaults))
}

fn span(at: &Located<raw::OrderedCertificate>) -> Range<usize> {
    at.value
        .names
        .as_ref()
        .map_or(&at.key, |names| &names.span)
        .clone()
}

/// Whether a challenge is possible for every name.
fn possible(
    at: &Located<raw::OrderedCertificate>,
    order: &CertificateOrder,
    acme: &Acme,
    challenge: Challenge,
    findings: &mut Findings,
) {
    let names = at.value.names.iter().flat_map(|names| &names.value.0);
    let wildcard = names.clone().find(|(name, _)| name.is_wildcard());
    if let (Some((name, span)), true) = (wildcard, challenge != Challenge::Dns01) {
        findings.error(
            span.clone(),
            format!(
                "{name} needs the challenge \"dns-01\", and this is \"{}\"",
                challenge.label()
            ),
            "add challenge = \"dns-01\", and a dns_hook to [acme]; or write each name".to_owned(),
        );
        return;
    }
    let span = order
        .challenge
        .and(at.value.challenge.as_ref())
        .map_or(&at.key, |at| &at.span);
    match challenge {
        Challenge::Http01 if acme.http_listen_addr.is_none() => findings.error(
            span.clone(),
            "challenge \"http-01\" without `http_listen_addr` in [acme]: nobody answers the CA",
            format!("add http_listen_addr = \"0.0.0.0:80\" to it; or use another challenge: {OTHER_WAYS}"),
        ),
        Challenge::Dns01 if acme.dns_hook.is_none() => findings.error(
            span.clone(),
            "challenge \"dns-01\" without `dns_hook` in [acme]: nobody makes the record",
            "add dns_hook = [\"/usr/local/bin/acme-dns\"] to it".to_owned(),
        ),
        _ => {}
    }
}

/// Warns of what has no effect, or not the one that is wanted.
fn useless(
    at: &Located<raw::Acme>,
    acme: &Acme,
    used: &[Challenge],
    config: &Config,
    findings: &mut Findings,
) {
    let raw = &at.value;
    if used.is_empty() {
        findings.warn(
            at.key.clone(),
            "[acme] orders nothing: no frontend has `acme` in its tls section",
            "write acme = { names = [\"www.example.com\"] } in [frontends.NAME.tls]".to_owned(),
        );
        return;
    }
    if let Some(at) = raw
        .http_listen_addr
        .as_ref()
        .filter(|_| !used.contains(&Challenge::Http01))
    {
        findings.within("http_listen_addr", |findings| {
            findings.warn(
                at.key.clone(),
                "`http_listen_addr` has no effect: no certificate uses the challenge \"http-01\"",
                "remove it, or write challenge = \"http-01\"".to_owned(),
            );
        });
    } else if let (Some(at), Some(listen)) = (&raw.http_listen_addr, acme.http_listen_addr) {
        let holder = config.frontends.values().find(|frontend| {
            // one at the very address is an error, which is said
            let others = frontend.ranges().filter(|range| range.ip() != listen.0.ip());
            others.into_iter().any(|range| {
                let ports = range.ports();
                range.protocol == Protocol::Tcp && (ports.first..=ports.last).contains(&listen.0.port())
            })
        });
        if let Some(holder) = holder {
            findings.within("http_listen_addr", |findings| {
                findings.warn(
                    at.span.clone(),
                    format!(
                        "frontend `{}` has the port {}, too: a CA that asks its address gets no answer from here",
                        holder.name,
                        listen.0.port()
                    ),
                    format!("let the names lead to another address, or use another challenge: {OTHER_WAYS}"),
                );
            });
        }
    }
    if let Some(at) = raw
        .dns_hook
        .as_ref()
        .filter(|_| !used.contains(&Challenge::Dns01))
    {
        findings.within("dns_hook", |findings| {
            findings.warn(
                at.key.clone(),
                "`dns_hook` has no effect: no certificate uses the challenge \"dns-01\"",
                "remove it, or write challenge = \"dns-01\"".to_owned(),
            );
        });
    }
}

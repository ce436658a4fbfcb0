//! Any certificates that are ordered.

use std::{collections::BTreeMap, sync::Arc};

use convey::{
    base::{CertificateName, FrontendName, ListenAddr},
    config::{Acme, CertificateFiles, CertificateOrder, Challenge, ExternalAccount, Frontend, Secret},
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    configs::{address, millis},
    process::command,
    routing::HOUR,
    tls::path,
};

const YEAR: u64 = 365 * 24 * HOUR;

/// Any `[acme]`.
pub fn acme() -> impl Strategy<Value = Acme> {
    let directory = prop::sample::select(vec![
        "https://acme-v02.api.letsencrypt.org/directory",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        "https://ca.example.com:14000/dir",
        "https://[2001:db8::1]/",
    ]);
    let secret = prop::sample::select(vec!["file:/etc/convey/acme.key", "${ACME_KEY}"]);
    let external = ("[!-~é]{1,20}", secret).prop_map(|(kid, secret)| ExternalAccount {
        kid: kid.into(),
        hmac_key: secret.parse::<Secret>().expect("a place of a secret"),
    });
    (
        (
            directory,
            vec("[a-z]{1,9}@[a-z]{1,9}\\.example", 0..3),
            option::of(path()),
        ),
        challenge(),
        option::of(address()),
        option::of(external),
        option::of("[a-z ]{0,9}[a-z]"),
        option::of(command()),
        millis(0, HOUR),
        (option::of(millis(1, YEAR)), any::<bool>()),
    )
        .prop_map(
            |(
                (directory, contact, ca),
                challenge,
                listen,
                external_account,
                profile,
                dns_hook,
                dns_wait,
                last,
            )| Acme {
                directory: directory.parse().expect("a URL"),
                contact: contact.into_iter().map(Into::into).collect(),
                ca,
                challenge,
                http_listen_addr: listen.map(ListenAddr::new),
                external_account,
                profile: profile.map(Into::into),
                dns_hook,
                dns_wait,
                renew_before: last.0,
                lead: last.1,
            },
        )
}

fn challenge() -> impl Strategy<Value = Challenge> {
    prop::sample::select(vec![Challenge::TlsAlpn01, Challenge::Http01, Challenge::Dns01])
}

/// Any `acme` of a frontend.
pub fn order() -> impl Strategy<Value = CertificateOrder> {
    let name = "(\\*\\.)?[a-z]{1,5}\\.example";
    let names = prop::collection::btree_set(name, 1..4);
    (names, option::of(challenge()), option::of("[a-z]{1,9}")).prop_map(|(names, challenge, profile)| {
        CertificateOrder {
            names: names
                .iter()
                .map(|name| name.parse::<CertificateName>().expect("a name"))
                .collect(),
            challenge,
            profile: profile.map(Into::into),
        }
    })
}

/// Makes what frontends order fit what can be ordered; one that then has no certificate gets another.
pub fn settle(acme: Option<&Acme>, frontends: &mut BTreeMap<FrontendName, Arc<Frontend>>) {
    let mut taken: BTreeMap<Arc<str>, CertificateOrder> = BTreeMap::new();
    for frontend in frontends.values_mut().map(Arc::make_mut) {
        let Some(tls) = &mut frontend.tls else { continue };
        tls.acme = match (acme, tls.acme.take()) {
            (Some(acme), Some(mut order)) => {
                let is_possible = |challenge| match challenge {
                    Challenge::TlsAlpn01 => order.names.iter().all(|name| !name.is_wildcard()),
                    Challenge::Http01 => {
                        acme.http_listen_addr.is_some() && order.names.iter().all(|name| !name.is_wildcard())
                    }
                    Challenge::Dns01 => acme.dns_hook.is_some(),
                };
                if !is_possible(order.challenge(acme)) {
                    order.names.retain(|name| !name.is_wildcard());
                    order.challenge = Some(Challenge::TlsAlpn01);
                }
                let name = order.name();
                Some(taken.entry(name).or_insert(order).clone()).filter(|order| !order.names.is_empty())
            }
            _ => None,
        };
        if tls.acme.is_none() && tls.certificates.is_empty() && tls.certificate_dir.is_none() {
            tls.certificates.push(CertificateFiles {
                cert: "/a.pem".into(),
                key: None,
                ocsp: None,
            });
        }
    }
}

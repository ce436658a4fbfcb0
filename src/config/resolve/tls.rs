//! TLS that ends at a frontend.

use std::{path::PathBuf, time::Duration};

use super::{acme, int, merged, time, value};
use crate::config::{
    findings::Findings,
    model::Mode,
    raw::{self, Located},
    tls::{CertificateFiles, FrontendTls},
    tls_names::{CipherSuite, ClientAuth, CrlPolicy, Group, TlsVersion},
};

/// A client across the world with a lost segment each way is done by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Some 30 MB of buffers.
const MAX_HANDSHAKES: u32 = 1_000;

type Section<'a> = Option<&'a Located<raw::FrontendTls>>;

/// `tls` of a frontend that has the section.
pub fn frontend_tls(
    own: Section<'_>,
    defaults: Section<'_>,
    mode: Mode,
    findings: &mut Findings,
) -> Option<FrontendTls> {
    let at = own?;
    findings.within("tls", |findings| {
        if mode.is_packet() {
            findings.error(
                at.key.clone(),
                format!(
                    "TLS cannot end at a frontend in mode {mode}: its packets reach the server as they come"
                ),
                "remove the section: TLS ends at the servers; or use mode = \"proxy\"".to_owned(),
            );
            return None;
        }
        let raw = merged(own, defaults);
        let (min_version, max_version) = versions(&raw, findings);
        let groups: Vec<Group> = items(raw.groups.as_ref().map(|at| &at.value.0));
        let ciphers: Vec<CipherSuite> = items(raw.ciphers.as_ref().map(|at| &at.value.0));
        ruled_out(&at.value, min_version, max_version, findings);
        check_groups(&raw, min_version, max_version, findings);
        let clients = clients(&at.value, &raw, findings);
        Some(FrontendTls {
            certificates: certificates(at, &raw, findings)?,
            certificate_dir: raw.certificate_dir.as_ref().map(|at| at.value.0.clone()),
            acme: acme::order(raw.acme.as_ref()),
            min_version,
            max_version,
            ciphers,
            groups,
            alpn: value(raw.alpn.as_ref(), Vec::new(), |v| v.0),
            strict_sni: value(raw.strict_sni.as_ref(), false, |v| v),
            client_auth: clients.auth,
            client_ca: clients.ca,
            client_crl: clients.crl,
            client_crl_policy: clients.policy,
            tickets: value(raw.tickets.as_ref(), true, |v| v),
            key_log: key_log(at, &raw, findings),
            handshake_timeout: time(raw.handshake_timeout.as_ref(), HANDSHAKE_TIMEOUT),
            max_handshakes: int(raw.max_handshakes.as_ref(), MAX_HANDSHAKES),
        })
    })
}

/// The values of a list without their places.
fn items<T: Copy>(list: Option<&Vec<(T, std::ops::Range<usize>)>>) -> Vec<T> {
    list.into_iter().flatten().map(|(item, _)| *item).collect()
}

fn certificates(
    at: &Located<raw::FrontendTls>,
    raw: &raw::FrontendTls,
    findings: &mut Findings,
) -> Option<Vec<CertificateFiles>> {
    let Some(list) = &raw.certificates else {
        if raw.certificate_dir.is_some() || raw.acme.is_some() {
            return Some(Vec::new());
        }
        if findings.absence_counts() {
            findings.error(
                at.key.clone(),
                "missing key `certificates` of `tls`",
                "write the PEM files of one or more: certificates = [{ cert = \"/etc/convey/certificates/www.pem\" }]; \
                 or the directory that has them: certificate_dir = \"/etc/convey/certificates\"; \
                 or have one ordered: acme = { names = [\"www.example.com\"] }, with a section [acme]"
                    .to_owned(),
            );
        }
        return None;
    };
    let path = |at: &Option<Located<raw::FilePath>>| at.as_ref().map(|at| at.value.0.clone());
    let files = list.value.0.iter().filter_map(|at| {
        Some(CertificateFiles {
            cert: path(&at.value.cert)?,
            key: path(&at.value.key),
            ocsp: path(&at.value.ocsp),
        })
    });
    Some(files.collect())
}

/// `key_log`, which nobody is to forget.
fn key_log(at: &Located<raw::FrontendTls>, raw: &raw::FrontendTls, findings: &mut Findings) -> bool {
    let is_on = value(raw.key_log.as_ref(), false, |v| v);
    if is_on {
        let span = at.value.key_log.as_ref().map_or(&at.key, |own| &own.key).clone();
        findings.within("key_log", |findings| {
            findings.warn(
                span,
                "`key_log` is on: who can read tls-keys.log in the state directory can read every connection of this frontend",
                "for looking into a fault only: remove it and the file as soon as you can".to_owned(),
            );
        });
    }
    is_on
}

fn versions(raw: &raw::FrontendTls, findings: &mut Findings) -> (TlsVersion, TlsVersion) {
    let min = value(raw.min_version.as_ref(), TlsVersion::Tls12, |v| v);
    let max = value(raw.max_version.as_ref(), TlsVersion::Tls13, |v| v);
    if let Some(at) = raw.min_version.as_ref().filter(|_| min > max) {
        findings.within("min_version", |findings| {
            findings.error(
                at.span.clone(),
                format!("`min_version` {min} is above `max_version` {max}"),
                "write versions of which the first is not newer than the second".to_owned(),
            );
        });
    }
    (min, max)
}

/// Warns of a frontend's own suites that its versions do not have.
fn ruled_out(own: &raw::FrontendTls, min: TlsVersion, max: TlsVersion, findings: &mut Findings) {
    let spoken = match min == max {
        true => min.to_string(),
        false => format!("{min} to {max}"),
    };
    for (suite, span) in own.ciphers.iter().flat_map(|at| &at.value.0) {
        let version = suite.version();
        if version < min || version > max {
            findings.within("ciphers", |findings| {
                findings.warn(
                    span.clone(),
                    format!(
                        "{suite} is never used: it belongs to TLS {version}, and the frontend speaks {spoken}"
                    ),
                    "remove it, or change min_version or max_version".to_owned(),
                );
            });
        }
    }
}

/// Groups of TLS 1.3 alone leave clients of TLS 1.2 without one.
fn check_groups(raw: &raw::FrontendTls, min: TlsVersion, max: TlsVersion, findings: &mut Findings) {
    let Some(at) = &raw.groups else { return };
    let mut groups = at.value.0.iter();
    if at.value.0.is_empty() || min == TlsVersion::Tls13 || !groups.all(|(group, _)| group.is_tls13_only()) {
        return;
    }
    findings.within("groups", |findings| {
        let help = "add \"x25519\" or \"secp256r1\"".to_owned();
        let (span, message) = (at.span.clone(), "TLS 1.2 has none of these groups:");
        if max == TlsVersion::Tls12 {
            findings.error(span, format!("{message} no client could connect"), help);
        } else {
            findings.warn(span, format!("{message} its clients are refused"), help);
        }
    });
}

/// Certificates of clients.
struct Clients {
    auth: ClientAuth,
    ca: Option<PathBuf>,
    crl: Vec<PathBuf>,
    policy: CrlPolicy,
}

fn clients(own: &raw::FrontendTls, raw: &raw::FrontendTls, findings: &mut Findings) -> Clients {
    let auth = value(raw.client_auth.as_ref(), ClientAuth::None, |v| v);
    if auth == ClientAuth::None {
        unasked(own, raw, findings);
        return Clients {
            auth,
            ca: None,
            crl: Vec::new(),
            policy: CrlPolicy::default(),
        };
    }
    let ca = raw.client_ca.as_ref().map(|at| at.value.0.clone());
    if let (Some(at), None) = (&raw.client_auth, &ca) {
        findings.within("client_auth", |findings| {
            findings.error(
                at.span.clone(),
                format!("client_auth = \"{auth}\" needs `client_ca`"),
                "write the PEM file of the CAs that sign clients' certificates: client_ca = \"/etc/convey/certificates/clients.pem\""
                    .to_owned(),
            );
        });
    }
    let crl: Vec<PathBuf> = (raw.client_crl.iter())
        .flat_map(|at| at.value.0.iter().map(|(path, _)| path.clone()))
        .collect();
    if let Some(at) = own
        .client_crl_policy
        .as_ref()
        .filter(|at| crl.is_empty() && at.value != CrlPolicy::default())
    {
        findings.within("client_crl_policy", |findings| {
            findings.warn(
                at.key.clone(),
                "`client_crl_policy` has no effect without `client_crl`",
                "add client_crl, or remove it".to_owned(),
            );
        });
    }
    Clients {
        auth,
        ca,
        policy: match crl.is_empty() {
            true => CrlPolicy::default(),
            false => value(raw.client_crl_policy.as_ref(), CrlPolicy::default(), |v| v),
        },
        crl,
    }
}

/// Keys about certificates of clients where none is asked for. Who does not say so may believe that they are checked.
fn unasked(own: &raw::FrontendTls, raw: &raw::FrontendTls, findings: &mut Findings) {
    let given = [
        own.client_ca.as_ref().map(|at| ("client_ca", &at.key)),
        own.client_crl.as_ref().map(|at| ("client_crl", &at.key)),
        own.client_crl_policy
            .as_ref()
            .map(|at| ("client_crl_policy", &at.key)),
    ];
    for (key, span) in given.into_iter().flatten() {
        findings.within(key, |findings| match &raw.client_auth {
            None => findings.error(
                span.clone(),
                format!("`{key}` without `client_auth`: clients are not asked for a certificate"),
                "add client_auth = \"required\" or client_auth = \"optional\"".to_owned(),
            ),
            Some(_) => findings.warn(
                span.clone(),
                format!("`{key}` has no effect with client_auth = \"none\""),
                "remove it".to_owned(),
            ),
        });
    }
}

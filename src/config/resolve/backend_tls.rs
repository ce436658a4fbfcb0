//! TLS to the servers of a backend.

use std::collections::BTreeMap;

use super::value;
use crate::{
    base::ServerName,
    config::{
        findings::Findings,
        model::Server,
        raw::{self, Located},
        tls::{BackendTls, CertificateFiles, ServerAlpn, ServerNameFrom, ServerTrust},
    },
};

/// `tls` of a backend that has the section.
pub fn backend_tls(
    own: Option<&Located<raw::BackendTls>>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> Option<BackendTls> {
    if let Some(verify) = own?.value.verify.as_ref().filter(|at| !at.value) {
        findings.within_all(&["tls", "verify"], |findings| {
            findings.warn(
                verify.span.clone(),
                "servers are not verified: whoever can answer at their addresses reads and changes everything",
                "remove it, with ca = \"/etc/convey/certificates/ca.pem\" where the servers' CA is your own; ca may also be the \
                 file of a server's self-signed certificate"
                    .to_owned(),
            );
        });
    }
    of_checks(own, servers, findings)
}

/// `tls` of the checks of a backend that has the section; they read nothing that matters, so that they may believe anybody.
pub fn of_checks(
    own: Option<&Located<raw::BackendTls>>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> Option<BackendTls> {
    let raw = &own?.value;
    findings.within("tls", |findings| {
        Some(BackendTls {
            trust: trust(raw, findings),
            server_name: server_name(raw, servers, findings),
            identity: identity_of(raw.cert.as_ref(), raw.key.as_ref(), findings),
            alpn: value(raw.alpn.as_ref(), ServerAlpn::Client, |v| v.0),
        })
    })
}

fn trust(raw: &raw::BackendTls, findings: &mut Findings) -> ServerTrust {
    let ca = raw.ca.as_ref();
    if raw.verify.as_ref().is_none_or(|at| at.value) {
        return ca.map_or(ServerTrust::System, |at| ServerTrust::Ca(at.value.0.clone()));
    }
    if let Some(ca) = ca {
        findings.within("ca", |findings| {
            findings.warn(
                ca.key.clone(),
                "`ca` has no effect with verify = false",
                "remove verify = false, or the key".to_owned(),
            );
        });
    }
    ServerTrust::Anybody
}

/// Where servers are asked for by their names, these must be such as a certificate can have.
fn server_name(
    raw: &raw::BackendTls,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> ServerNameFrom {
    let name = value(raw.server_name.as_ref(), ServerNameFrom::Address, |v| v.0);
    if let Some(at) = raw
        .server_name
        .as_ref()
        .filter(|_| name == ServerNameFrom::Server)
        && let Some(odd) = servers.keys().find(|name| !raw::is_tls_name(name.as_str()))
    {
        findings.within("server_name", |findings| {
            findings.error(
                at.span.clone(),
                format!("server `{odd}` cannot be asked for by its name, which is not a host name"),
                "call it servers.\"web1.example.com\", or write a host name in place of \"server\""
                    .to_owned(),
            );
        });
    }
    name
}

/// The certificate that `cert` and `key` name, if any; `key` alone is said to be useless.
pub fn identity_of(
    cert: Option<&Located<raw::FilePath>>,
    key: Option<&Located<raw::FilePath>>,
    findings: &mut Findings,
) -> Option<CertificateFiles> {
    if let (Some(at), None) = (key, cert) {
        findings.within("key", |findings| {
            findings.error(
                at.key.clone(),
                "`key` without `cert`: there is no certificate to show",
                "add cert = \"/etc/convey/certificates/convey.pem\", or remove it".to_owned(),
            );
        });
    }
    Some(CertificateFiles {
        cert: cert?.value.0.clone(),
        key: key.map(|at| at.value.0.clone()),
        ocsp: None,
    })
}

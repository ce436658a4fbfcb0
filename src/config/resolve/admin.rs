//! `[stats]`, and `[admin]`: the control socket, and the API on TCP, which nobody else than this host reaches without TLS and a token.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use super::value;
use crate::{
    base::{ListenAddr, Role},
    config::{
        Options,
        admin::{Admin, AdminApi, AdminEntry},
        findings::Findings,
        model::Stats,
        raw::{self, Located},
        tls::CertificateFiles,
    },
};

/// Where the control socket is unless the file says otherwise.
const ADMIN_SOCKET: &str = "/run/convey/admin.sock";

/// What everybody on this host may do.
const DEFAULT_ROLE: Role = Role::Read;

/// The section, or what is so without it.
pub fn admin(section: Option<&Located<raw::Admin>>, options: Options, findings: &mut Findings) -> Admin {
    let raw = section.map(|at| at.value.clone()).unwrap_or_default();
    let default = options.default_socket.unwrap_or(Path::new(ADMIN_SOCKET));
    Admin {
        socket: value(raw.socket.as_ref(), Some(default.to_owned()), |v| v.0),
        api: findings.within("admin", |findings| api(&raw, findings)),
        allow_config_writes: value(raw.allow_config_writes.as_ref(), false, |v| v),
    }
}

/// `[stats]`.
pub fn stats(raw: &raw::Stats, findings: &mut Findings) -> Option<Stats> {
    let port = raw.port.as_ref()?;
    // A port that is a string is how a file of 0.3.5 is known; a new file has nothing to be told.
    if raw.listen_addr.is_none() && port.value.quoted {
        findings.within("stats", |findings| {
            findings.warn(
                port.span.clone(),
                format!("statistics are served on 127.0.0.1:{} only; Convey 0.3.5 listened on every address", port.value.number),
                "add listen_addr = \"0.0.0.0\" for the old behaviour, or listen_addr = \"127.0.0.1\" to confirm this one"
                    .to_owned(),
            );
        });
    }
    let ip = value(raw.listen_addr.as_ref(), IpAddr::V4(Ipv4Addr::LOCALHOST), |v| v);
    Some(Stats {
        listen: ListenAddr::new(SocketAddr::new(ip, port.value.number)),
    })
}

fn api(raw: &raw::Admin, findings: &mut Findings) -> Option<AdminApi> {
    let Some(at) = &raw.listen_addr else {
        // what is wrong otherwise says more
        if findings.is_clean() {
            without_listener(raw, findings);
        }
        return None;
    };
    let listen = at.value.0?;
    if !listen.0.ip().to_canonical().is_loopback() {
        exposed(raw, at, listen, findings)?;
    }
    let tls = match &raw.tls {
        None => None,
        Some(at) => Some(CertificateFiles {
            cert: at.value.cert.as_ref()?.value.0.clone(),
            key: at.value.key.as_ref().map(|at| at.value.0.clone()),
            ocsp: None,
        }),
    };
    Some(AdminApi {
        listen,
        tls,
        entry: entry(raw, findings),
        allowed_hosts: value(raw.allowed_hosts.as_ref(), Vec::new(), |v| v.0),
        allowed_origins: value(raw.allowed_origins.as_ref(), Vec::new(), |v| v.0),
    })
}

/// Says what an address lacks that other hosts reach.
fn exposed(
    raw: &raw::Admin,
    at: &Located<raw::AdminListenAddr>,
    listen: ListenAddr,
    findings: &mut Findings,
) -> Option<()> {
    const TLS: &str = "tls = { cert = \"/etc/convey/certificates/admin.pem\" }";
    const TOKENS: &str =
        "tokens_file = \"/etc/convey/tokens\" with a line as `convey token NAME --role read` prints it";
    let (lacks, add) = match (&raw.tls, &raw.tokens_file) {
        (Some(_), Some(_)) => return Some(()),
        (None, Some(_)) => ("`tls`", TLS.to_owned()),
        (Some(_), None) => ("`tokens_file`", TOKENS.to_owned()),
        (None, None) => ("`tls` and `tokens_file`", format!("{TLS} and {TOKENS}")),
    };
    findings.within("listen_addr", |findings| {
        findings.error(
            at.span.clone(),
            format!("other hosts reach the admin API at {listen}: it needs {lacks} there"),
            format!(
                "add {add}; or listen on this host alone: \"127.0.0.1:{}\"",
                listen.0.port()
            ),
        );
    });
    None
}

fn entry(raw: &raw::Admin, findings: &mut Findings) -> AdminEntry {
    let Some(file) = &raw.tokens_file else {
        return AdminEntry::Loopback(value(raw.loopback_role.as_ref(), DEFAULT_ROLE, |v| v));
    };
    if let Some(at) = raw.loopback_role.as_ref().filter(|at| at.value != DEFAULT_ROLE) {
        findings.within("loopback_role", |findings| {
            findings.warn(
                at.key.clone(),
                "`loopback_role` has no effect beside `tokens_file`: a token is needed on loopback, too",
                "remove one of the two".to_owned(),
            );
        });
    }
    AdminEntry::Tokens(file.value.0.clone())
}

/// Warns of keys that are about a listener that there is not.
fn without_listener(raw: &raw::Admin, findings: &mut Findings) {
    let given = [
        raw.tls.as_ref().map(|at| ("tls", &at.key)),
        raw.tokens_file.as_ref().map(|at| ("tokens_file", &at.key)),
        raw.loopback_role.as_ref().map(|at| ("loopback_role", &at.key)),
        raw.allowed_hosts.as_ref().map(|at| ("allowed_hosts", &at.key)),
        raw.allowed_origins
            .as_ref()
            .map(|at| ("allowed_origins", &at.key)),
    ];
    for (key, span) in given.into_iter().flatten() {
        findings.within(key, |findings| {
            findings.warn(
                span.clone(),
                format!("`{key}` has no effect without `listen_addr`: the admin API is on the control socket alone"),
                "add listen_addr = \"127.0.0.1:7001\", or remove it".to_owned(),
            );
        });
    }
}

//! Settings of TLS as text.

use super::{Setting, Settings, list, path, set, some, string, text, time};
use crate::config::tls::{BackendTls, CertificateFiles, FrontendTls, ServerAlpn, ServerTrust};

/// `[frontends.NAME.tls]`.
pub fn tls(tls: &FrontendTls) -> Settings {
    let FrontendTls {
        certificates,
        certificate_dir,
        acme,
        min_version,
        max_version,
        ciphers,
        groups,
        alpn,
        strict_sni,
        client_auth,
        client_ca,
        client_crl,
        client_crl_policy,
        tickets,
        key_log,
        handshake_timeout,
        max_handshakes,
    } = tls;
    let crls: Vec<_> = client_crl.iter().map(|path| path.to_string_lossy()).collect();
    let nobody = || Setting::Unset("no CA");
    vec![
        ("certificates", certificate_list(certificates)),
        (
            "certificate_dir",
            (certificate_dir.as_deref()).map_or_else(|| Setting::Unset("none"), path),
        ),
        ("acme", super::acme::order(acme.as_ref())),
        ("min_version", text(min_version.label())),
        ("max_version", text(max_version.label())),
        ("ciphers", some(ciphers, "all")),
        ("groups", some(groups, "the default")),
        ("alpn", some(alpn, "no protocol is agreed on")),
        ("strict_sni", set(*strict_sni)),
        ("client_auth", text(client_auth.label())),
        ("client_ca", client_ca.as_deref().map_or_else(nobody, path)),
        ("client_crl", some(&crls, "nothing is revoked")),
        (
            "client_crl_policy",
            match client_crl.is_empty() {
                true => Setting::Unset("for client_crl"),
                false => text(client_crl_policy.label()),
            },
        ),
        ("tickets", set(*tickets)),
        ("key_log", set(*key_log)),
        ("handshake_timeout", time(*handshake_timeout)),
        ("max_handshakes", set(*max_handshakes)),
    ]
}

/// `[backends.NAME.tls]`.
pub fn backend_tls(tls: &BackendTls) -> Settings {
    let BackendTls {
        trust,
        server_name,
        identity,
        alpn,
    } = tls;
    let (cert, key) = match identity {
        Some(files) => (
            path(&files.cert),
            (files.key.as_deref()).map_or(Setting::Unset("it is in cert"), path),
        ),
        None => (Setting::Unset("no certificate"), Setting::Unset("no certificate")),
    };
    vec![
        ("verify", set(*trust != ServerTrust::Anybody)),
        (
            "ca",
            match trust {
                ServerTrust::System => Setting::Unset("the CAs of the host"),
                ServerTrust::Ca(file) => path(file),
                ServerTrust::Anybody => Setting::Unset("nothing is verified"),
            },
        ),
        ("server_name", text(&server_name.label())),
        ("cert", cert),
        ("key", key),
        (
            "alpn",
            match alpn {
                ServerAlpn::Client => text("client"),
                ServerAlpn::Off => text("off"),
                ServerAlpn::Offered(names) => list(names),
            },
        ),
    ]
}

fn certificate_list(certificates: &[CertificateFiles]) -> Setting {
    if certificates.is_empty() {
        return Setting::Unset("those of certificate_dir and acme");
    }
    let one = |files: &CertificateFiles| {
        let CertificateFiles { cert, key, ocsp } = files;
        let keys = [
            ("cert", Some(cert)),
            ("key", key.as_ref()),
            ("ocsp", ocsp.as_ref()),
        ];
        let keys: Vec<String> = (keys.into_iter())
            .filter_map(|(key, path)| Some(format!("{key} = {}", string(&path?.to_string_lossy()))))
            .collect();
        format!("{{ {} }}", keys.join(", "))
    };
    let all: Vec<String> = certificates.iter().map(one).collect();
    Setting::Value(format!("[{}]", all.join(", ")))
}

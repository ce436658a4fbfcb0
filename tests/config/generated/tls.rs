//! Any TLS that ends at a frontend, and any to servers.

use std::path::PathBuf;

use convey::config::{
    BackendTls, CertificateFiles, CipherSuite, ClientAuth, CrlPolicy, FrontendTls, Group, ServerAlpn,
    ServerNameFrom, ServerTrust, TlsVersion,
};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use super::{
    acme::order,
    configs::millis,
    routing::{HOUR, alpn},
};

/// The path of a file.
pub fn path() -> impl Strategy<Value = PathBuf> {
    "/[a-z \"\\\\é]{0,20}[a-z]".prop_map(PathBuf::from)
}

fn certificate() -> impl Strategy<Value = CertificateFiles> {
    (path(), option::of(path()), option::of(path())).prop_map(|(cert, key, ocsp)| CertificateFiles {
        cert,
        key,
        ocsp,
    })
}

fn versions() -> impl Strategy<Value = (TlsVersion, TlsVersion)> {
    use TlsVersion::{Tls12, Tls13};
    prop::sample::select(vec![(Tls12, Tls12), (Tls12, Tls13), (Tls13, Tls13)])
}

/// What certificates of clients must be, with the files for it.
fn clients() -> impl Strategy<Value = (ClientAuth, Option<PathBuf>, Vec<PathBuf>, CrlPolicy)> {
    let auth = prop::sample::select(vec![ClientAuth::None, ClientAuth::Optional, ClientAuth::Required]);
    let policy = prop::sample::select(vec![CrlPolicy::Complete, CrlPolicy::Listed]);
    (auth, path(), vec(path(), 0..3), policy).prop_map(|(auth, ca, crl, policy)| {
        if auth == ClientAuth::None {
            return (auth, None, Vec::new(), CrlPolicy::default());
        }
        let policy = if crl.is_empty() {
            CrlPolicy::default()
        } else {
            policy
        };
        (auth, Some(ca), crl, policy)
    })
}

/// `tls`.
pub fn frontend_tls() -> impl Strategy<Value = Option<FrontendTls>> {
    let sets = (
        subsequence(CipherSuite::ALL.to_vec(), 0..=CipherSuite::ALL.len()).prop_shuffle(),
        subsequence(Group::ALL.to_vec(), 0..=Group::ALL.len()).prop_shuffle(),
        alpn(),
    );
    let some = (
        (vec(certificate(), 0..4), option::of(path()), option::of(order())),
        versions(),
        sets,
        clients(),
        any::<[bool; 3]>(),
        (millis(1, HOUR), 1..=1_000_000_u32),
    )
        .prop_map(
            |(
                (mut certificates, certificate_dir, acme),
                (min_version, max_version),
                (ciphers, mut groups, alpn),
                (client_auth, client_ca, client_crl, client_crl_policy),
                [strict_sni, tickets, key_log],
                (handshake_timeout, max_handshakes),
            )| {
                if max_version == TlsVersion::Tls12 && groups.iter().all(|group| group.is_tls13_only()) {
                    groups.clear();
                }
                if certificates.is_empty() && certificate_dir.is_none() && acme.is_none() {
                    certificates.push(CertificateFiles {
                        cert: "/a.pem".into(),
                        key: None,
                        ocsp: None,
                    });
                }
                FrontendTls {
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
                }
            },
        );
    option::of(some)
}

/// `tls` of a backend.
pub fn backend_tls() -> impl Strategy<Value = Option<BackendTls>> {
    use ServerNameFrom::{Address, Client, Fixed};
    let trust = prop_oneof![
        Just(ServerTrust::System),
        path().prop_map(ServerTrust::Ca),
        Just(ServerTrust::Anybody),
    ];
    let host = "[a-z][a-z0-9-]{0,8}[a-z0-9](\\.[a-z][a-z0-9]{0,8}){0,3}";
    let name = prop_oneof![
        Just(Address),
        Just(Client),
        Just(Fixed("server".into())),
        Just(Fixed("2001:db8::1".into())),
        host.prop_map(|host| Fixed(host.into())),
    ];
    let identity = option::of((path(), option::of(path()))).prop_map(|files| {
        let (cert, key) = files?;
        Some(CertificateFiles {
            cert,
            key,
            ocsp: None,
        })
    });
    let alpn = prop_oneof![
        Just(ServerAlpn::Client),
        Just(ServerAlpn::Off),
        vec("[!-~é]{1,12}".prop_map(String::into_boxed_str), 1..3).prop_map(ServerAlpn::Offered),
    ];
    let some = (trust, name, identity, alpn).prop_map(|(trust, server_name, identity, alpn)| BackendTls {
        trust,
        server_name,
        identity,
        alpn,
    });
    option::of(some)
}

//! Words of other programs that are about TLS.

use toml::de::DeValue;

use super::{own_list, own_text};

/// What a key that is about TLS was meant for: the key if it is of the same section, and the line.
pub fn meant(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    const PEM: &str = "/etc/convey/certificates/www.pem";
    let same = |key: &'static str, value: &str| Some((Some(key), format!("{key} = {value}")));
    let pem = || own_text(value, PEM);
    let elsewhere = |line: &str| Some((None, line.to_owned()));
    match (section, key) {
        (
            "Frontend",
            "ssl"
            | "crt"
            | "cert"
            | "certificate"
            | "certificates"
            | "ssl_certificate"
            | "ssl_certificate_key",
        ) => same("tls", &format!("{{ certificates = [{{ cert = {} }}] }}", pem())),
        (
            "FrontendTls",
            "crt" | "cert" | "cert_path" | "cert_file" | "certificate" | "ssl_certificate" | "pem",
        ) => same("certificates", &format!("[{{ cert = {} }}]", pem())),
        ("FrontendTls", "key" | "key_path" | "key_file" | "ssl_certificate_key" | "private_key") => same(
            "certificates",
            &format!("[{{ cert = \"{PEM}\", key = {} }}]", pem()),
        ),
        ("FrontendTls", "crt_dir" | "cert_dir" | "certificates_dir" | "certificate_directory") => {
            same("certificate_dir", &own_text(value, "/etc/convey/certificates"))
        }
        (
            "FrontendTls",
            "protocols" | "ssl_protocols" | "versions" | "ssl_min_ver" | "min_tls_version"
            | "minimum_version",
        ) => same("min_version", "\"1.2\""),
        ("FrontendTls", "ssl_max_ver" | "max_tls_version" | "maximum_version") => {
            same("max_version", "\"1.3\"")
        }
        ("FrontendTls", "ciphersuites" | "cipher_suites" | "ssl_ciphers" | "ssl_conf_command") => {
            same("ciphers", "[\"TLS_AES_128_GCM_SHA256\", …]")
        }
        ("FrontendTls", "curves" | "ecdhe" | "ssl_ecdh_curve" | "ecdh_curves" | "named_groups") => {
            same("groups", &own_list(value, "x25519"))
        }
        (
            "FrontendTls",
            "ca" | "ca_file" | "ssl_client_certificate" | "client_ca_file" | "root_ca_cert_path",
        ) => same("client_ca", &pem()),
        ("FrontendTls", "crl" | "crl_file" | "ssl_crl") => same("client_crl", &pem()),
        ("FrontendTls", "verify" | "ssl_verify_client" | "client_certificates" | "mtls") => {
            same("client_auth", "\"required\", \"optional\" or \"none\"")
        }
        ("FrontendTls", "session_tickets" | "tls_tickets" | "ssl_session_tickets") => same(
            "tickets",
            match value {
                DeValue::Boolean(false) => "false",
                _ => "true",
            },
        ),
        ("FrontendTls", "ticket_keys_file" | "tls_ticket_keys" | "ssl_session_ticket_key") => Some((
            None,
            format!(
                "ticket_keys_file = {} in [global]",
                own_text(value, "/etc/convey/ticket.keys")
            ),
        )),
        ("FrontendTls", "sslkeylogfile" | "SSLKEYLOGFILE" | "keylog" | "keylog_file" | "key_log_file") => {
            same("key_log", "true")
        }
        ("FrontendTls", "ssl_reject_handshake" | "reject_unknown_sni") => same("strict_sni", "true"),
        ("Frontend", "backends_tls" | "backend_tls" | "proxy_ssl" | "server_tls" | "upstream_tls") => {
            elsewhere("[backends.NAME.tls], whose keys are verify, ca, server_name, cert, key and alpn")
        }
        ("Backend", "ssl" | "backends_tls" | "proxy_ssl" | "tls_enabled" | "https" | "open") => {
            same("tls", "{ ca = \"/etc/convey/certificates/ca.pem\" }")
        }
        (
            "Backend",
            "verify"
            | "ca"
            | "ca_file"
            | "sni"
            | "verifyhost"
            | "server_name"
            | "proxy_ssl_name"
            | "proxy_ssl_verify"
            | "proxy_ssl_trusted_certificate",
        ) => {
            elsewhere("it in [backends.NAME.tls], whose keys are verify, ca, server_name, cert, key and alpn")
        }
        ("Server", "ssl" | "tls" | "verify" | "ca_file" | "verifyhost" | "crt" | "proxy_ssl") => {
            elsewhere("[backends.NAME.tls]: it is for all servers of a backend")
        }
        ("HealthCheck", "check_ssl" | "ssl" | "tls") => {
            elsewhere("nothing for it: checks shake hands where [backends.NAME.tls] is set")
        }
        _ => server_tls(section, key, value),
    }
}

/// As [`meant`], of certificates, and of TLS to servers.
fn server_tls(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    const PEM: &str = "/etc/convey/certificates/www.pem";
    let same = |key: &'static str, value: &str| Some((Some(key), format!("{key} = {value}")));
    let text = |key: &'static str, example: &str| same(key, &own_text(value, example));
    match (section, key) {
        (
            "BackendTls",
            "ca_file"
            | "ca_cert"
            | "cafile"
            | "root_ca"
            | "root_ca_cert_path"
            | "trusted_ca"
            | "proxy_ssl_trusted_certificate"
            | "proxy_ssl_ca",
        ) => text("ca", "/etc/convey/certificates/ca.pem"),
        (
            "BackendTls",
            "ignore_verify"
            | "insecure"
            | "insecure_skip_verify"
            | "tls_insecure_skip_verify"
            | "skip_verify"
            | "open"
            | "trust_all",
        ) => same(
            "verify",
            match value {
                DeValue::Boolean(false) => "true",
                _ => "false",
            },
        ),
        ("BackendTls", "proxy_ssl_verify" | "verify_peer" | "ssl_verify") => same(
            "verify",
            match value {
                DeValue::Boolean(false) => "false",
                _ => "true",
            },
        ),
        (
            "BackendTls",
            "sni"
            | "sni_auto"
            | "proxy_ssl_server_name"
            | "verifyhost"
            | "verify_host"
            | "proxy_ssl_name"
            | "servername"
            | "hostname"
            | "host"
            | "name",
        ) => same("server_name", &own_server_name(value)),
        (
            "BackendTls",
            "crt"
            | "cert_path"
            | "cert_file"
            | "certificate"
            | "client_cert"
            | "proxy_ssl_certificate"
            | "pem",
        ) => text("cert", "/etc/convey/certificates/convey.pem"),
        (
            "BackendTls",
            "key_path" | "key_file" | "private_key" | "client_key" | "proxy_ssl_certificate_key",
        ) => text("key", "/etc/convey/certificates/convey.key"),
        ("BackendTls", "protocols" | "next_protos" | "alpn_protocols") => {
            same("alpn", &own_list(value, "h2"))
        }
        (
            "BackendTls",
            "min_version" | "max_version" | "ciphers" | "groups" | "ssl_protocols" | "ssl_min_ver",
        ) => {
            let why = "nothing for it: servers are offered TLS 1.3 and 1.2 with all that is safe, and choose";
            Some((None, why.to_owned()))
        }
        ("BackendTls", "session_reuse" | "proxy_ssl_session_reuse" | "no_ssl_reuse") => {
            Some((None, "nothing for it: sessions are resumed".to_owned()))
        }
        (
            "Certificate",
            "crt" | "cert_path" | "certificate" | "ssl_certificate" | "pem" | "chain" | "fullchain",
        ) => text("cert", PEM),
        ("Certificate", "key_path" | "private_key" | "ssl_certificate_key" | "privkey") => {
            text("key", "/etc/convey/certificates/www.key")
        }
        ("Certificate", "ocsp_file" | "ssl_stapling_file" | "staple") => {
            text("ocsp", "/etc/convey/certificates/www.ocsp")
        }
        _ => None,
    }
}

/// The name of a server that other programs' words mean.
fn own_server_name(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.contains("_sni") || text.contains("server_name") => {
            "\"client\"".to_owned()
        }
        // a fetch with an argument: str(www.example.com)
        DeValue::String(text) if text.starts_with("str(") => {
            crate::config::quote::string(text.trim_start_matches("str(").trim_end_matches(')'))
        }
        DeValue::String(text) => crate::config::quote::string(text),
        DeValue::Boolean(true) => "\"client\"".to_owned(),
        _ => "\"www.example.com\"".to_owned(),
    }
}

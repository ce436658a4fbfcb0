//! Settings of certificates that are ordered.

use super::{Setting, Settings, commands::words, path, set, some, string, text, time};
use crate::config::acme::{Acme, CertificateOrder};

/// `[acme]`.
pub fn acme(acme: &Acme) -> Settings {
    let Acme {
        directory: _,
        contact,
        ca,
        challenge,
        http_listen_addr,
        external_account,
        profile,
        dns_hook,
        dns_wait,
        renew_before,
        lead,
    } = acme;
    let mut settings = vec![
        ("directory", text(&acme.directory_text())),
        ("contact", some(contact, "none")),
        (
            "ca",
            ca.as_deref().map_or(Setting::Unset("the CAs of the host"), path),
        ),
        ("challenge", text(challenge.label())),
        (
            "http_listen_addr",
            http_listen_addr.map_or(Setting::Unset("http-01 is not answered"), |at| {
                text(&at.to_string())
            }),
        ),
        (
            "eab",
            external_account.as_ref().map_or(Setting::Unset("none"), |eab| {
                Setting::Value(format!(
                    "{{ kid = {}, hmac_key = {} }}",
                    string(&eab.kid),
                    string(&eab.hmac_key.to_string())
                ))
            }),
        ),
        (
            "profile",
            profile
                .as_deref()
                .map_or(Setting::Unset("the CA's default"), text),
        ),
        ("dns_wait", time(*dns_wait)),
        (
            "renew_before",
            renew_before.map_or(
                Setting::Unset("as the CA advises, else a third of the lifetime"),
                time,
            ),
        ),
        ("lead", set(*lead)),
    ];
    match dns_hook {
        Some(command) => settings.extend([
            ("dns_hook", words(&command.line)),
            ("dns_hook_timeout", time(command.timeout)),
        ]),
        None => settings.push(("dns_hook", Setting::Unset("none"))),
    }
    settings
}

/// `acme` of a frontend.
pub fn order(order: Option<&CertificateOrder>) -> Setting {
    let Some(CertificateOrder {
        names,
        challenge,
        profile,
    }) = order
    else {
        return Setting::Unset("no certificate is ordered");
    };
    let names: Vec<String> = names.iter().map(|name| string(&name.to_string())).collect();
    let mut keys = vec![format!("names = [{}]", names.join(", "))];
    keys.extend(challenge.map(|challenge| format!("challenge = \"{}\"", challenge.label())));
    keys.extend(
        profile
            .as_deref()
            .map(|profile| format!("profile = {}", string(profile))),
    );
    Setting::Value(format!("{{ {} }}", keys.join(", ")))
}

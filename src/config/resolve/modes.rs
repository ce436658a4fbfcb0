//! Keys of backends that packets know nothing of, and that would be believed to work: errors where only frontends in packet
//! modes use the backend, warnings where frontends in mode proxy do, too.

use std::ops::Range;

use crate::config::{
    findings::Findings,
    model::Frontend,
    raw::{self, ProxyVersion},
    users::Users,
};

/// Checks every backend that a frontend in a packet mode uses.
pub fn check(file: &raw::File, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let by_packets = users.of_backend(name).iter().find(|user| user.mode.is_packet());
        let Some(frontend) = by_packets else { continue };
        let place = Place {
            frontend,
            is_error: users.are_only_packets(name),
        };
        findings.within_all(&["backends", name], |findings| {
            backend(&place, &at.value, findings);
        });
    }
}

/// A frontend in a packet mode whose backend has keys for mode proxy.
struct Place<'a> {
    frontend: &'a Frontend,
    is_error: bool,
}

fn backend(place: &Place<'_>, raw: &raw::Backend, findings: &mut Findings) {
    if let Some(at) = &raw.fallback {
        let why = "sends to the servers of this backend alone";
        place.report("fallback", at.key.clone(), why, findings);
    }
    let send_proxy = raw.options.send_proxy.as_ref();
    if let Some(at) = send_proxy.filter(|at| at.value != ProxyVersion::Off) {
        place.report(
            "send_proxy",
            at.key.clone(),
            "adds nothing to a connection",
            findings,
        );
    }
    if let Some(at) = &raw.tls {
        place.report("tls", at.key.clone(), "passes packets on as they come", findings);
    }
    for (name, at) in raw.servers.iter().flat_map(|at| &at.value.0) {
        if let Some(at) = &at.value.sni {
            findings.within_all(&["servers", name], |findings| {
                let why = "chooses a server before a name is known";
                place.report("sni", at.key.clone(), why, findings);
            });
        }
    }
}

impl Place<'_> {
    fn report(&self, key: &str, span: Range<usize>, why: &str, findings: &mut Findings) {
        let Frontend { name, mode, .. } = self.frontend;
        let message = match self.is_error {
            true => format!("`{key}` does not work in mode {mode}: frontend `{name}` {why}"),
            false => format!(
                "`{key}` applies only to frontends in mode proxy: frontend `{name}` in mode {mode} {why}"
            ),
        };
        findings.within(key, |findings| match self.is_error {
            true => findings.error(span, message, "remove it, or use mode = \"proxy\"".to_owned()),
            false => findings.warn(span, message, format!("give `{name}` a backend of its own")),
        });
    }
}

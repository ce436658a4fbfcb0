//! Where a frontend's connections go, and what precedes their payload.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use super::{backend_name, merged, time, value};
use crate::{
    access::RuleSubject,
    base::{BackendName, HostPattern},
    config::{
        findings::Findings,
        model::Mode,
        raw::{self, Located, ProxyVersion, Section as _},
        routing::{
            AcceptProxy, NonTls, Route, RouteTarget, Routing, SendProxy, SentTlvs, UnexpectedSni, Unrouted,
        },
    },
};

/// Names of backends.
type Known = Rc<BTreeSet<String>>;

/// How long a PROXY header may take: as the protocol's specification asks (section 2), a lost segment's retransmission is
/// waited for.
const PROXY_TIMEOUT: Duration = Duration::from_secs(3);

/// The backend of a frontend and its routes; `own` has what `[defaults]` says too.
pub fn routing(
    raw: &raw::Frontend,
    own: &raw::FrontendOptions,
    mode: Mode,
    known: &Known,
    findings: &mut Findings,
) -> Option<(BackendName, Routing)> {
    let backend = (raw.backend.as_ref()).map(|at| findings.within("backend", |f| backend_name(at, known, f)));
    let routes = findings.within("routes", |findings| routes(raw, mode, known, findings));
    let (backend, unrouted) = match backend {
        Some(found) => (found?, Unrouted::Backend),
        None => (first_backend(raw, &routes, findings)?, Unrouted::Reject),
    };
    let default = Routing::default();
    let routing = Routing {
        routes,
        unrouted,
        unexpected_sni: value(own.unexpected_sni.as_ref(), UnexpectedSni::Default, |v| v),
        non_tls: value(own.non_tls.as_ref(), NonTls::Reject, |v| v),
        client_hello_timeout: time(own.client_hello_timeout.as_ref(), default.client_hello_timeout),
    };
    Some((backend, routing))
}

/// The backend of a frontend that names none.
fn first_backend(raw: &raw::Frontend, routes: &[Route], findings: &mut Findings) -> Option<BackendName> {
    let first = routes.iter().find_map(|route| match &route.target {
        RouteTarget::Backend(name) => Some(name.clone()),
        RouteTarget::Reject => None,
    });
    let all_reject = |at: &Located<raw::Routes>| !routes.is_empty() && routes.len() == at.value.0.len();
    if let (None, Some(at)) = (&first, raw.routes.as_ref().filter(|at| all_reject(at))) {
        findings.within("routes", |findings| {
            findings.error(
                at.key.clone(),
                "every route rejects, and the frontend names no backend: it would serve nobody",
                "add backend = \"NAME\" for the connections that no route matches".to_owned(),
            );
        });
    }
    first
}

fn routes(raw: &raw::Frontend, mode: Mode, known: &Known, findings: &mut Findings) -> Vec<Route> {
    let Some(at) = &raw.routes else {
        return Vec::new();
    };
    if mode.is_packet() {
        findings.error(
            at.key.clone(),
            format!("mode {mode} has no routes: its packets go to one backend before anything is known of a connection"),
            "remove them, or use mode = \"proxy\"".to_owned(),
        );
        return Vec::new();
    }
    let routes = at.value.0.iter().enumerate();
    routes
        .filter_map(|(index, at)| findings.within(&index.to_string(), |f| route(at, known, f)))
        .collect()
}

fn route(at: &Located<raw::Route>, known: &Known, findings: &mut Findings) -> Option<Route> {
    let raw = &at.value;
    let target = match (&raw.backend, &raw.reject) {
        (Some(backend), Some(reject)) if reject.value => {
            findings.within("reject", |findings| {
                findings.error(
                    reject.key.clone(),
                    format!("the route has `reject` and a backend \"{}\"", backend.value.0),
                    "remove one of the two".to_owned(),
                );
            });
            return None;
        }
        (Some(backend), _) => {
            RouteTarget::Backend(findings.within("backend", |f| backend_name(backend, known, f))?)
        }
        (None, Some(reject)) if reject.value => RouteTarget::Reject,
        (None, Some(reject)) => {
            findings.within("reject", |findings| {
                findings.error(
                    reject.span.clone(),
                    "the route does not reject and has no backend",
                    "write backend = \"NAME\" or reject = true".to_owned(),
                );
            });
            return None;
        }
        // has been said where it was read
        (None, None) => return None,
    };
    Some(Route {
        sni: names(raw.sni.as_ref()),
        alpn: value(raw.alpn.as_ref(), Vec::new(), |v| v.0),
        source: value(raw.source.as_ref(), Vec::new(), subjects),
        destination: value(raw.destination.as_ref(), Vec::new(), |v| {
            v.0.into_iter().map(|(item, _)| item).collect()
        }),
        target,
    })
}

/// The patterns of a key.
pub fn names(at: Option<&Located<raw::HostPatterns>>) -> Vec<HostPattern> {
    value(at, Vec::new(), |v| {
        v.0.into_iter().map(|(pattern, _)| pattern).collect()
    })
}

fn subjects<const MAX: usize>(list: raw::Subjects<MAX>) -> Vec<RuleSubject> {
    list.0.into_iter().map(|(subject, _)| subject).collect()
}

/// `proxy_protocol` of a frontend. What `[defaults]` says counts by itself if it says `from`.
pub fn accept_proxy(
    own: Option<&Located<raw::ProxyProtocol>>,
    defaults: Option<&Located<raw::ProxyProtocol>>,
    mode: Mode,
    findings: &mut Findings,
) -> Option<AcceptProxy> {
    let raw = merged(own, defaults);
    if !value(raw.enabled.as_ref(), true, |v| v) {
        return None;
    }
    if mode.is_packet() {
        if let Some(at) = own {
            findings.within("proxy_protocol", |findings| {
                findings.error(
                    at.key.clone(),
                    format!("mode {mode} reads no PROXY header: packets reach the server as they come, header and all"),
                    "remove it and let the servers expect the header, or use mode = \"proxy\"".to_owned(),
                );
            });
        }
        return None;
    }
    let Some(from) = raw.from.clone() else {
        missing_from(own, findings);
        return None;
    };
    Some(AcceptProxy {
        from: from.value.0.into_iter().map(|(subject, _)| subject).collect(),
        unix: from.value.1.is_some(),
        required: value(raw.required.as_ref(), true, |v| v),
        timeout: time(raw.timeout.as_ref(), PROXY_TIMEOUT),
    })
}

fn missing_from(own: Option<&Located<raw::ProxyProtocol>>, findings: &mut Findings) {
    let Some(at) = own.filter(|_| findings.absence_counts()) else {
        return;
    };
    findings.within("proxy_protocol", |findings| {
        findings.error(
            at.key.clone(),
            "missing key `from` of `proxy_protocol`: no network may send a header",
            "write the networks of the load balancers in front of Convey: from = [\"10.0.0.0/8\"]".to_owned(),
        );
    });
}

/// Warns where anybody may say whom a connection is from.
pub fn check_trust(at: Option<&Located<raw::ProxyProtocol>>, findings: &mut Findings) {
    let from = at.and_then(|at| at.value.from.as_ref());
    for (subject, span) in from.into_iter().flat_map(|at| &at.value.0) {
        let is_all = |subject: &RuleSubject| matches!(subject, RuleSubject::Network(n) if n.prefix() == 0);
        if is_all(subject) {
            findings.within_all(&["proxy_protocol", "from"], |findings| {
                findings.warn(
                    span.clone(),
                    format!("PROXY headers from {subject} are believed: every client can claim any address"),
                    "write only the networks of the load balancers in front of Convey".to_owned(),
                );
            });
        }
    }
}

/// `send_proxy` of a backend with its TLVs.
pub fn send_proxy(
    own: &raw::BackendOptions,
    defaults: &raw::BackendOptions,
    findings: &mut Findings,
) -> Option<SendProxy> {
    let both = own.clone().or(defaults);
    let version = value(both.send_proxy.as_ref(), ProxyVersion::Off, |v| v);
    if version == ProxyVersion::V2 {
        let tlvs = value(both.send_proxy_tlvs.as_ref(), SentTlvs::default(), |v| v.0);
        return Some(SendProxy::V2(tlvs));
    }
    if let Some(at) = own
        .send_proxy_tlvs
        .as_ref()
        .filter(|at| at.value.0.sent().next().is_some())
    {
        findings.within("send_proxy_tlvs", |findings| {
            let why = match version {
                ProxyVersion::V1 => "a header of version 1 has none",
                ProxyVersion::Off | ProxyVersion::V2 => "no header is sent",
            };
            findings.error(
                at.key.clone(),
                format!("`send_proxy_tlvs` needs send_proxy = \"v2\": {why}"),
                "write send_proxy = \"v2\", or remove the key".to_owned(),
            );
        });
    }
    (version == ProxyVersion::V1).then_some(SendProxy::V1)
}

/// `send_proxy` of health checks, which goes with that of the backend.
pub fn checks_send_proxy(
    own: Option<&Located<raw::HealthCheck>>,
    raw: &raw::HealthCheck,
    backend: Option<SendProxy>,
    findings: &mut Findings,
) -> bool {
    let wanted = value(raw.send_proxy.as_ref(), false, |v| v);
    let own = own.and_then(|at| at.value.send_proxy.as_ref());
    if let Some(at) = own.filter(|_| wanted && backend.is_none()) {
        findings.within_all(&["health_check", "send_proxy"], |findings| {
            findings.error(
                at.key.clone(),
                "checks cannot begin with a PROXY header: the backend's connections do not",
                "add send_proxy = \"v2\" or \"v1\" to the backend, or remove the key here".to_owned(),
            );
        });
    }
    wanted && backend.is_some()
}

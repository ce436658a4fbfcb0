//! How a service is asked that names servers.

use std::time::Duration;

use super::{backend_tls::identity_of, time};
use crate::{
    base::{HttpUrl, SocketPath},
    config::{
        findings::Findings,
        http_service::{HttpService, SourceTls},
        platforms::ServicePlace,
        raw::{self, Located},
        tls::ServerTrust,
    },
};

/// As gobetween has it for names and web servers; a command has two seconds more than there, for a shell to start.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What somebody could do in the place of a source.
const CHOOSES: &str = "chooses the servers of the backend";

/// What a service at a socket is called in its requests.
const AT_SOCKET: &str = "http://localhost";

/// A service at a place; `None` if a key of it is wrong, which has been said.
pub fn service(raw: &raw::Discovery, place: ServicePlace, findings: &mut Findings) -> Option<HttpService> {
    let (url, socket) = match place {
        ServicePlace::Http(url) => (url, None),
        ServicePlace::Socket(path) => (AT_SOCKET.parse().ok()?, Some(path)),
    };
    Some(HttpService {
        tls: tls(raw.tls.as_ref(), &url, socket.as_ref(), CHOOSES, findings)?,
        token: match &raw.token {
            Some(token) => Some(token.value.0.clone()?),
            None => None,
        },
        url,
        socket,
        timeout: time(raw.timeout.as_ref(), TIMEOUT),
    })
}

/// Where a service is whose requests have paths of their own, and no query; `default` where nothing says it. `None` if what does
/// is wrong, which has been said.
pub fn place_of_api(
    raw: &raw::Discovery,
    default: &str,
    kind: &str,
    findings: &mut Findings,
) -> Option<ServicePlace> {
    let Some(at) = &raw.url else {
        return default.parse().ok();
    };
    let place = at.value.0.clone()?;
    if matches!(&place, ServicePlace::Http(url) if url.target.contains('?')) {
        findings.within("url", |findings| {
            findings.error(
                at.span.clone(),
                format!("`url` has a query, and that of a source of kind \"{kind}\" is Convey's own"),
                format!("write where it listens, such as \"{default}\"; what is wanted of it are keys"),
            );
        });
    }
    Some(place)
}

/// A place that is a URL; `None` if it is a socket, which is said.
pub fn url_of(
    raw: &raw::Discovery,
    place: ServicePlace,
    kind: &str,
    findings: &mut Findings,
) -> Option<HttpUrl> {
    match (place, &raw.url) {
        (ServicePlace::Http(url), _) => Some(url),
        (ServicePlace::Socket(_), at) => {
            if let Some(at) = at {
                findings.within("url", |findings| {
                    findings.error(
                        at.span.clone(),
                        format!(
                            "a source of kind \"{kind}\" is asked over the network, not at a unix socket"
                        ),
                        "write a URL that begins with http:// or https://".to_owned(),
                    );
                });
            }
            None
        }
    }
}

/// `tls` of what is asked; `harm` is what somebody could do in its place. `None` if a key is wrong, which has been said.
pub fn tls(
    at: Option<&Located<raw::SourceTls>>,
    url: &HttpUrl,
    socket: Option<&SocketPath>,
    harm: &str,
    findings: &mut Findings,
) -> Option<SourceTls> {
    let Some(at) = at else {
        return Some(SourceTls::default());
    };
    findings.within("tls", |findings| {
        let raw = &at.value;
        let without = match socket {
            Some(path) => Some((
                format!("it is asked at {path}"),
                "write the url of another host, https://…, or remove the section".to_owned(),
            )),
            None if !url.is_tls => Some((
                "the URL begins with http://".to_owned(),
                format!("write https://{}/…, or remove the section", url.host),
            )),
            None => None,
        };
        if let Some((why, help)) = without {
            findings.error(at.key.clone(), format!("`tls` without TLS: {why}"), help);
        }
        let ca = raw.ca.as_ref().map(|at| at.value.0.clone());
        let trust = match (&raw.verify, ca) {
            (Some(verify), _) if !verify.value => {
                findings.within("verify", |findings| {
                    findings.warn(
                        verify.span.clone(),
                        format!("the server is not verified: whoever can answer in its place {harm}"),
                        "remove it, with ca = \"/etc/convey/certificates/ca.pem\" where its CA is your own"
                            .to_owned(),
                    );
                });
                ServerTrust::Anybody
            }
            (_, Some(ca)) => ServerTrust::Ca(ca),
            (_, None) => ServerTrust::System,
        };
        Some(SourceTls {
            trust,
            server_name: match &raw.server_name {
                Some(name) => Some(name.value.0.clone()?),
                None => None,
            },
            identity: identity_of(raw.cert.as_ref(), raw.key.as_ref(), findings),
        })
    })
}

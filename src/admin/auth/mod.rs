//! Who may ask the API on TCP, and what.
//!
//! ```text
//! request ─► Host ─► page of another site ─► token, or loopback ─► api (role, Content-Type)
//!             403      403; preflight 204        401, 429           403        415
//! ```
//! The first two are for browsers, which send whatever a page tells them to from the operator's host.

mod hosts;
mod logins;
mod tokens;

use std::{fmt, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
            AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
        },
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use rustls::ServerConfig;

use super::{caller::Caller, views::Problem};
use crate::{
    base::{HostName, Origin, Role},
    tls::CertificateStore,
};

pub use hosts::{host_of, is_no_domain};
pub use logins::{FailedLogins, LoginFailure};
pub use tokens::{RANDOM_BYTES, Token, Tokens};

/// What the API on TCP goes by: the resolved configuration and what was read for it.
#[derive(Debug)]
pub struct ApiAccess {
    /// TLS; `None`: plain HTTP.
    pub tls: Option<ApiTls>,
    /// Who may ask.
    pub entry: Entry,
    /// Names that it answers to besides those that no web page has.
    pub hosts: Vec<HostName>,
    /// Pages of other hosts that may ask.
    pub origins: Vec<Origin>,
}

/// TLS of the API.
#[derive(Clone)]
pub struct ApiTls {
    /// What connections are opened with.
    pub config: Arc<ServerConfig>,
    /// Its certificate. No page of another name gets past it, so its names are answered.
    pub certificates: Arc<CertificateStore>,
}

impl fmt::Debug for ApiTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiTls")
    }
}

/// Who may ask.
#[derive(Debug)]
pub enum Entry {
    /// Who has one of these.
    Tokens(Arc<Tokens>),
    /// Whoever is on this host, and may do this.
    Loopback(Role),
}

/// From where a request comes over TCP.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub IpAddr);

/// What stands before the routes of the API on TCP.
#[derive(Debug, Clone)]
pub struct Gate {
    access: Arc<ArcSwap<ApiAccess>>,
    failed: Arc<FailedLogins>,
}

/// An answer in place of the routes'.
struct Refusal {
    problem: Problem,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Who asks for no more than whether the daemon is well needs no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// How long a browser may remember a preflight, in seconds.
const PREFLIGHT_AGE: &str = "600";

impl Gate {
    /// Goes by this, which may change, and counts failed logins there.
    pub const fn new(access: Arc<ArcSwap<ApiAccess>>, failed: Arc<FailedLogins>) -> Self {
        Self { access, failed }
    }

    /// These routes for those who may ask.
    pub fn before(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self, admit))
    }

    /// Who it is.
    fn identify(&self, access: &ApiAccess, request: &Request) -> Result<Caller, Refusal> {
        if OPEN.contains(&request.uri().path()) {
            return Ok(Caller::Anybody);
        }
        let Some(RemoteAddress(from)) = request.extensions().get().copied() else {
            return Err(Refusal::of(
                StatusCode::FORBIDDEN,
                "nobody knows where this comes from",
            ));
        };
        let tokens = match &access.entry {
            Entry::Loopback(role) => return Ok(Caller::Loopback { from, role: *role }),
            Entry::Tokens(tokens) => tokens,
        };
        let why = match bearer(request.headers()) {
            Ok(None) => return Err(Refusal::unauthorized("Bearer realm=\"convey\"", NO_TOKEN)),
            Ok(Some(token)) => match tokens.find(token) {
                Some((name, role)) => {
                    let name = Arc::clone(name);
                    return Ok(Caller::Token { name, from, role });
                }
                None => LoginFailure::UnknownToken,
            },
            Err(why) => why,
        };
        Err(match self.failed.note(from, why) {
            false => {
                Refusal::unauthorized("Bearer realm=\"convey\", error=\"invalid_token\"", why.sentence())
            }
            true => Refusal {
                problem: Problem::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY),
                header: Some((RETRY_AFTER, HeaderValue::from_static("60"))),
            },
        })
    }
}

const NO_TOKEN: &str = "this endpoint needs a token, as `convey token` makes one for tokens_file: send Authorization: Bearer TOKEN";

const TOO_MANY: &str = "too many failed logins: this token is not one of tokens_file, either";

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let access = gate.access.load_full();
    let origin = match access.page_of(&request) {
        Ok(origin) => origin.map(ToString::to_string),
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = if origin.is_some() && is_preflight(&request) {
        preflight()
    } else {
        match gate.identify(&access, &request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(refusal) => refusal.into_response(),
        }
    };
    let headers = response.headers_mut();
    if !access.origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(&origin).ok()) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Retry-After"),
        );
    }
    response
}

impl ApiAccess {
    /// The listed page that sends a request; `None`: no page of another host does.
    fn page_of(&self, request: &Request) -> Result<Option<&Origin>, Refusal> {
        let (headers, uri) = (request.headers(), request.uri());
        self.check_hosts(headers, uri)?;
        let says_cross_site = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"));
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, more) = (origins.next(), origins.next());
        let Some(value) = origin else {
            return match says_cross_site {
                true => Err(Refusal::of(StatusCode::FORBIDDEN, CROSS_SITE)),
                false => Ok(None),
            };
        };
        let foreign = || {
            Refusal::of(
                StatusCode::FORBIDDEN,
                format!("the page that sends this is of {value:?}: {CROSS_SITE}"),
            )
        };
        let text = value.to_str().ok().filter(|_| more.is_none());
        let origin: Origin = text.and_then(|text| text.parse().ok()).ok_or_else(foreign)?;
        if let Some(listed) = self.origins.iter().find(|listed| **listed == origin) {
            return Ok(Some(listed));
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_own = host.is_some_and(|host| origin.is_of(host, self.tls.is_some()));
        match is_own && !says_cross_site {
            true => Ok(None),
            false => Err(foreign()),
        }
    }

    /// Every name that a request is for must be one of ours: browsers always send one; HTTP/1.0 and what is typed by hand
    /// need not.
    fn check_hosts(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let takes = |host: &str| is_no_domain(host) || self.is_ours(host);
        let alien = (headers.get_all(HOST).iter())
            .find(|header| !host_of(header).is_some_and(|host| takes(&host)))
            .map(|header| format!("{header:?}"));
        let alien = alien.or_else(|| {
            uri.host()
                .filter(|host| !takes(host))
                .map(|host| format!("{host:?}"))
        });
        match alien {
            None => Ok(()),
            Some(host) => Err(Refusal::of(
                StatusCode::FORBIDDEN,
                format!(
                    "this endpoint does not answer to the name {host}, which a web page could have: ask for an address, or \
                     add the name to [admin] allowed_hosts"
                ),
            )),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_listed = (self.hosts.iter()).any(|name| name.without_dot().eq_ignore_ascii_case(host));
        is_listed || (self.tls.as_ref()).is_some_and(|tls| tls.certificates.current().covers(host))
    }
}

const CROSS_SITE: &str =
    "pages of other sites are answered only if [admin] allowed_origins has their scheme and host";

/// The token that a request presents; `None`: it presents nothing.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, LoginFailure> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), more) = (all.next(), all.next()) else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| more.is_none());
    let words = text.and_then(|text| text.trim().split_once(' '));
    match words {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(LoginFailure::Malformed),
    }
}

/// Whether a browser asks for a page what it may send (CORS).
fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, PUT, PATCH, DELETE",
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match, Last-Event-ID",
        ),
        (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

impl Refusal {
    fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Problem::new(status, message).into()
    }

    fn unauthorized(challenge: &'static str, message: &str) -> Self {
        Self {
            problem: Problem::new(StatusCode::UNAUTHORIZED, message),
            header: Some((WWW_AUTHENTICATE, HeaderValue::from_static(challenge))),
        }
    }

    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        response.headers_mut().extend(self.header);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            header: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn access() -> ApiAccess {
        ApiAccess {
            tls: None,
            entry: Entry::Loopback(Role::Read),
            hosts: vec!["api.example".parse().unwrap()],
            origins: vec!["https://dashboard.example".parse().unwrap()],
        }
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let all = headers.iter();
        let request = all.fold(Request::builder().uri(uri), |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(Body::empty()).unwrap()
    }

    /// The listed page of a request, or the status of the refusal.
    fn page(uri: &str, headers: &[(&str, &str)]) -> Result<Option<String>, u16> {
        let (access, request) = (access(), request(uri, headers));
        let page = access.page_of(&request);
        page.map(|page| page.map(ToString::to_string))
            .map_err(|refusal| refusal.problem.status)
    }

    #[test]
    fn a_request_for_a_name_that_somebody_can_register_is_refused_unless_it_is_listed() {
        for host in [
            "127.0.0.1:7001",
            "[::1]:7001",
            "lb1",
            "localhost",
            "api.example:7001",
            "API.example.",
        ] {
            assert_eq!(page("/", &[("host", host)]), Ok(None), "{host}");
        }
        assert_eq!(page("/", &[]), Ok(None), "HTTP/1.0 has none");
        for host in ["evil.example", "www.api.example", "a@evil.example", ""] {
            assert_eq!(page("/", &[("host", host)]), Err(403), "{host}");
        }
        let two = [("host", "lb1"), ("host", "evil.example")];
        assert_eq!(page("/", &two), Err(403));
        assert_eq!(page("http://evil.example/", &[("host", "lb1")]), Err(403));
        assert_eq!(page("http://lb1/", &[("host", "lb1")]), Ok(None));
    }

    #[test]
    fn pages_of_other_sites_are_refused_unless_they_are_listed() {
        let from = |origin: &str, site: &str| {
            let mut headers = vec![("host", "127.0.0.1:7001")];
            headers.extend((!origin.is_empty()).then_some(("origin", origin)));
            headers.extend((!site.is_empty()).then_some(("sec-fetch-site", site)));
            page("/", &headers)
        };
        let dashboard = "https://dashboard.example";
        for (origin, site, expected) in [
            ("", "", Ok(None)),
            ("", "same-origin", Ok(None)),
            ("", "none", Ok(None)),
            ("", "cross-site", Err(403)),
            ("http://127.0.0.1:7001", "same-origin", Ok(None)),
            ("http://127.0.0.1:7001", "cross-site", Err(403)),
            ("http://127.0.0.1:8080", "same-site", Err(403)),
            ("null", "", Err(403)),
            ("https://evil.example", "", Err(403)),
            (dashboard, "", Ok(Some(dashboard.to_owned()))),
            (dashboard, "cross-site", Ok(Some(dashboard.to_owned()))),
        ] {
            assert_eq!(from(origin, site), expected, "{origin} {site}");
        }
        let two = [("origin", dashboard), ("origin", dashboard)];
        assert_eq!(page("/", &two), Err(403));
    }

    #[test]
    fn a_token_is_presented_in_one_way() {
        let presented = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(request("/", &headers).headers()).map(|token| token.map(str::to_owned))
        };
        assert_eq!(presented(&[]), Ok(None));
        for text in ["Bearer cvy_x", "bearer  cvy_x", " BEARER cvy_x "] {
            assert_eq!(presented(&[text]), Ok(Some("cvy_x".to_owned())), "{text}");
        }
        for text in ["cvy_x", "Basic YTph", "Bearer", ""] {
            assert_eq!(presented(&[text]), Err(LoginFailure::Malformed), "{text}");
        }
        assert_eq!(
            presented(&["Bearer cvy_x", "Bearer cvy_y"]),
            Err(LoginFailure::Malformed)
        );
    }
}

//! Requests that browsers send for pages: a page of another origin is refused unless it is listed, and so is a page whose name
//! its owner lets lead to this host.

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderMap, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN,
        },
    },
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};

use super::{
    ApiAccess, Entry,
    hosts::{host_of, is_no_domain},
    refusal::Refusal,
};
use crate::base::{Origin, Role};

/// How long a browser may remember a preflight, in seconds.
const PREFLIGHT_AGE: &str = "600";

/// Routes that answer no page of others. For the control socket: a browser gets there by whatever forwards a port to it.
pub fn without_others_pages(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async move {
        let ours = ApiAccess {
            tls: None,
            entry: Entry::Loopback(Role::Read),
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        match ours.page_of(&request) {
            Ok(_) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    }))
}

impl ApiAccess {
    /// The listed page that sends a request; `None`: no page of another host does.
    pub(super) fn page_of(&self, request: &Request) -> Result<Option<&Origin>, Refusal> {
        let (headers, uri) = (request.headers(), request.uri());
        self.check_hosts(headers, uri)?;
        let says_cross_site = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"));
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, more) = (origins.next(), origins.next());
        let Some(value) = origin else {
            // a link to the page, which has nothing of the daemon's in it
            let follows_link =
                request.method().is_safe() && (uri.path() == "/" || uri.path().starts_with("/page/"));
            return match says_cross_site && !follows_link {
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

/// Whether a browser asks for a page what it may send (CORS).
pub fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

pub fn preflight() -> Response {
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
            page("/v1/status", &headers)
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
        // a link to the page is followed from anywhere
        let link = [("host", "127.0.0.1:7001"), ("sec-fetch-site", "cross-site")];
        assert_eq!(
            (page("/", &link), page("/page/page.js", &link)),
            (Ok(None), Ok(None))
        );
        let two = [("origin", dashboard), ("origin", dashboard)];
        assert_eq!(page("/", &two), Err(403));
    }
}

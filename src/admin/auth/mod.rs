//! Who may ask the API on TCP, and what.
//!
//! ```text
//! request ─► Host ─► page of another site ─► token, or loopback ─► api (role, Content-Type)
//!             403      403; preflight 204        401, 429           403        415
//! ```
//! The first two are for browsers, which send whatever a page tells them to from the operator's host.

mod cookie;
mod hosts;
mod logins;
mod pages;
mod refusal;
mod sessions;
mod tokens;

use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CACHE_CONTROL,
            RETRY_AFTER, SET_COOKIE, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use rustls::ServerConfig;

use super::{
    admission::Admission,
    caller::{Caller, Login, SessionKey},
    views::Problem,
};
use crate::{
    base::{HostName, Origin, Role},
    tls::CertificateStore,
};

pub use hosts::{host_of, is_no_domain};
pub use logins::{FailedLogins, LoginFailure};
pub use pages::without_others_pages;
pub use sessions::{RANDOM_BYTES as SESSION_BYTES, SessionId, Sessions};
pub use tokens::{RANDOM_BYTES, Token, Tokens};

use pages::{is_preflight, preflight};
use refusal::Refusal;
use tokens::Holder;

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
    sessions: Arc<Sessions>,
}

/// Marks an answer after which a browser keeps a session, or with `None` forgets the one that it has.
#[derive(Debug, Clone)]
pub struct Keep(pub Option<SessionId>);

/// Who asks for no more than whether the daemon is well needs no token, nor who gets the page, which has nothing of the daemon's in it.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/"];

/// What the page consists of is below this.
const PAGE: &str = "/page/";

/// The header by which our page says that it sends a request. No page of another origin can send it: a browser asks before it
/// sends such a header elsewhere, and we do not permit it.
const OUR_PAGE: &str = "convey-page";

impl Gate {
    /// Goes by this, which may change, counts failed logins there, and knows the browsers that have logged in.
    pub const fn new(
        access: Arc<ArcSwap<ApiAccess>>,
        failed: Arc<FailedLogins>,
        sessions: Arc<Sessions>,
    ) -> Self {
        Self {
            access,
            failed,
            sessions,
        }
    }

    /// These routes for those who may ask.
    pub fn before(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self, admit))
    }

    /// Who it is.
    fn identify(&self, access: &ApiAccess, request: &Request) -> Result<Caller, Refusal> {
        let path = request.uri().path();
        if OPEN.contains(&path) || path.starts_with(PAGE) {
            return Ok(Caller::Anybody);
        }
        let Some(RemoteAddress(from)) = request.extensions().get().copied() else {
            return Err(Refusal::of(
                StatusCode::FORBIDDEN,
                "nobody knows where this comes from",
            ));
        };
        let tokens = match &access.entry {
            Entry::Loopback(role) => {
                self.sessions.follow(None);
                return Ok(Caller::Loopback { from, role: *role });
            }
            Entry::Tokens(tokens) => tokens,
        };
        self.sessions.follow(Some(tokens));
        let why = match bearer(request.headers()) {
            Ok(None) => {
                let keys = session_keys(access, request);
                if keys.is_empty() {
                    return Err(Refusal::unauthorized("Bearer realm=\"convey\"", NO_TOKEN));
                }
                return self.continue_session(&keys, tokens, request, from);
            }
            Ok(Some(token)) => match tokens.find(token) {
                Some(holder) => return Ok(holder.caller(from, Login::Token(holder.hash))),
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

/// The sessions that a request may be of.
fn session_keys(access: &ApiAccess, request: &Request) -> Vec<SessionKey> {
    let ids = cookie::sessions_of(request.headers(), access.tls.is_some());
    ids.map(|id| id.key()).collect()
}

impl Gate {
    /// Whether somebody who was let in still would be, for answers that go on.
    fn admission(&self, caller: &Caller) -> Admission {
        let (access, sessions) = (Arc::clone(&self.access), Arc::clone(&self.sessions));
        let login = match caller {
            Caller::Token { login, .. } => Some(*login),
            Caller::Local(_) | Caller::Anybody | Caller::Loopback { .. } => None,
        };
        Admission::new(move || match (&access.load().entry, login) {
            (Entry::Loopback(_), None) => true,
            (Entry::Tokens(tokens), Some(Login::Token(hash))) => tokens.holder(hash).is_some(),
            (Entry::Tokens(tokens), Some(Login::Session(key))) => {
                let token = sessions.token(key, Instant::now());
                token.is_some_and(|token| tokens.holder(token).is_some())
            }
            (Entry::Loopback(_), Some(_)) | (Entry::Tokens(_), None) => false,
        })
    }

    /// Who has logged in with a browser. Ids are too long to be guessed: a wrong one is that of a session that has ended.
    fn continue_session(
        &self,
        keys: &[SessionKey],
        tokens: &Tokens,
        request: &Request,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let found = keys.iter().find_map(|key| {
            let token = self.sessions.token(*key, Instant::now())?;
            Some((*key, tokens.holder(token)?))
        });
        let Some((key, holder)) = found else {
            return Err(Refusal::unauthorized("Bearer realm=\"convey\"", SESSION_ENDED));
        };
        if !request.method().is_safe() && !request.headers().contains_key(OUR_PAGE) {
            return Err(Refusal::of(StatusCode::FORBIDDEN, NOT_OUR_PAGE));
        }
        Ok(holder.caller(from, Login::Session(key)))
    }
}

impl Holder<'_> {
    fn caller(&self, from: IpAddr, login: Login) -> Caller {
        Caller::Token {
            name: Arc::clone(self.name),
            from,
            role: self.role,
            login,
        }
    }
}

const SESSION_ENDED: &str = "this session has ended: log in again";

const NOT_OUR_PAGE: &str = "a session changes something only with the header Convey-Page: 1, which pages of others cannot send; or send Authorization: Bearer TOKEN";

const NO_TOKEN: &str = "this endpoint needs a token, as `convey token` makes one for tokens_file: send Authorization: Bearer TOKEN";

const TOO_MANY: &str = "too many failed logins: this token is not one of tokens_file, either";

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let access = gate.access.load_full();
    let origin = match access.page_of(&request) {
        Ok(origin) => origin.map(ToString::to_string),
        Err(refusal) => return refusal.into_response(),
    };
    let own = session_keys(&access, &request);
    let mut response = if origin.is_some() && is_preflight(&request) {
        preflight()
    } else {
        match gate.identify(&access, &request) {
            Ok(caller) => {
                request.extensions_mut().insert(gate.admission(&caller));
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(refusal) => refusal.into_response(),
        }
    };
    let keep = response.extensions_mut().remove::<Keep>();
    if keep.is_some() {
        // whoever logs in anew, or out, leaves no session behind that the browser has had
        own.iter().for_each(|key| gate.sessions.end(*key));
    }
    let cookie = keep.and_then(|Keep(id)| cookie::keep(id.as_ref(), access.tls.is_some()));
    let headers = response.headers_mut();
    (headers.entry(CACHE_CONTROL)).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let all = headers.iter();
        let request = all.fold(Request::builder(), |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn a_token_is_presented_in_one_way() {
        let presented = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(request(&headers).headers()).map(|token| token.map(str::to_owned))
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

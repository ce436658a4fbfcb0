//! The cookie of a browser's session.

use axum::http::{HeaderMap, HeaderValue, header::COOKIE};

use super::sessions::{LIFETIME, SessionId};

/// Its name without TLS, which only this host speaks with us.
const PLAIN: &str = "convey-session";

/// Its name with TLS: browsers take such a one only from this host, for all of its paths, and over TLS (RFC 6265bis, section 4.1.3.2).
const OVER_TLS: &str = "__Host-convey-session";

/// Cookies of our name that are looked at: another program at this host's name may have set some, too.
const MOST: usize = 8;

/// The sessions that a request may be of.
pub fn sessions_of(headers: &HeaderMap, over_tls: bool) -> impl Iterator<Item = SessionId> {
    let ours = name(over_tls);
    let all = headers.get_all(COOKIE).iter();
    let texts = all.filter_map(|header| header.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let found = pairs.filter_map(move |pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == ours).then(|| SessionId::read(value)).flatten()
    });
    found.take(MOST)
}

/// What tells a browser to keep a session, or with `None` to forget the one that it has. `None` is no header at all.
pub fn keep(id: Option<&SessionId>, over_tls: bool) -> Option<HeaderValue> {
    let (value, seconds) = match id {
        Some(id) => (id.secret(), LIFETIME.as_secs()),
        None => (String::new(), 0),
    };
    let secure = if over_tls { "; Secure" } else { "" };
    let name = name(over_tls);
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut header = HeaderValue::from_str(&cookie).ok()?;
    header.set_sensitive(true);
    Some(header)
}

const fn name(over_tls: bool) -> &'static str {
    if over_tls { OVER_TLS } else { PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SessionId {
        SessionId::new([7; 32])
    }

    fn with(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others_under_the_name_of_its_way() {
        let secret = id().secret();
        let plain = format!("a=b; convey-session={secret}; c=d");
        let secure = format!("__Host-convey-session={secret}");
        let found = |cookies: &[&str], over_tls| sessions_of(&with(cookies), over_tls).collect::<Vec<_>>();
        assert!(found(&[&plain], false) == [id()]);
        assert!(found(&["x=y", &secure], true) == [id()]);
        assert!(found(&[&plain], true).is_empty());
        assert!(found(&[&secure], false).is_empty());
        for odd in ["", ";", "convey-session", "convey-session=", "convey-session=x"] {
            assert!(found(&[odd], false).is_empty(), "{odd}");
        }
        // one that somebody else has set before ours keeps nobody out
        let other = SessionId::new([8; 32]).secret();
        let both = format!("convey-session={other}; {plain}");
        assert_eq!(found(&[both.as_str()], false).len(), 2);
        assert_eq!(found(&[both.as_str(); 100], false).len(), MOST);
    }

    #[test]
    fn no_script_and_no_other_site_gets_a_cookie_and_none_goes_without_tls_that_came_with_it() {
        let kept = keep(Some(&id()), true).unwrap();
        let text = kept.to_str().unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/", "Max-Age=43200"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.starts_with(&format!("__Host-convey-session={}; ", id().secret())));
        assert!(
            !keep(Some(&id()), false)
                .unwrap()
                .to_str()
                .unwrap()
                .contains("Secure")
        );
        let gone = keep(None, false).unwrap();
        assert!(
            gone.to_str()
                .unwrap()
                .starts_with("convey-session=; Path=/; Max-Age=0;")
        );
    }
}

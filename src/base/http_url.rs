//! Addresses of HTTP services, as operators write them.

use std::{fmt, net::IpAddr, str::FromStr};

use super::host_name::{HostName, NotAHostName};

/// Longest URL in bytes.
const LONGEST: usize = 2_048;

/// `http://HOST[:PORT][/PATH][?QUERY]` or the same with `https`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    /// Whether it is asked by TLS.
    pub is_tls: bool,
    /// Whom to ask.
    pub host: Host,
    /// At which port.
    pub port: u16,
    /// What for: path and query, with the slash that it begins with.
    pub target: Box<str>,
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name, which is asked for each time.
    Name(HostName),
    /// An address.
    Ip(IpAddr),
}

/// Why a text is no URL that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAHttpUrl {
    /// Another scheme, or none.
    #[error("it does not begin with http:// or https://")]
    Scheme,
    /// A user or a password in it.
    #[error("it has a user or a password in it, which every log would show")]
    Credentials,
    /// A fragment.
    #[error("it has a fragment (#), which no server is asked for")]
    Fragment,
    /// The name of the host.
    #[error("its host: {0}")]
    Host(NotAHostName),
    /// The port.
    #[error("its port is not from 1 to 65535")]
    Port,
    /// A character that has to be written as %XX.
    #[error("it has white space or another character that has to be written as %XX")]
    Character,
    /// More than 2,048 bytes.
    #[error("it has more than {LONGEST} bytes")]
    TooLong,
}

impl HttpUrl {
    /// The host as a `Host` header has it: with the port where that is another than the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            80 if !self.is_tls => self.host.to_string(),
            443 if self.is_tls => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// As operators are told of it: what a query has by its names may be a secret.
    #[must_use]
    pub fn without_values(&self) -> String {
        let text = self.to_string();
        let Some((before, query)) = text.split_once('?') else {
            return text;
        };
        let named = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=…"),
            None => "…".to_owned(),
        });
        format!("{before}?{}", named.collect::<Vec<_>>().join("&"))
    }

    /// The same service, asked for something else.
    #[must_use]
    pub fn with_target(&self, target: &str) -> Self {
        Self {
            target: target.into(),
            ..self.clone()
        }
    }
}

impl FromStr for HttpUrl {
    type Err = NotAHttpUrl;

    fn from_str(text: &str) -> Result<Self, NotAHttpUrl> {
        if text.len() > LONGEST {
            return Err(NotAHttpUrl::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(NotAHttpUrl::Scheme)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(NotAHttpUrl::Scheme),
        };
        if rest.contains('#') {
            return Err(NotAHttpUrl::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(NotAHttpUrl::Credentials);
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAHttpUrl::Character);
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            is_tls,
            host,
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            target: match target.starts_with('/') {
                true => target.into(),
                false => format!("/{target}").into(),
            },
        })
    }
}

/// A host and its port, if that is given, as a URL has them: an IPv6 address in brackets.
pub(crate) fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), NotAHttpUrl> {
    let character = NotAHttpUrl::Host(NotAHostName::Character);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']').ok_or(character)?;
            let ip = ip.parse().map_err(|_| character)?;
            (Host::Ip(IpAddr::V6(ip)), port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            (name.parse().map_err(NotAHttpUrl::Host)?, port)
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port
        .strip_prefix(':')
        .filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    let number = number.filter(|port| *port != 0).ok_or(NotAHttpUrl::Port)?;
    Ok((host, Some(number)))
}

impl FromStr for Host {
    type Err = NotAHostName;

    /// Reads a name or an address, an IPv6 one without brackets.
    fn from_str(text: &str) -> Result<Self, NotAHostName> {
        match text.parse() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for Host {
    /// As a URL has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.without_dot()),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_whom_to_ask_and_what_for() {
        for (text, shown) in [
            ("http://10.0.0.5/servers", "http://10.0.0.5/servers"),
            ("HTTPS://Inventory.example.com", "https://inventory.example.com/"),
            ("https://a:443/x?y=%20z", "https://a/x?y=%20z"),
            ("http://a:8500?dc=1", "http://a:8500/?dc=1"),
            ("http://[2001:db8::1]:8080/v1", "http://[2001:db8::1]:8080/v1"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().to_string(), shown);
        }
        let secret: HttpUrl = "http://a/x?key=s3cret&role=web&s3cret".parse().unwrap();
        assert_eq!(secret.without_values(), "http://a/x?key=…&role=…&…");
        let url: HttpUrl = "http://a.example.:81/".parse().unwrap();
        assert_eq!((url.authority().as_str(), url.port), ("a.example:81", 81));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (text, why) in [
            ("10.0.0.5/servers", NotAHttpUrl::Scheme),
            ("ftp://a/", NotAHttpUrl::Scheme),
            ("http://user:password@a/", NotAHttpUrl::Credentials),
            ("http://a/#servers", NotAHttpUrl::Fragment),
            ("http://a/ b", NotAHttpUrl::Character),
            ("http://a/ü", NotAHttpUrl::Character),
            ("http://a:0/", NotAHttpUrl::Port),
            ("http://a:65536/", NotAHttpUrl::Port),
            ("http://a:+1/", NotAHttpUrl::Port),
            ("http://[::1]x/", NotAHttpUrl::Port),
            ("http:///x", NotAHttpUrl::Host(NotAHostName::Empty)),
            ("http://[::1/", NotAHttpUrl::Host(NotAHostName::Character)),
            ("http://2001:db8::1/", NotAHttpUrl::Host(NotAHostName::Address)),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(why), "{text}");
        }
    }
}

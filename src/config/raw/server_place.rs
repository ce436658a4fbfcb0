//! Where a server is: an address, a unix socket or the name of a host.

use std::{net::Ipv4Addr, num::NonZeroU16};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Server,
    field::{Field, Key, Located, Node, bad_value, inline_schema, string},
    fields::word,
};
use crate::{
    base::{HostName, IpServerAddr, ServerAddr},
    config::{findings::Findings, named_server::Resolve, socket_path, words::Words as _},
};

/// `addr` of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    /// It is there.
    Fixed(ServerAddr),
    /// Name servers know where.
    Named(HostName, NonZeroU16),
}

impl Server {
    /// Its address, unless name servers are asked for it.
    pub fn fixed(&self) -> Option<Located<ServerAddr>> {
        let at = self.addr.as_ref()?;
        match at.value {
            ServerPlace::Fixed(addr) => Some(Located {
                value: addr,
                span: at.span.clone(),
                key: at.key.clone(),
            }),
            ServerPlace::Named(..) => None,
        }
    }
}

impl Field for ServerPlace {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "an address in quotes, such as \"10.0.0.1:8080\"", findings)?;
        match socket_path::parse_server(text) {
            Ok(addr) => Some(Self::Fixed(addr)),
            Err(found) => match named(text) {
                // it is this host whatever name servers say (RFC 6761, section 6.3)
                Some((host, port)) if host.without_dot() == "localhost" => {
                    let addr = IpServerAddr::new((Ipv4Addr::LOCALHOST, port.get()).into());
                    Some(Self::Fixed(addr.into()))
                }
                Some((host, port)) => Some(Self::Named(host, port)),
                None => match no_name(text) {
                    Some((message, help)) => bad_value(value, message, help, findings),
                    None => bad_value(value, found.message, found.help, findings),
                },
            },
        }
    }
}
inline_schema!([] ServerPlace, _g => json_schema!({ "type": "string", "pattern": "^unix:/.|:[0-9]{1,5}$" }));

/// `HOST:port`.
fn named(text: &str) -> Option<(HostName, NonZeroU16)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host.parse().ok()?, digits.then(|| port.parse().ok()).flatten()?))
}

/// What is wrong with a text that can only be meant as a name and a port.
fn no_name(text: &str) -> Option<(String, &'static str)> {
    let Some((host, port)) = text.rsplit_once(':') else {
        text.parse::<HostName>().ok()?;
        let help = "write HOST:port, such as \"app.internal:8080\"";
        return Some((format!("`{text}` has no port"), help));
    };
    let is_port = port.parse::<NonZeroU16>().is_ok();
    let is_meant =
        is_port && !host.contains([':', '/', '%', '[', ' ']) && host.chars().any(char::is_alphabetic);
    let why = host.parse::<HostName>().err().filter(|_| is_meant)?;
    let help = match host.is_ascii() {
        true => "write a name such as \"app.internal:8080\", or the server's IP address",
        false => "write it as DNS has it, in letters of ASCII (xn--…)",
    };
    Some((format!("`{host}` is no name of a host: {why}"), help))
}

super::fields::word_fields!(Resolve);

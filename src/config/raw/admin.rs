//! The sections `[admin]` and `[stats]`, and the types of its values.

use std::{fmt::Display, net::IpAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::{
    access::FilePath,
    field::{Field, Key, Node, bad_value, inline_schema, string},
    fields::{Port, word},
    process::SocketPath,
    routing::{List, one_or_several},
    section::section,
};
use crate::{
    base::{HostName, ListenAddr, Origin, Role},
    config::{address, findings::Findings},
};

/// Most names of `allowed_hosts`, and most of `allowed_origins`.
const MAX_ALLOWED: usize = 100;

/// Longest of them, in bytes.
const MAX_ALLOWED_BYTES: usize = 512;

section! {
    /// The control socket, and the admin API on TCP.
    Admin {
        /// Path of the socket; "" turns it off, and `systemctl reload` with it: use SIGHUP or watch_config. Default: "/run/convey/admin.sock"; of a user other than root "$XDG_RUNTIME_DIR/convey/admin.sock", unless systemd sets RUNTIME_DIRECTORY.
        socket: SocketPath,
        /// Address and port at which the admin API is served over HTTP, too, such as "127.0.0.1:7001". Any other address than one of loopback needs tls and tokens_file. Default: none, the API is on the socket alone.
        listen_addr: AdminListenAddr,
        /// Certificate of the API on TCP, { cert, key }: it is served over HTTPS. Read again when a file changes, and at each reload. Default: none, plain HTTP.
        tls: AdminTls,
        /// File with who may use the API on TCP: a line each, `NAME ROLE sha256:HEX`, as `convey token` prints it. A change of the file is a reload. Default: none, whoever is on this host may do what loopback_role says.
        tokens_file: FilePath,
        /// What everybody on this host, commands that Convey runs among them, may do through listen_addr where there is no tokens_file: "read" (default), "operate" (change servers, reload) or "configure" (change the configuration).
        loopback_role: Role,
        /// Host names, or one, that the API on TCP answers to besides IP addresses, localhost, names without a dot and those of its certificate: any other could be a web page's whose owner lets it lead here (DNS rebinding). Default: none.
        allowed_hosts: HostNames,
        /// Web pages of other hosts that may use the API on TCP (CORS), by scheme, host and port, such as "https://dashboard.example.com", or a list of them. Default: none.
        allowed_origins: Origins,
        /// Whether the API may replace the configuration file. Default: false.
        allow_config_writes: bool,
    }
}

section! {
    /// Counters as JSON over HTTP.
    Stats {
        /// TCP port, as a number or, as in 0.3.5, a string.
        port (required): Port,
        /// IP address to listen on. Default: "127.0.0.1" (0.3.5 listened on "0.0.0.0").
        listen_addr: IpAddr,
    }
}

section! {
    /// Certificate of the admin API on TCP.
    AdminTls {
        /// The certificate and its chain, each followed by its issuer; the private key, too, unless `key` names another file.
        cert (required): FilePath,
        /// The private key of the certificate, unencrypted. Default: it is in cert.
        key: FilePath,
    }
}

/// `listen_addr`; `None` if it is no address, which has been said.
#[derive(Debug, Clone, Copy)]
pub struct AdminListenAddr(pub Option<ListenAddr>);

/// `allowed_hosts`.
#[derive(Debug, Clone)]
pub struct HostNames(pub Vec<HostName>);

/// `allowed_origins`.
#[derive(Debug, Clone)]
pub struct Origins(pub Vec<Origin>);

impl Field for AdminListenAddr {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(
            value,
            "an address in quotes, such as \"127.0.0.1:7001\"",
            findings,
        );
        let address = text.and_then(|text| match address::parse_listen(text) {
            Ok(address) => Some(address),
            Err(fault) => bad_value(value, fault.message, fault.help, findings),
        });
        Some(Self(address))
    }
}
inline_schema!([] AdminListenAddr, _g => json_schema!({ "type": "string", "minLength": 3 }));

/// Reads a text or a list of them; `what` they are, and `example` of one.
fn list<T: std::str::FromStr<Err: Display>>(
    what: &'static str,
    list: &List,
    example: &str,
    value: &Node<'_>,
    findings: &mut Findings,
) -> Option<Vec<T>> {
    let item = |value: &Node<'_>, text: &str, findings: &mut Findings| match text.parse() {
        Ok(item) => Some(item),
        Err(why) => bad_value(
            value,
            format!("\"{text}\" is not {what}: {why}"),
            format!("write one such as \"{example}\""),
            findings,
        ),
    };
    let read = list.read(value, findings, item)?;
    Some(read.into_iter().map(|(item, _)| item).collect())
}

impl Field for HostNames {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let form = List {
            expected: "a host name in quotes, or a list of them",
            empty: "write at least one name, or leave the key out",
            most: MAX_ALLOWED,
            more: "clients can ask for an address instead",
        };
        list("a host name", &form, "lb1.example.com", value, findings).map(Self)
    }
}
inline_schema!([] HostNames, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1, "maxLength": MAX_ALLOWED_BYTES }), MAX_ALLOWED
));

impl Field for Origins {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let form = List {
            expected: "scheme and host of a web page in quotes, or a list of them",
            empty: "write at least one, or leave the key out",
            most: MAX_ALLOWED,
            more: "leave out what nobody uses",
        };
        let example = "https://dashboard.example.com";
        list("scheme and host of a web page", &form, example, value, findings).map(Self)
    }
}
inline_schema!([] Origins, _g => one_or_several(
    &json!({ "type": "string", "minLength": 8, "maxLength": MAX_ALLOWED_BYTES }), MAX_ALLOWED
));

impl Field for Role {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        word(value, findings)
    }
}
inline_schema!([] Role, _g => json_schema!({ "enum": Role::ALL.map(Role::label) }));

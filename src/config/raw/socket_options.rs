//! Options of sockets, as they are written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    Int, InterfaceName,
    field::{Field, Key, Node, bad_value, inline_schema},
    fields::bounded,
    section::section,
};
use crate::{
    base::{Dscp, Zone},
    config::{findings::Findings, words::nearest},
};

/// What is right in place of a name that an address could not be written with.
pub const NOT_A_ZONE: &str =
    "give it a name with a letter and without %, [ and ]: `ip link set dev OLD name NEW`";

/// Least bytes of a buffer: some datagrams, and more than the kernel's own least.
const LEAST_BUFFER: u64 = 4_096;
/// Most: the kernel reserves twice as much, and counts up to 2^31.
const MOST_BUFFER: u64 = (1 << 30) - 1;

section! {
    /// Options of the sockets of one side.
    SocketOptions {
        /// Mark of the packets that leave (SO_MARK), for routing rules (`ip rule add fwmark 7 …`) and filters of this host. Of client_socket a change of an address that is listened on needs a restart. Default: none.
        mark: Int<1, { u32::MAX as u64 }>,
        /// Class of the packets that leave, in TOS (IPv4) and traffic class (IPv6): a number from 0 to 63 or a name such as "ef", "af41", "cs5". ECN bits stay. Default: 0, best effort.
        dscp: Dscp,
        /// Bytes of the receive buffer (SO_RCVBUF), of which the kernel reserves twice as many; TCP then adapts it to the connection no more. Of server_socket at most net.core.rmem_max; of client_socket more, and a change of an address that is listened on needs a restart. Default: the kernel's, of UDP listeners 2097152.
        receive_buffer: Int<LEAST_BUFFER, MOST_BUFFER>,
        /// Bytes of the send buffer (SO_SNDBUF), of which the kernel reserves twice as many; as receive_buffer, with net.core.wmem_max. Default: the kernel's.
        send_buffer: Int<LEAST_BUFFER, MOST_BUFFER>,
    }
}

section! {
    /// Options of the sockets towards servers.
    ServerSocketOptions {
        /// Interface that connections to the servers leave by and are answered on, whatever the routes say (SO_BINDTODEVICE); a VRF is one, too. Where it is not there, they fail. Default: what the routes say.
        interface: Zone,
        ..common: SocketOptions,
    }
}

impl Field for Dscp {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            let number = bounded(value, 0, u64::from(Self::MAX), "a name or an integer", findings)?;
            return u8::try_from(number).ok().and_then(Self::new);
        };
        if let Some(named) = Self::named(text) {
            return Some(named);
        }
        let number = text.parse().ok().and_then(Self::new);
        let help = match (number, nearest(text, Self::names())) {
            _ if matches!(text.as_ref(), "be" | "df" | "default") => "write dscp = 0".to_owned(),
            (Some(number), _) => format!("leave out the quotes: dscp = {}", number.number()),
            (None, Some(near)) => format!("did you mean \"{near}\"?"),
            (None, None) => {
                "write a number from 0 to 63, or \"ef\", \"af11\" to \"af43\", \"cs0\" to \"cs7\", \"va\" or \"le\"".to_owned()
            }
        };
        bad_value(value, format!("\"{text}\" is not a DSCP"), help, findings)
    }
}
inline_schema!([] Dscp, _g => {
    let names: Vec<&str> = Dscp::names().collect();
    json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": Dscp::MAX }, { "enum": names }] })
});

impl Field for Zone {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let InterfaceName(name) = InterfaceName::read(key, value, findings)?;
        Self::new(&name).or_else(|| {
            let message = format!("interface \"{name}\" cannot be listened on or connected from");
            bad_value(value, message, NOT_A_ZONE, findings)
        })
    }
}
inline_schema!([] Zone, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": 15 }));

//! Words of other programs that are about the sockets of one side.

use toml::de::DeValue;

use super::own_number;

/// What a key was meant for (HAProxy's, nginx's, Envoy's and socket(7)'s words): the key if it is of the same section, and the
/// line.
pub fn meant(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    let is_frontend = matches!(section, "Frontend" | "FrontendOptions");
    let is_backend = matches!(section, "Backend" | "BackendOptions" | "Server");
    let is_socket = matches!(section, "SocketOptions" | "ServerSocketOptions");
    if !is_frontend && !is_backend && !is_socket {
        return None;
    }
    let (ours, line) = match key {
        "mark" | "fwmark" | "so_mark" => ("mark", format!("mark = {}", own_number(value, 1))),
        // the byte has two more bits
        "tos" | "tclass" | "set_tos" | "ip_tos" | "traffic_class" => ("dscp", of_tos(value)),
        "dscp" => ("dscp", "dscp = \"ef\"".to_owned()),
        "rcvbuf" | "so_rcvbuf" | "recv_buffer" | "receive_buffer" | "receive_buffer_size" => (
            "receive_buffer",
            format!("receive_buffer = {}", own_number(value, 262_144)),
        ),
        "sndbuf" | "so_sndbuf" | "send_buffer" | "send_buffer_size" => (
            "send_buffer",
            format!("send_buffer = {}", own_number(value, 262_144)),
        ),
        "device" | "bind_device" | "so_bindtodevice" | "bindtodevice" | "source_interface" | "interface" => {
            ("interface", "interface = \"eth0\"".to_owned())
        }
        _ => return None,
    };
    if is_socket {
        // the sockets that clients connect to have none of their own
        let is_elsewhere = section == "SocketOptions" && ours == "interface";
        let line = if is_elsewhere {
            format!("{line} in [frontends.NAME]")
        } else {
            line
        };
        return Some(((!is_elsewhere).then_some(ours), line));
    }
    if is_frontend && ours == "interface" {
        return Some((Some("interface"), line));
    }
    let line = if is_frontend {
        format!("client_socket.{line}")
    } else {
        format!("server_socket.{line} in [backends.NAME]")
    };
    Some((None, line))
}

/// The class of a TOS byte.
fn of_tos(value: &DeValue<'_>) -> String {
    let DeValue::Integer(number) = value else {
        return "dscp = \"ef\"".to_owned();
    };
    let tos = u8::from_str_radix(number.as_str(), number.radix());
    format!("dscp = {}", tos.map_or(46, |tos| tos >> 2))
}

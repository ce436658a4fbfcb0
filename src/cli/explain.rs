//! `convey explain`.

use std::{fmt::Write as _, io::Write, net::SocketAddr};

use super::{
    args::{ExplainArgs, Transport},
    client::{Client, percent_encode},
    outcome::{Failure, Outcome},
    text::{Style, colour_wanted, harmless, time},
};
use crate::{
    admin::views::{Explanation, Flow},
    base::{
        Protocol, ServerState,
        exit::{self, Exit},
    },
};

/// Says where packets would go.
pub fn run(args: &ExplainArgs, client: &Client) -> Outcome {
    if args.client.is_ipv4() != args.vip.is_ipv4() {
        return Err(Failure::new(
            exit::USAGE,
            format!(
                "{} and {} are of different families: a client reaches an IPv4 address from an IPv4 one, an IPv6 \
                 address from an IPv6 one",
                args.client, args.vip
            ),
        ));
    }
    let found: Explanation = client
        .get(&target(args.protocol, args.client, args.vip))?
        .parse()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(draw(&found, colour_wanted(&out)).as_bytes())?;
    }
    out.flush()?;
    Ok(status(&found))
}

fn target(protocol: Transport, client: SocketAddr, vip: SocketAddr) -> String {
    format!(
        "/v1/explain?protocol={}&client={}&vip={}",
        Protocol::from(protocol),
        percent_encode(&client.to_string()),
        percent_encode(&vip.to_string())
    )
}

/// Whether packets get to a server.
fn is_served(found: &Explanation) -> bool {
    match found.because.as_str() {
        "proxied" => found.candidates > 0,
        "flow_server_down" => false,
        _ => found.server.is_some(),
    }
}

fn status(found: &Explanation) -> Exit {
    if is_served(found) {
        exit::OK
    } else {
        exit::UNAVAILABLE
    }
}

fn draw(found: &Explanation, colour: bool) -> String {
    let mut out = format!("{} {} -> {}\n", found.protocol, found.client, found.vip);
    let mut line = |key: &str, text: &str| {
        // a failing write to a String does not exist
        let _ = writeln!(
            out,
            "{} {}",
            Style::Bold.paint(&format!("{key:<9}"), colour),
            harmless(text)
        );
    };
    if let Some(frontend) = &found.frontend {
        let mode = found.mode.as_deref().map(|mode| format!(", mode {mode}"));
        let backend = found
            .backend
            .as_deref()
            .map(|backend| format!(", backend {backend}"));
        line(
            "frontend",
            &format!(
                "{frontend}{}{}",
                mode.unwrap_or_default(),
                backend.unwrap_or_default()
            ),
        );
    }
    match (&found.server, &found.server_addr) {
        (Some(server), Some(addr)) => {
            let state = found
                .server_state
                .map_or("no longer configured", ServerState::label);
            line("server", &format!("{server} at {addr} ({state})"));
        }
        _ if is_served(found) => {}
        _ => line("server", "none"),
    }
    line("because", &because(found));
    if let Some(flow) = &found.flow {
        line("flow", &flow_text(flow));
    }
    if let Some(hindrance) = &found.hindrance {
        line("but", &hindrance_text(hindrance));
    }
    out
}

fn because(found: &Explanation) -> String {
    let slot = found
        .slot
        .map(|slot| format!(", slot {slot}"))
        .unwrap_or_default();
    match found.because.as_str() {
        "not_served" => {
            "no frontend has this address, port and protocol: packets are left to the kernel".to_owned()
        }
        "proxied" if found.candidates == 0 => {
            "connections end here and a server is chosen for each, but none is up".to_owned()
        }
        "proxied" => format!(
            "connections end here and a server is chosen for each, of {} that can be",
            found.candidates
        ),
        "flow" => "it has a flow, which stays with its server".to_owned(),
        "flow_draining" => {
            "it has a flow, which stays with its server until it ends; new ones go elsewhere".to_owned()
        }
        "flow_server_down" => {
            "it has a flow, but the server is down: the next packet is answered with a reset".to_owned()
        }
        "maglev" => format!(
            "it has no flow; a new one goes where the hash of its addresses falls{slot}, of {} servers that can be",
            found.candidates
        ),
        "no_server" => "no server of the backend is up: packets are refused".to_owned(),
        other => other.to_owned(),
    }
}

fn flow_text(flow: &Flow) -> String {
    let nat = flow.nat.as_ref().map(|nat| format!("leaves from {nat}, "));
    format!(
        "{}, {}idle {}, forgotten in {}",
        flow.state,
        nat.unwrap_or_default(),
        time(flow.idle_seconds),
        time(flow.expires_in_seconds)
    )
}

/// What a label of [`crate::base::PacketReason`] means here; other texts say it themselves.
fn hindrance_text(hindrance: &str) -> String {
    match hindrance {
        "no_route" => "there is no route to the server".to_owned(),
        "next_hop_unresolved" => {
            "the server's next hop has not answered yet (ARP, neighbour discovery)".to_owned()
        }
        "flow_table_full" => "the table of flows is full: see max_flows".to_owned(),
        "syn_share_full" => "too many half-open flows: new ones are refused".to_owned(),
        "nat_ports_exhausted" => "every NAT port to the server is taken: see nat_ports".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_maglev() -> Explanation {
        Explanation {
            protocol: "tcp".into(),
            client: "192.0.2.1:40000".into(),
            vip: "10.0.0.1:80".into(),
            frontend: Some("web".into()),
            mode: Some("passthrough".into()),
            backend: Some("app".into()),
            because: "maglev".into(),
            server: Some("a".into()),
            server_addr: Some("10.1.0.2:8080".into()),
            server_state: Some(ServerState::Up),
            candidates: 2,
            slot: Some(4711),
            flow: None,
            hindrance: None,
        }
    }

    fn nobody() -> Explanation {
        Explanation {
            server: None,
            server_addr: None,
            server_state: None,
            slot: None,
            ..by_maglev()
        }
    }

    #[test]
    fn a_new_flow_is_explained_by_its_slot() {
        assert_eq!(
            draw(&by_maglev(), false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode passthrough, backend app
server    a at 10.1.0.2:8080 (up)
because   it has no flow; a new one goes where the hash of its addresses falls, slot 4711, of 2 servers that can be
"
        );
        assert_eq!(status(&by_maglev()), exit::OK);
    }

    #[test]
    fn a_flow_is_shown_with_its_port_its_age_and_what_hinders_it() {
        let found = Explanation {
            because: "flow_draining".into(),
            server_state: Some(ServerState::Draining),
            flow: Some(Flow {
                vip: "10.0.0.1:80".into(),
                nat: Some("10.1.0.1:61234".into()),
                state: "established".into(),
                idle_seconds: 3.2,
                expires_in_seconds: 896.8,
            }),
            hindrance: Some("next_hop_unresolved".into()),
            ..by_maglev()
        };
        assert_eq!(
            draw(&found, false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode passthrough, backend app
server    a at 10.1.0.2:8080 (draining)
because   it has a flow, which stays with its server until it ends; new ones go elsewhere
flow      established, leaves from 10.1.0.1:61234, idle 3s, forgotten in 14m 56s
but       the server's next hop has not answered yet (ARP, neighbour discovery)
"
        );
        assert_eq!(status(&found), exit::OK);
    }

    #[test]
    fn an_address_that_nobody_serves_is_left_to_the_kernel() {
        let found = Explanation {
            frontend: None,
            mode: None,
            backend: None,
            because: "not_served".into(),
            ..nobody()
        };
        assert_eq!(
            draw(&found, false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
server    none
because   no frontend has this address, port and protocol: packets are left to the kernel
"
        );
        assert_eq!(status(&found), exit::UNAVAILABLE);
    }

    #[test]
    fn without_a_server_that_is_up_the_exit_status_is_69() {
        let status_of = |because: &str, candidates, server: Option<&str>| {
            status(&Explanation {
                because: because.into(),
                candidates,
                server: server.map(Into::into),
                ..nobody()
            })
        };
        assert_eq!(status_of("no_server", 0, None), exit::UNAVAILABLE);
        assert_eq!(status_of("flow_server_down", 1, Some("a")), exit::UNAVAILABLE);
        assert_eq!(status_of("proxied", 0, None), exit::UNAVAILABLE);
        assert_eq!(status_of("proxied", 1, None), exit::OK);
        assert_eq!(status_of("flow", 1, Some("a")), exit::OK);
    }

    #[test]
    fn addresses_travel_percent_encoded() {
        let v6 = |text: &str| text.parse().expect("an address");
        assert_eq!(
            target(Transport::Udp, v6("[2001:db8::1]:1"), v6("[2001:db8::2]:53")),
            "/v1/explain?protocol=udp&client=%5B2001%3Adb8%3A%3A1%5D%3A1&vip=%5B2001%3Adb8%3A%3A2%5D%3A53"
        );
    }
}

//! `convey explain`.

use std::{fmt::Write as _, io::Write, net::SocketAddr};

use super::{
    args::{ExplainArgs, Transport},
    client::{Client, percent_encode},
    outcome::{CommandResult, Failure},
    picture::counted,
    text::{Style, colour_wanted, harmless, time},
};
use crate::{
    admin::views::{Because, Candidate, Explanation, Flow, Word},
    base::{
        PacketReason, Protocol,
        exit::{self, Exit},
    },
    config::Algorithm,
    flow,
};

/// Says where packets would go.
pub fn run(args: &ExplainArgs, client: &Client) -> CommandResult {
    if args.client.is_ipv4() != args.vip.is_ipv4() {
        return Err(Failure::new(
            exit::USAGE,
            format!(
                "{} and {} are of different families: a client uses an IPv4 address to reach an IPv4 one, an IPv6 \
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
    match found.because.known() {
        Some(Because::Proxied) => found.candidates > 0,
        Some(Because::Packets(flow::Because::FlowServerDown)) => false,
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
        let mode = found.mode.as_ref().map(|mode| format!(", mode {mode}"));
        let balance = found.balance.as_ref().map(|balance| format!(" ({balance})"));
        let backend = (found.backend.as_ref())
            .map(|backend| format!(", backend {backend}{}", balance.unwrap_or_default()));
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
            let state = found.server_state.as_ref();
            let state = state.map_or("no longer configured".to_owned(), ToString::to_string);
            line("server", &format!("{server} at {addr} ({state})"));
        }
        _ if is_served(found) => {}
        _ => line("server", "none"),
    }
    line("because", &because(found));
    // a certain choice leaves no shares
    for (index, share) in found.shares.iter().filter(|_| found.server.is_none()).enumerate() {
        let key = if index == 0 { "servers" } else { "" };
        line(key, &share_text(share));
    }
    if let Some(flow) = &found.flow {
        line("flow", &flow_text(flow));
    }
    if let Some(blocked_by) = &found.blocked_by {
        line("warning", &warning(blocked_by));
    }
    out
}

fn because(found: &Explanation) -> String {
    let slot = found
        .slot
        .map_or_else(|| " the server".to_owned(), |slot| format!(" slot {slot}"));
    let Some(because) = found.because.known() else {
        return found.because.to_string();
    };
    match because {
        Because::Proxied if found.candidates == 0 => {
            "proxied: each connection gets its own server, but none is eligible".to_owned()
        }
        Because::Proxied if found.server.is_some() => {
            format!(
                "proxied: {} ({} eligible)",
                certainty(found),
                counted(found.candidates as u64, "server")
            )
        }
        Because::Proxied => format!(
            "proxied: each connection gets its own server; {} eligible",
            found.candidates
        ),
        Because::Packets(because) => match because {
            flow::Because::NotServed => {
                "no frontend has this address, port and protocol: packets are left to the kernel".to_owned()
            }
            flow::Because::Flow => "it has a flow, which stays with its server".to_owned(),
            flow::Because::FlowDraining => {
                "it has a flow, which stays with its server until it ends; new ones go elsewhere".to_owned()
            }
            flow::Because::FlowServerDown => {
                "it has a flow, but the server is down: the next packet is answered with a reset".to_owned()
            }
            flow::Because::Maglev => format!(
                "it has no flow yet; its address hash selects{slot} ({} eligible)",
                counted(found.candidates as u64, "server")
            ),
            flow::Because::NoServer => "no server of the backend is eligible: packets are refused".to_owned(),
        },
    }
}

/// Why there is no other choice.
fn certainty(found: &Explanation) -> String {
    match found.balance.as_ref().and_then(Word::known) {
        Some(Algorithm::SourceHash) => "the hash of the client's address selects the server".to_owned(),
        Some(Algorithm::First) => "the first server by name that has room".to_owned(),
        _ => match found.slot {
            Some(slot) => format!("the hash of the addresses selects slot {slot}"),
            None => "the addresses select the server".to_owned(),
        },
    }
}

fn share_text(share: &Candidate) -> String {
    let open = counted(u64::from(share.connections), "open connection");
    let Candidate {
        server,
        addr,
        percent,
        ..
    } = share;
    match *percent {
        0.0 => format!("{server} at {addr}: no room, {open}"),
        percent => format!("{server} at {addr}: {percent:.0} % of new connections by weight, {open}"),
    }
}

fn flow_text(flow: &Flow) -> String {
    let nat = flow.nat.as_ref().map(|nat| format!("source {nat}, "));
    format!(
        "{}, {}idle {}, expires in {}",
        flow.state,
        nat.unwrap_or_default(),
        time(flow.idle_seconds),
        time(flow.expires_in_seconds)
    )
}

/// What a verdict means here; other texts say it themselves.
fn warning(blocked_by: &Word<PacketReason>) -> String {
    match blocked_by.known() {
        Some(reason) => reason.sentence().to_owned(),
        None => blocked_by.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{BackendName, ClientAddr, FrontendName, ListenAddr, ServerAddr, ServerName, ServerState},
        config::Mode,
    };

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn by_maglev() -> Explanation {
        Explanation {
            protocol: Protocol::Tcp.into(),
            client: ClientAddr(addr("192.0.2.1:40000")),
            vip: ListenAddr::new(addr("10.0.0.1:80")),
            frontend: FrontendName::new("web").ok(),
            mode: Some(Mode::Passthrough.into()),
            backend: BackendName::new("app").ok(),
            because: Because::Packets(flow::Because::Maglev).into(),
            server: ServerName::new("a").ok(),
            server_addr: Some(ServerAddr::new(addr("10.1.0.2:8080"))),
            server_state: Some(ServerState::Up.into()),
            candidates: 2,
            balance: None,
            shares: Vec::new(),
            slot: Some(4711),
            flow: None,
            blocked_by: None,
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
because   it has no flow yet; its address hash selects slot 4711 (2 servers eligible)
"
        );
        assert_eq!(status(&by_maglev()), exit::OK);
    }

    #[test]
    fn a_flow_is_shown_with_its_port_its_age_and_what_blocks_it() {
        let found = Explanation {
            because: Because::Packets(flow::Because::FlowDraining).into(),
            server_state: Some(ServerState::Draining.into()),
            flow: Some(Flow {
                vip: ListenAddr::new(addr("10.0.0.1:80")),
                nat: Some(addr("10.1.0.1:61234")),
                state: flow::FlowState::Established.into(),
                idle_seconds: 3.2,
                expires_in_seconds: 896.8,
            }),
            blocked_by: Some(PacketReason::Unresolved.into()),
            ..by_maglev()
        };
        assert_eq!(
            draw(&found, false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode passthrough, backend app
server    a at 10.1.0.2:8080 (draining)
because   it has a flow, which stays with its server until it ends; new ones go elsewhere
flow      established, source 10.1.0.1:61234, idle 3s, expires in 14m 56s
warning   dropped: the next hop to the server has not answered yet (ARP, neighbour discovery)
"
        );
        assert_eq!(status(&found), exit::OK);
    }

    #[test]
    fn who_would_be_refused_is_told_why() {
        let told = |reason: PacketReason| {
            let blocked_by = Some(reason.into());
            draw(
                &Explanation {
                    blocked_by,
                    ..by_maglev()
                },
                false,
            )
        };
        let denied = told(PacketReason::Denied);
        assert!(
            denied.ends_with("warning   dropped: the frontend's access rules deny this client\n"),
            "{denied}"
        );
        let full = told(PacketReason::ClientPorts);
        assert!(
            full.ends_with(
                "warning   dropped: the client holds its share of the server's NAT ports; see [packet] max_ports_per_client\n"
            ),
            "{full}"
        );
    }

    #[test]
    fn an_address_that_nobody_serves_is_left_to_the_kernel() {
        let found = Explanation {
            frontend: None,
            mode: None,
            backend: None,
            because: Because::Packets(flow::Because::NotServed).into(),
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

    /// A proxied connection between a of weight 2 and b that is full.
    fn proxied(balance: Algorithm) -> Explanation {
        let candidate = |name: &str, percent, connections| Candidate {
            server: ServerName::new(name).expect("a name"),
            addr: ServerAddr::new(addr("10.1.0.2:8080")),
            percent,
            connections,
        };
        Explanation {
            mode: Some(Mode::Proxy.into()),
            because: Because::Proxied.into(),
            balance: Some(balance.into()),
            shares: vec![
                candidate("a", 66.7, 3),
                candidate("b", 33.3, 1),
                candidate("c", 0.0, 5),
            ],
            candidates: 3,
            ..nobody()
        }
    }

    #[test]
    fn a_proxied_connection_is_explained_by_the_shares_of_the_servers() {
        assert_eq!(
            draw(&proxied(Algorithm::RoundRobin), false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode proxy, backend app (round_robin)
because   proxied: each connection gets its own server; 3 eligible
servers   a at 10.1.0.2:8080: 67 % of new connections by weight, 3 open connections
          b at 10.1.0.2:8080: 33 % of new connections by weight, 1 open connection
          c at 10.1.0.2:8080: no room, 5 open connections
"
        );
    }

    #[test]
    fn where_the_choice_is_certain_the_server_is_named_and_why() {
        let certain = Explanation {
            server: ServerName::new("a").ok(),
            server_addr: Some(ServerAddr::new(addr("10.1.0.2:8080"))),
            server_state: Some(ServerState::Up.into()),
            ..proxied(Algorithm::SourceHash)
        };
        assert_eq!(
            draw(&certain, false),
            "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode proxy, backend app (source_hash)
server    a at 10.1.0.2:8080 (up)
because   proxied: the hash of the client's address selects the server (3 servers eligible)
"
        );
        assert_eq!(status(&certain), exit::OK);
    }

    #[test]
    fn without_a_server_that_is_up_the_exit_status_is_69() {
        let status_of = |because: &str, candidates, server: Option<&str>| {
            status(&Explanation {
                because: because.parse().expect("any text is a word"),
                candidates,
                server: server.and_then(|name| ServerName::new(name).ok()),
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
    fn what_only_a_newer_convey_knows_is_shown_as_it_says_it() {
        let found = Explanation {
            because: Word::Other("by_the_moon".into()),
            blocked_by: Some(Word::Other("10.0.0.1 is on no interface".into())),
            ..by_maglev()
        };
        let drawn = draw(&found, false);
        assert!(drawn.contains("because   by_the_moon\n"), "{drawn}");
        assert!(
            drawn.ends_with("warning   10.0.0.1 is on no interface\n"),
            "{drawn}"
        );
        assert_eq!(status(&found), exit::OK);
    }

    #[test]
    fn addresses_travel_percent_encoded() {
        assert_eq!(
            target(Transport::Udp, addr("[2001:db8::1]:1"), addr("[2001:db8::2]:53")),
            "/v1/explain?protocol=udp&client=%5B2001%3Adb8%3A%3A1%5D%3A1&vip=%5B2001%3Adb8%3A%3A2%5D%3A53"
        );
    }
}

//! `convey explain`.

use std::{fmt::Write as _, io::Write};

use super::{
    args::ExplainArgs,
    client::{Client, percent_encode},
    outcome::{CommandResult, Failure},
    picture::counted,
    text::{Style, colour_wanted, harmless, time},
};
use crate::{
    admin::views::{Because, Candidate, Explanation, Flow, TlsToServers, Word},
    base::{
        PacketReason, Protocol, TerminationReason,
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
    let found: Explanation = client.get(&target(args))?.parse()?;
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

fn target(args: &ExplainArgs) -> String {
    let mut target = format!(
        "/v1/explain?protocol={}&client={}&vip={}",
        Protocol::from(args.protocol),
        percent_encode(&args.client.to_string()),
        percent_encode(&args.vip.to_string())
    );
    for (key, value) in [("sni", &args.sni), ("alpn", &args.alpn)] {
        if let Some(value) = value {
            // a failing write to a String does not exist
            let _ = write!(target, "&{key}={}", percent_encode(value));
        }
    }
    target
}

/// Whether packets get to a server.
fn is_served(found: &Explanation) -> bool {
    match found.because.known() {
        _ if found.refused.is_some() => false,
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
    if let Some(route) = found.route {
        line("route", &route.to_string());
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
    if let Some(tls) = &found.server_tls {
        line("tls", &tls_text(tls));
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
    if let Some(refused) = &found.refused {
        return match refused.known() {
            Some(TerminationReason::RouteRejected) => match found.route {
                Some(route) => format!("proxied: route {route} rejects it"),
                None => "proxied: no route matches, and the frontend has no backend".to_owned(),
            },
            Some(TerminationReason::UnexpectedSni) => {
                "proxied: neither a route nor a server expects the name that it asks for".to_owned()
            }
            _ => format!("proxied: it is refused ({refused})"),
        };
    }
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
    if found.sticky {
        return "its client's network had this server before, and sticks to it".to_owned();
    }
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

fn tls_text(tls: &TlsToServers) -> String {
    match tls.verified {
        true => format!("to the server, whose certificate must be for {}", tls.server_name),
        false => format!(
            "to the server, which is not verified; it is asked for {}",
            tls.server_name
        ),
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
mod tests;

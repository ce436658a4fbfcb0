//! Virtual services of the kernel's IPVS, which `ipvsadm` and keepalived both describe, as frontends and backends.
//!
//! The method of a service's servers decides what it becomes. Direct routing is `mode = "dsr"` with `dsr_method = "l2"`: the
//! same packets on the wire. With masquerading servers see the client's address and answer through this host: of Convey's
//! modes `proxy` with `source = "client"` has that, and the schedulers, persistence and limits besides, which packet modes
//! have not. Tunnels are `mode = "dsr"` with `dsr_method = "nft"`: servers behind routers that answer clients directly.

mod balancing;
mod model;
mod place;

pub use model::{Method, Persistence, RealServer, Said, Service};
pub use place::{Placed, Shape};

use std::{collections::BTreeSet, net::IpAddr};

use super::{At, Draft, Value, address::joined};

/// Most servers that are written for the ports of one service.
const MOST_SERVERS: usize = 65_536;

/// How long IPVS keeps an idle connection of TCP unless it is told otherwise, in seconds, and one of UDP.
const IDLE_TCP: u64 = 900;
const IDLE_UDP: u64 = 300;

/// Makes a frontend and a backend of a service; with direct routing and tunnels one of each for every port that it is on.
pub fn translate(service: &Service, draft: &mut Draft) -> Vec<Placed> {
    let shape = Shape::of(service);
    if shape == Shape::Proxied {
        return vec![part(service, shape, None, draft)];
    }
    let ports = place::by_port(&service.listen);
    if ports.len().saturating_mul(service.servers.len()) > MOST_SERVERS {
        let text = "each port of it needs its servers anew, and they would be more than 65536: write a range of ports, \"192.0.2.1:8000-8010\"";
        draft.no_equal(service.id, At::Top, text);
        return Vec::new();
    }
    let is_only = ports.len() == 1;
    let mut parts = Vec::new();
    for (port, listen) in ports.into_iter().take(super::MAX_MADE) {
        let name = match is_only {
            true => service.name.clone(),
            false => format!("{}-{port}", service.name),
        };
        let of_port = Service {
            name,
            listen,
            ..service.clone()
        };
        parts.push(part(&of_port, shape, Some(port), draft));
    }
    parts
}

/// Says once what the frontends in mode proxy do that IPVS does not.
pub fn about_proxied(placed: &[Placed], draft: &mut Draft) {
    if placed.iter().any(|placed| placed.shape == Shape::Proxied) {
        draft.comment(
            At::Top,
            "Masquerading (NAT): servers see the client's address and answer through this host. Where a frontend has source = \"client\", \
             connections end here instead, and reach the servers from the client's address; that needs routes on this host, which \
             `convey check` prints. source = \"own\" needs none, but shows the servers this host's address; so does mode = \"passthrough\", \
             which forwards packets and has no persistence and no scheduler but Maglev. A connect that fails is tried again on other \
             servers (retries = 2), and a server whose connects fail is left alone for a while (passive_check).",
        );
    }
}

fn part(service: &Service, shape: Shape, port: Option<u16>, draft: &mut Draft) -> Placed {
    let name = draft.frontend_name(&service.name);
    let backend_name = draft.backend_name(&name);
    let placed = Placed {
        frontend: draft.section(&["frontends", &name]),
        backend: draft.section(&["backends", &backend_name]),
        name: backend_name,
        shape,
        port,
    };
    let (frontend, backend) = (placed.frontend, placed.backend);
    draft.translated(service.id);
    draft.set(
        frontend,
        &["listen_addr"],
        Value::one_or_more(service.listen.clone()),
    );
    if service.is_udp {
        draft.set(frontend, &["protocol"], "udp");
    }
    placed.mode(service, draft);
    if let Some(method) = &service.method {
        draft.translated(method.id);
    }
    idle_timeout(service, &placed, draft);
    balancing::one_packet(service, &placed, draft);
    draft.set(frontend, &["backend"], placed.name.as_str());
    match shape {
        Shape::Routed => draft.set(backend, &["dsr_method"], "l2"),
        Shape::Tunnelled => draft.set(backend, &["dsr_method"], "nft"),
        Shape::Proxied => {}
    }
    let plan = balancing::scheduler(service, &placed, draft);
    balancing::persistence(service, &placed, draft);
    servers(service, &placed, plan, draft);
    sorry_server(service, &placed, draft);
    placed
}

fn idle_timeout(service: &Service, placed: &Placed, draft: &mut Draft) {
    let said = if service.is_udp {
        &service.idle_udp
    } else {
        &service.idle_tcp
    };
    let usual = if service.is_udp { IDLE_UDP } else { IDLE_TCP };
    let seconds = said.as_ref().map_or(usual, |said| said.value);
    // of TCP the packet modes have the same
    if seconds != IDLE_TCP || service.is_udp || placed.shape == Shape::Proxied {
        let value = Value::duration(std::time::Duration::from_secs(seconds));
        draft.set(placed.frontend, &["idle_timeout"], value);
    }
    if let Some(fin) = &service.idle_fin {
        match placed.shape == Shape::Proxied && !service.is_udp {
            true => {
                let value = Value::duration(std::time::Duration::from_secs(fin.value));
                draft.set(placed.frontend, &["fin_timeout"], value);
                draft.translated(fin.id);
            }
            false => draft.translated(fin.id),
        }
    }
}

fn servers(service: &Service, placed: &Placed, plan: balancing::Plan, draft: &mut Draft) {
    let at = At::In(placed.backend);
    let mut ranked: Vec<&RealServer> = service.servers.iter().collect();
    if plan.is_ranked {
        // stable: of equals the first one stays first
        ranked.sort_by_key(|server| std::cmp::Reverse(server.weight.value));
    }
    let hosts: BTreeSet<IpAddr> = service.servers.iter().map(|server| server.ip).collect();
    let has_same_host = hosts.len() < service.servers.len();
    for (rank, server) in (1_u64..).zip(ranked) {
        if !placed.takes(server, draft) {
            continue;
        }
        let host = server.ip.to_string();
        let port = placed.port.unwrap_or(server.port);
        if port != server.port {
            let text = format!("packets keep their port, as in IPVS: they come to the server's port {port}");
            draft.differs(server.id, at, &text);
        }
        let wanted = match has_same_host {
            true => joined(&host, port),
            false => host.clone(),
        };
        let wanted = match plan.is_first_by_name {
            true => format!("{rank:03}-{wanted}"),
            false => wanted,
        };
        let name = draft.server_name(&placed.name, &wanted);
        let mut entries = vec![("addr", Value::Text(joined(&host, port)))];
        let weight = server.weight.value;
        if weight > u64::from(u16::MAX) {
            let said = "more than 65535: the weights of all servers can be divided by the same number";
            server.weight.differs(draft, at, said);
        }
        match plan.is_weighted {
            _ if weight == 0 => entries.push(("weight", Value::Integer(0))),
            true if weight != 1 => entries.push(("weight", Value::from(weight.min(u16::MAX.into())))),
            _ => {}
        }
        if plan.is_ranked && !plan.is_first_by_name {
            entries.push(("priority", Value::from(rank.min(60_000))));
        }
        match (&server.upper, placed.shape) {
            _ if plan.is_first_by_name => entries.push(("max_connections", Value::from(weight.max(1)))),
            (Some(upper), Shape::Proxied) => {
                entries.push(("max_connections", Value::from(upper.value)));
            }
            (Some(upper), _) => upper.no_equal(
                draft,
                at,
                "packet modes forward what they get: limits.per_client of a frontend bounds what one client may open",
            ),
            (None, _) => {}
        }
        if let Some(lower) = &server.lower {
            lower.no_equal(
                draft,
                at,
                "a server is used again as soon as it is below its max_connections",
            );
        }
        match &server.check_addr {
            Some(check_addr) => entries.push(("check_addr", Value::Text(check_addr.clone()))),
            None if port != server.port && service.is_checked => {
                entries.push(("check_addr", Value::Text(joined(&host, server.port))));
            }
            None => {}
        }
        draft.set(placed.backend, &["servers", &name], Value::table(entries));
        draft.translated(server.id);
    }
}

fn sorry_server(service: &Service, placed: &Placed, draft: &mut Draft) {
    let Some(sorry) = &service.sorry else { return };
    let at = At::In(placed.backend);
    let (ip, port) = sorry.value;
    let addr = joined(&ip.to_string(), placed.port.unwrap_or(port));
    match placed.shape {
        Shape::Proxied => {
            let name = draft.backend_name(&format!("{}-sorry", placed.name));
            draft.set(placed.backend, &["fallback"], name.as_str());
            let backend = draft.section(&["backends", &name]);
            draft.set(backend, &["health_check", "enabled"], false);
            draft.set(backend, &["servers", &ip.to_string()], Value::table([("addr", addr.as_str())]));
            match ip.is_loopback() && placed.is_transparent(service) {
                true => sorry.differs(
                    draft,
                    at,
                    "with source = \"client\" connections cannot reach a server of this host by 127.0.0.1: let it listen on \
                     another address of this host, or write source = \"own\" in the frontend",
                ),
                false => draft.translated(sorry.id),
            }
        }
        Shape::Routed | Shape::Tunnelled if ip.is_loopback() => sorry.no_equal(
            draft,
            at,
            "packets cannot be forwarded to this host itself: give another host that answers the VIP priority = 2 among the servers",
        ),
        Shape::Routed | Shape::Tunnelled => {
            let name = draft.server_name(&placed.name, &format!("sorry-{ip}"));
            let table = Value::table([("addr", Value::Text(addr)), ("priority", Value::Integer(sorry_priority(service)))]);
            draft.set(placed.backend, &["servers", &name], table);
            sorry.differs(
                draft,
                at,
                "it is a server of the last priority, used when no other one is up, and is checked as they are",
            );
        }
    }
}

/// Behind all others.
fn sorry_priority(service: &Service) -> i64 {
    i64::try_from(service.servers.len()).unwrap_or(0).min(60_000) + 1
}

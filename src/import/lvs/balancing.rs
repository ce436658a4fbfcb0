//! Schedulers, persistence and one-packet scheduling.

use super::{
    model::Service,
    place::{Placed, Shape},
};
use crate::import::{At, Draft, Value};

/// What servers need of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Weights are shares.
    pub is_weighted: bool,
    /// Higher weights come first.
    pub is_ranked: bool,
    /// And the next one only when those are full.
    pub is_first_by_name: bool,
}

const SHARES: Plan = Plan {
    is_weighted: true,
    is_ranked: false,
    is_first_by_name: false,
};

const EQUAL: Plan = Plan {
    is_weighted: false,
    ..SHARES
};

const RANKED: Plan = Plan {
    is_ranked: true,
    ..EQUAL
};

/// `balance` for a scheduler, whether it goes by weights, and what is not as it was.
fn proxied(name: &str, has_port_flag: bool) -> (&'static str, Plan, Option<&'static str>) {
    const DELAY: &str =
        "it counts a connection more than there are; with few connections it may choose another server";
    match name {
        "rr" => ("round_robin", EQUAL, None),
        "wrr" => ("round_robin", SHARES, None),
        "lc" => ("least_connections", EQUAL, None),
        "wlc" => ("least_connections", SHARES, None),
        "sed" | "nq" => ("least_connections", SHARES, Some(DELAY)),
        "twos" => ("power_of_two", SHARES, None),
        "mh" | "sh" if has_port_flag => ("maglev", SHARES, Some(OTHER_HASH)),
        "mh" | "sh" => ("source_hash", SHARES, Some(OTHER_HASH)),
        "dh" => (
            "source_hash",
            EQUAL,
            Some("Convey never chooses by the destination: clients are distributed by their own address"),
        ),
        "lblc" | "lblcr" => (
            "least_connections",
            SHARES,
            Some("Convey never chooses by the destination: all connections are distributed"),
        ),
        "fo" => ("round_robin", RANKED, None),
        "ovf" => (
            "first",
            Plan {
                is_first_by_name: true,
                ..RANKED
            },
            None,
        ),
        _ => (
            "least_connections",
            SHARES,
            Some("Convey does not know this scheduler"),
        ),
    }
}

const OTHER_HASH: &str =
    "the hash is another one: a client may get another server than before, and keeps that";

/// Sets `balance`.
pub fn scheduler(service: &Service, placed: &Placed, draft: &mut Draft) -> Plan {
    let at = At::In(placed.backend);
    let name = service
        .scheduler
        .as_ref()
        .map_or("wlc", |said| said.value.as_str());
    let has_port_flag = service.flags.iter().any(|flag| {
        let flag = flag.value.as_str();
        matches!(
            (name, flag),
            ("sh", "sh-port" | "flag-2") | ("mh", "mh-port" | "flag-2")
        )
    });
    for flag in &service.flags {
        match (name, flag.value.as_str()) {
            // Convey always takes another server when the one is down
            ("sh", "sh-port" | "sh-fallback" | "flag-1" | "flag-2")
            | ("mh", "mh-port" | "mh-fallback" | "flag-1" | "flag-2") => draft.translated(flag.id),
            _ => flag.no_equal(draft, at, "Convey has no flags of schedulers"),
        }
    }
    let (balance, plan, difference) = proxied(name, has_port_flag);
    if placed.shape == Shape::Proxied {
        draft.set(placed.backend, &["balance"], balance);
        if let Some(said) = &service.scheduler {
            match difference {
                Some(text) => said.differs(draft, at, text),
                None => draft.translated(said.id),
            }
        }
        return plan;
    }
    let Some(said) = &service.scheduler else {
        return SHARES;
    };
    match name {
        "mh" if has_port_flag => draft.translated(said.id),
        "fo" => draft.translated(said.id),
        "ovf" => said.differs(
            draft,
            at,
            "packet modes do not count connections: the next server is used when those of a higher weight are down",
        ),
        _ => said.differs(
            draft,
            at,
            match plan.is_weighted {
                true => "packet modes choose by Maglev from the client's address and port, with the servers' weights",
                false => "packet modes choose by Maglev from the client's address and port; servers are equals, as with this scheduler",
            },
        ),
    }
    match plan.is_ranked {
        true => RANKED,
        false => plan,
    }
}

/// Sets `sticky`.
pub fn persistence(service: &Service, placed: &Placed, draft: &mut Draft) {
    let Some(persistence) = &service.persistence else {
        return;
    };
    let at = At::In(placed.backend);
    if let Some(engine) = &persistence.engine {
        engine.no_equal(draft, at, "clients are told apart by their addresses alone");
    }
    let seconds = &persistence.seconds;
    if placed.shape != Shape::Proxied {
        seconds.no_equal(
            draft,
            at,
            "packet modes remember connections, not clients: another port of the client may go to another server. With a range of \
             ports as listen_addr a client has one server for all of them; mode = \"proxy\" has sticky",
        );
        if let Some(prefix) = &persistence.prefix {
            draft.translated(prefix.id);
        }
        return;
    }
    let ttl = std::time::Duration::from_secs(seconds.value.clamp(1, 31_536_000));
    let mut entries = vec![("ttl", Value::duration(ttl))];
    let is_v6 = service.listen.iter().any(|listen| listen.starts_with('['));
    if let Some(prefix) = &persistence.prefix {
        let (key, least, whole) = if is_v6 {
            ("prefix6", 16, 128)
        } else {
            ("prefix4", 8, 32)
        };
        match prefix.value {
            bits if bits < least => prefix.no_equal(
                draft,
                at,
                &format!("{key} is at least {least}, which is set: clients of more networks are told apart"),
            ),
            _ => draft.translated(prefix.id),
        }
        if is_v6 || prefix.value != whole {
            entries.push((key, Value::from(u16::from(prefix.value.clamp(least, whole)))));
        }
    } else if is_v6 {
        entries.push(("prefix6", Value::Integer(128)));
    }
    draft.set(placed.backend, &["sticky"], Value::table(entries));
    draft.translated(seconds.id);
}

/// Sets `udp.max_requests`.
pub fn one_packet(service: &Service, placed: &Placed, draft: &mut Draft) {
    let Some(said) = &service.one_packet else { return };
    let at = At::In(placed.frontend);
    match placed.shape == Shape::Proxied && service.is_udp {
        true => {
            draft.set(placed.frontend, &["udp", "max_requests"], Value::Integer(1));
            draft.translated(said.id);
        }
        false => said.no_equal(
            draft,
            at,
            "packet modes keep the datagrams of a client's address and port with one server",
        ),
    }
}

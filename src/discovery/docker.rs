//! How Docker is asked, or what speaks its API (podman): for its containers whenever it tells of a change.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Answered, Failure,
    answer::{Containers, Limits},
    caller::{Caller, below, parsed, unresolved},
    lines::Lines,
    service::{PLAIN, TokenHeader},
};
use crate::{
    base::Host,
    config::{Discovery, DockerAddress, DockerQuery, Families, LabelMatch},
};

/// Longest event, in bytes: those of containers with many labels have some KiB.
const EVENT_BYTES: usize = 256 << 10;

/// How soon it is asked again: containers that come and go without end do not have it asked without end.
const REST: Duration = Duration::from_secs(1);

/// Events at hand that are looked at before it is asked.
const MOST_EVENTS: usize = 10_000;

/// Asks for the containers: at once, or when an event may have changed them, or the interval is over.
pub(super) async fn ask(
    caller: &mut Caller,
    events: &mut Option<Lines>,
    query: &DockerQuery,
    settings: &Discovery,
) -> Result<Answered, Failure> {
    if let Some(open) = events
        && !has_news(open, settings.interval).await
    {
        *events = None;
    }
    let within = query.engine.timeout;
    let limits = Limits::of(settings);
    let asked = timeout(within, list(caller, events, query, limits)).await;
    asked.unwrap_or(Err(Failure::Silent(within)))
}

/// Waits for an event that counts, or for so long; false if there are no events any more.
async fn has_news(events: &mut Lines, at_most: Duration) -> bool {
    let until = Instant::now() + at_most;
    loop {
        match timeout_at(until, events.next()).await {
            Err(_) => return true,
            Ok(Ok(Some(event))) if counts(&event) => break,
            Ok(Ok(Some(_))) => {}
            // it has ended, or cannot be read: whether Docker still answers will be seen
            Ok(Ok(None) | Err(_)) => return false,
        }
    }
    let first = Instant::now();
    for _ in 0..MOST_EVENTS {
        match events.at_hand(first).await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    true
}

/// Whether an event may change which containers there are, and where. One that cannot be read may.
fn counts(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "Action", default)]
        action: String,
        #[serde(default)]
        status: String,
    }
    let Ok(event) = serde_json::from_slice::<Event>(event) else {
        return true;
    };
    let action = match event.action.as_str() {
        "" => event.status.as_str(),
        action => action,
    };
    // health checks run commands in containers, which is told too; so is who looks at one
    let of_no_interest = [
        "exec",
        "top",
        "attach",
        "detach",
        "resize",
        "commit",
        "export",
        "copy",
        "archive-path",
    ];
    !of_no_interest.iter().any(|prefix| action.starts_with(prefix))
}

async fn list(
    caller: &mut Caller,
    events: &mut Option<Lines>,
    query: &DockerQuery,
    limits: Limits,
) -> Result<Answered, Failure> {
    let engine = &query.engine;
    let token = TokenHeader::Authorization;
    if events.is_none() {
        // before the list: what changes after it is told
        let opened = caller
            .stream(engine, &events_target(query), token, limits)
            .await?;
        *events = Some(Lines::new(opened, EVENT_BYTES));
    }
    let bytes = caller.body(engine, &list_target(query), token, limits).await?;
    let containers = parsed(move || Containers::parse(&bytes)).await?;
    let (host, told) = match &query.address {
        DockerAddress::Network(_) => (Ipv4Addr::LOCALHOST.into(), HashMap::new()),
        DockerAddress::Published { host, variable } => {
            let host = match host {
                Some(host) => *host,
                None => host_of(caller, query).await?,
            };
            let told = match variable {
                Some(variable) => told(caller, query, &containers, variable, limits).await?,
                None => HashMap::new(),
            };
            (host, told)
        }
    };
    let query = query.clone();
    Ok(Answered {
        answer: parsed(move || containers.answer(&query, host, &told, limits)).await?,
        ttl: Some(REST),
    })
}

/// The address of the host that Docker runs on, by its URL.
async fn host_of(caller: &Caller, query: &DockerQuery) -> Result<IpAddr, Failure> {
    if query.engine.socket.is_some() {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    match &query.engine.url.host {
        Host::Ip(ip) => Ok(*ip),
        Host::Name(name) => {
            let resolver = caller.host_resolver().await?;
            let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
            let lowest = found.map_err(unresolved)?.records.into_iter().min();
            lowest.ok_or_else(|| Failure::Unreadable(format!("{name} has no address")))
        }
    }
}

/// What a variable of each container's environment says, by the container's id: each is asked for by itself.
async fn told(
    caller: &mut Caller,
    query: &DockerQuery,
    containers: &Containers,
    variable: &str,
    limits: Limits,
) -> Result<HashMap<String, String>, Failure> {
    let mut told = HashMap::new();
    for id in containers.ids(query).take(limits.servers) {
        let target = below(&query.engine, &format!("/containers/{}/json", encoded(id)));
        let opened = caller
            .open(&query.engine, &target, TokenHeader::Authorization)
            .await?;
        // it has gone meanwhile
        if opened.status == hyper::StatusCode::NOT_FOUND {
            continue;
        }
        let body = opened.success(limits.bytes).await;
        let body = body.map_err(|error| caller.failure(&error, limits))?;
        if let Some(value) = Containers::variable(&body, variable)? {
            told.insert(id.to_owned(), value);
        }
    }
    Ok(told)
}

fn list_target(query: &DockerQuery) -> String {
    let filters = json!({ "status": ["running"], "label": labels(query) });
    let filters = encoded(&filters.to_string());
    below(&query.engine, &format!("/containers/json?filters={filters}"))
}

fn events_target(query: &DockerQuery) -> String {
    let filters = json!({ "type": ["container"], "label": labels(query) });
    let filters = encoded(&filters.to_string());
    below(&query.engine, &format!("/events?filters={filters}"))
}

fn labels(query: &DockerQuery) -> Vec<String> {
    query.labels.iter().map(LabelMatch::to_string).collect()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_health_checks_and_of_who_looks_at_a_container_count_for_nothing() {
        for (event, expected) in [
            (r#"{"Type":"container","Action":"start","status":"start"}"#, true),
            (r#"{"status":"die"}"#, true),
            (r#"{"Action":"health_status: unhealthy"}"#, true),
            (r#"{"Action":"exec_start: /bin/true"}"#, false),
            (r#"{"Action":"exec_die"}"#, false),
            (r#"{"status":"top"}"#, false),
            (r#"{"Action":7}"#, true),
            ("{", true),
        ] {
            assert_eq!(counts(event.as_bytes()), expected, "{event}");
        }
    }
}

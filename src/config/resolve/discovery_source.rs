//! What a source of servers is asked, by its kind.

use std::{ops::Range, time::Duration};

use super::{
    platforms::{docker, kubernetes, lxd, port_number},
    source_service::{TIMEOUT, place_of_api, service, url_of},
    time, value,
};
use crate::config::{
    answer_format::{AnswerFormat, FormatKind, JsonPaths},
    commands::Command,
    discovery_source::{ConsulQuery, DiscoveryKind, DiscoverySource, NameQuery},
    families::Families,
    findings::Findings,
    platforms::{LxdFlavour, ServicePlace},
    raw::{self, Located},
};

/// Keeps a name with a time to live of nothing from being asked for without end.
const MIN_TTL: Duration = Duration::from_secs(5);

/// A name that lives for a day is asked for as often as an operator would wait for it.
const MAX_TTL: Duration = Duration::from_secs(300);

/// Where an agent of Consul listens unless told otherwise.
const AGENT: &str = "http://127.0.0.1:8500";

use DiscoveryKind::{Api, Consul, Dns, Docker, Exec, File, Http, Incus, Kubernetes, Lxd, Srv};

/// Where the servers come from; `None` if a key is missing or wrong, which has been said.
pub fn source(at: &Located<raw::Discovery>, findings: &mut Findings) -> Option<DiscoverySource> {
    let raw = &at.value;
    let kind = raw.kind.as_ref()?.value;
    useless(raw, kind, findings);
    if let (Some((feature, false)), Some(word)) = (kind.feature(), &raw.kind) {
        findings.error(
            word.span.clone(),
            format!("this build of Convey cannot ask {}", kind.label()),
            format!("use the package, which can, or build with `cargo build --features {feature}`"),
        );
    }
    let needs = |key: &str, example: &str, findings: &mut Findings| {
        if findings.absence_counts() {
            let help = format!("kind \"{}\" needs it: {key} = {example}", kind.label());
            findings.error(at.key.clone(), format!("missing key `{key}`"), help);
        }
    };
    let timeout = time(raw.timeout.as_ref(), TIMEOUT);
    match kind {
        File => {
            let format = format(at, findings);
            let Some(path) = &raw.path else {
                needs("path", "\"/etc/convey/web.servers\"", findings);
                return None;
            };
            Some(DiscoverySource::File {
                path: path.value.0.clone()?,
                format: format?,
            })
        }
        Exec => {
            let format = format(at, findings);
            let Some(command) = &raw.command else {
                needs("command", "[\"/usr/local/bin/servers\", \"web\"]", findings);
                return None;
            };
            Some(DiscoverySource::Exec {
                command: Command {
                    line: command.value.0.clone()?,
                    timeout,
                },
                format: format?,
            })
        }
        Http => {
            let format = format(at, findings);
            let Some(url) = &raw.url else {
                needs("url", "\"http://10.0.0.5:8080/servers\"", findings);
                return None;
            };
            let url = url_of(raw, url.value.0.clone()?, kind.label(), findings)?;
            Some(DiscoverySource::Http {
                service: service(raw, ServicePlace::Http(url), findings)?,
                format: format?,
            })
        }
        Consul => {
            let place = place_of_api(raw, AGENT, kind.label(), findings)?;
            let url = url_of(raw, place, kind.label(), findings)?;
            let agent = service(raw, ServicePlace::Http(url), findings);
            let Some(name) = &raw.service else {
                needs("service", "\"web\"", findings);
                return None;
            };
            Some(DiscoverySource::Consul {
                query: ConsulQuery {
                    agent: agent?,
                    service: name.value.0.clone()?,
                    tags: value(raw.tags.as_ref(), Vec::new(), |v| v.0),
                    datacenter: match &raw.datacenter {
                        Some(at) => Some(at.value.0.clone()?),
                        None => None,
                    },
                },
            })
        }
        Docker => docker(raw, kind, findings).map(|query| DiscoverySource::Docker { query }),
        Kubernetes => {
            kubernetes(raw, kind, needs, findings).map(|query| DiscoverySource::Kubernetes { query })
        }
        Lxd => lxd(raw, LxdFlavour::Lxd, kind, findings).map(|query| DiscoverySource::Lxd { query }),
        Incus => lxd(raw, LxdFlavour::Incus, kind, findings).map(|query| DiscoverySource::Lxd { query }),
        Dns => {
            let port = port_number(raw, kind, findings);
            if raw.port.is_none() {
                needs("port", "8080", findings);
            }
            let query = query(at, timeout, needs, findings)?;
            Some(DiscoverySource::Dns { query, port: port? })
        }
        Srv => Some(DiscoverySource::Srv {
            query: query(at, timeout, needs, findings)?,
        }),
        Api => Some(DiscoverySource::Api),
    }
}

fn query(
    at: &Located<raw::Discovery>,
    timeout: Duration,
    needs: impl Fn(&str, &str, &mut Findings),
    findings: &mut Findings,
) -> Option<NameQuery> {
    let raw = &at.value;
    let (min_ttl, max_ttl) = (
        time(raw.min_ttl.as_ref(), MIN_TTL),
        time(raw.max_ttl.as_ref(), MAX_TTL),
    );
    // whichever of the two was written is the one to change
    if let Some((key, span)) = (raw.min_ttl.as_ref().map(|at| ("min_ttl", &at.span)))
        .or(raw.max_ttl.as_ref().map(|at| ("max_ttl", &at.span)))
        .filter(|_| min_ttl > max_ttl)
    {
        findings.within(key, |findings| {
            findings.error(
                span.clone(),
                format!(
                    "`min_ttl` ({} s) is above `max_ttl` ({} s)",
                    min_ttl.as_secs(),
                    max_ttl.as_secs()
                ),
                "write a `max_ttl` that is as long or longer".to_owned(),
            );
        });
    }
    let Some(name) = &raw.name else {
        let is_srv = raw.kind.as_ref().is_some_and(|kind| kind.value == Srv);
        let example = if is_srv {
            "\"_http._tcp.example.com\""
        } else {
            "\"web.internal\""
        };
        needs("name", example, findings);
        return None;
    };
    Some(NameQuery {
        name: name.value.0.clone()?,
        resolvers: value(raw.resolvers.as_ref(), Vec::new(), |v| v.0),
        family: value(raw.family.as_ref(), Families::Any, |v| v),
        min_ttl,
        max_ttl,
        timeout,
    })
}

/// How the answer is written; `None` if that cannot be known, which has been said.
fn format(at: &Located<raw::Discovery>, findings: &mut Findings) -> Option<AnswerFormat> {
    let raw = &at.value;
    let kind = value(raw.format.as_ref(), FormatKind::Text, |v| v);
    let others = [
        ("json", FormatKind::Json, raw.json.as_ref().map(|at| &at.key)),
        (
            "pattern",
            FormatKind::Regex,
            raw.pattern.as_ref().map(|at| &at.key),
        ),
    ];
    for (key, of, place) in others {
        if let Some(place) = place.filter(|_| of != kind) {
            findings.within(key, |findings| {
                findings.error(
                    place.clone(),
                    format!("`{key}` belongs to format \"{}\"", of.label()),
                    format!("leave it out, or write format = \"{}\"", of.label()),
                );
            });
        }
    }
    match kind {
        FormatKind::Text => Some(AnswerFormat::Text),
        FormatKind::Json => Some(AnswerFormat::Json(json(raw.json.as_ref())?.into())),
        FormatKind::Regex => {
            let Some(pattern) = &raw.pattern else {
                if findings.absence_counts() {
                    let help = "format \"regex\" needs it: pattern = '^(?P<host>\\S+):(?P<port>\\d+)'";
                    findings.error(
                        at.key.clone(),
                        "missing key `pattern`".to_owned(),
                        help.to_owned(),
                    );
                }
                return None;
            };
            Some(AnswerFormat::Regex(pattern.value.0.clone()?))
        }
    }
}

fn json(at: Option<&Located<raw::JsonPaths>>) -> Option<JsonPaths> {
    let Some(at) = at else {
        return Some(JsonPaths::default());
    };
    let raw = &at.value;
    // a path that could not be read makes none of the whole
    macro_rules! path {
        ($key:ident) => {
            match &raw.$key {
                Some(at) => Some(at.value.0.clone()?),
                None => None,
            }
        };
    }
    Some(JsonPaths {
        servers: path!(servers),
        host: path!(host),
        port: path!(port),
        name: path!(name),
        weight: path!(weight),
        priority: path!(priority),
        max_connections: path!(max_connections),
        sni: path!(sni),
    })
}

/// A key, the kinds that it belongs to, and where it was written if it was.
type Belongs<'a> = (&'static str, &'static [DiscoveryKind], Option<&'a Range<usize>>);

/// Keys of other kinds.
fn useless(raw: &raw::Discovery, kind: DiscoveryKind, findings: &mut Findings) {
    const READ: &[DiscoveryKind] = &[File, Exec, Http];
    const ASKED: &[DiscoveryKind] = &[Http, Consul, Docker, Kubernetes, Lxd, Incus];
    const NAMED: &[DiscoveryKind] = &[Dns, Srv];
    const ANSWERING: &[DiscoveryKind] = &[File, Exec, Http, Consul, Docker, Kubernetes, Lxd, Incus, Dns, Srv];
    const LABELLED: &[DiscoveryKind] = &[Docker, Lxd, Incus];
    macro_rules! keys {
        ($($key:ident: $kinds:expr),+ $(,)?) => {
            [$((stringify!($key), $kinds as &[DiscoveryKind], raw.$key.as_ref().map(|at| &at.key))),+]
        };
    }
    let keys: [Belongs<'_>; 30] = keys![
        path: &[File],
        command: &[Exec],
        url: ASKED,
        tls: ASKED,
        token: &[Http, Consul, Kubernetes],
        service: &[Consul, Kubernetes],
        tags: &[Consul],
        datacenter: &[Consul],
        labels: LABELLED,
        network: &[Docker],
        host: &[Docker],
        host_env_var: &[Docker],
        namespace: &[Kubernetes],
        via: &[Kubernetes],
        interface: &[Lxd, Incus],
        name: NAMED,
        port: &[Dns, Docker, Kubernetes, Lxd, Incus],
        resolvers: NAMED,
        family: &[Dns, Srv, Docker, Kubernetes, Lxd, Incus],
        min_ttl: NAMED,
        max_ttl: NAMED,
        timeout: &[Exec, Http, Consul, Docker, Kubernetes, Lxd, Incus, Dns, Srv],
        format: READ,
        json: READ,
        pattern: READ,
        interval: ANSWERING,
        on_failure: ANSWERING,
        min_servers: ANSWERING,
        max_removal: ANSWERING,
        max_answer_bytes: ANSWERING,
    ];
    for (key, of, place) in keys {
        if let Some(place) = place.filter(|_| !of.contains(&kind)) {
            let words: Vec<_> = of.iter().map(|kind| format!("\"{}\"", kind.label())).collect();
            let (last, before) = words
                .split_last()
                .map_or(("", &[][..]), |(last, before)| (last, before));
            let (kinds, list) = match before {
                [] => ("kind", last.to_owned()),
                before => ("the kinds", format!("{} and {last}", before.join(", "))),
            };
            findings.within(key, |findings| {
                findings.error(
                    place.clone(),
                    format!("`{key}` belongs to {kinds} {list}"),
                    match of {
                        [one] => format!("leave it out, or write kind = \"{}\"", one.label()),
                        _ => "leave it out, or write another kind".to_owned(),
                    },
                );
            });
        }
    }
}

//! Settings of sources of servers.

use super::{Setting, Settings, path, set, some, string, text, time};
use crate::config::{
    answer_format::{AnswerFormat, JsonPaths},
    discovery::{Discovery, MaxRemoval},
    discovery_source::{ConsulQuery, DiscoverySource, NameQuery},
    http_service::{HttpService, SourceTls},
    platforms::{DockerAddress, DockerQuery, KubernetesQuery, LxdQuery, ServicePort},
    tls::ServerTrust,
};

/// `[backends.NAME.discovery]`.
pub fn discovery(discovery: &Discovery) -> Settings {
    let Discovery {
        source,
        interval,
        on_failure,
        max_servers,
        min_servers,
        max_removal,
        servers_within,
        max_answer_bytes,
    } = discovery;
    let mut settings = vec![("kind", text(discovery.kind().label()))];
    settings.extend(of_source(source));
    let removal = match max_removal {
        MaxRemoval::Percent(_) => text(&max_removal.to_string()),
        MaxRemoval::Count(count) => set(*count),
    };
    settings.extend([
        ("max_servers", set(*max_servers)),
        (
            "servers_within",
            some(servers_within, "every other host's addresses"),
        ),
    ]);
    if source.is_asked() {
        settings.extend([
            ("interval", time(*interval)),
            ("on_failure", text(on_failure.label())),
            ("min_servers", set(*min_servers)),
            ("max_removal", removal),
            ("max_answer_bytes", set(*max_answer_bytes)),
        ]);
    }
    settings
}

fn of_source(source: &DiscoverySource) -> Settings {
    match source {
        DiscoverySource::File { path: file, format } => {
            let mut settings = vec![("path", path(file))];
            settings.extend(of_format(format));
            settings
        }
        DiscoverySource::Exec { command, format } => {
            let mut settings = vec![
                ("command", super::commands::words(&command.line)),
                ("timeout", time(command.timeout)),
            ];
            settings.extend(of_format(format));
            settings
        }
        DiscoverySource::Http { service, format } => {
            let mut settings = of_service(service);
            settings.extend(of_format(format));
            settings
        }
        DiscoverySource::Consul { query } => {
            let ConsulQuery {
                agent,
                service,
                tags,
                datacenter,
            } = query;
            let mut settings = vec![
                ("service", text(service)),
                ("tags", some(tags, "any")),
                (
                    "datacenter",
                    (datacenter.as_deref()).map_or(Setting::Unset("that of the agent"), text),
                ),
            ];
            settings.extend(of_service(agent));
            settings
        }
        DiscoverySource::Docker { query } => of_docker(query),
        DiscoverySource::Kubernetes { query } => of_kubernetes(query),
        DiscoverySource::Lxd { query } => of_lxd(query),
        DiscoverySource::Dns { query, port } => {
            let mut settings = of_query(query);
            settings.push(("port", set(*port)));
            settings
        }
        DiscoverySource::Srv { query } => of_query(query),
        // the servers' own names are in the file, and operators need no more than the kind
        DiscoverySource::Api | DiscoverySource::Names { .. } => Settings::new(),
    }
}

fn of_docker(query: &DockerQuery) -> Settings {
    let DockerQuery {
        engine,
        labels,
        port,
        address,
        family,
    } = query;
    let mut settings = of_service(engine);
    settings.extend([
        ("labels", some(labels, "any")),
        (
            "port",
            port.map_or(Setting::Unset("that of the label convey.port"), set),
        ),
        ("family", text(family.label())),
    ]);
    match address {
        DockerAddress::Network(network) => settings.push(("network", text(network))),
        DockerAddress::Published { host, variable } => settings.extend([
            ("network", Setting::Unset("published ports")),
            (
                "host",
                host.map_or(Setting::Unset("the host of url"), |ip| text(&ip.to_string())),
            ),
            (
                "host_env_var",
                variable.as_deref().map_or(Setting::Unset("none"), text),
            ),
        ]),
    }
    settings
}

fn of_kubernetes(query: &KubernetesQuery) -> Settings {
    let KubernetesQuery {
        api,
        in_cluster,
        namespace,
        service,
        port,
        via,
        family,
    } = query;
    let mut settings = of_service(api);
    if let Some((_, url)) = settings.iter_mut().find(|(key, _)| *in_cluster && *key == "url") {
        *url = Setting::Unset("the API of this cluster");
    }
    settings.extend([
        (
            "namespace",
            namespace
                .as_deref()
                .map_or(Setting::Unset("that of the pod"), text),
        ),
        ("service", text(service)),
        (
            "port",
            match port {
                ServicePort::Number(number) => set(*number),
                ServicePort::Name(name) => text(name),
            },
        ),
        ("via", text(via.label())),
        ("family", text(family.label())),
    ]);
    settings
}

fn of_lxd(query: &LxdQuery) -> Settings {
    let LxdQuery {
        flavour: _,
        server,
        labels,
        port,
        interface,
        family,
    } = query;
    let mut settings = of_service(server);
    settings.extend([
        ("labels", some(labels, "any")),
        (
            "port",
            port.map_or(Setting::Unset("that of the key user.convey.port"), set),
        ),
        ("interface", text(interface)),
        ("family", text(family.label())),
    ]);
    settings
}

fn of_query(query: &NameQuery) -> Settings {
    let NameQuery {
        name,
        resolvers,
        family,
        min_ttl,
        max_ttl,
        timeout,
    } = query;
    vec![
        ("name", text(name.as_str())),
        ("resolvers", some(resolvers, "those of the host")),
        ("family", text(family.label())),
        ("min_ttl", time(*min_ttl)),
        ("max_ttl", time(*max_ttl)),
        ("timeout", time(*timeout)),
    ]
}

fn of_service(service: &HttpService) -> Settings {
    let HttpService {
        url,
        socket,
        tls,
        token,
        timeout,
    } = service;
    let place = match socket {
        Some(path) => text(&path.to_string()),
        None if url.target.contains('?') => Setting::Secret(string(&url.to_string())),
        None => text(&url.to_string()),
    };
    let mut settings = vec![
        ("url", place),
        (
            "token",
            token
                .as_ref()
                .map_or(Setting::Unset("none is sent"), |token| text(&token.to_string())),
        ),
        ("timeout", time(*timeout)),
    ];
    if url.is_tls {
        settings.extend(of_tls(tls));
    }
    settings
}

/// `tls` of what is asked over HTTP.
pub(super) fn of_tls(tls: &SourceTls) -> Settings {
    let SourceTls {
        trust,
        server_name,
        identity,
    } = tls;
    let none = || Setting::Unset("no certificate");
    vec![
        ("tls.verify", set(*trust != ServerTrust::Anybody)),
        (
            "tls.ca",
            match trust {
                ServerTrust::System => Setting::Unset("the CAs of the host"),
                ServerTrust::Ca(file) => path(file),
                ServerTrust::Anybody => Setting::Unset("anybody"),
            },
        ),
        (
            "tls.server_name",
            server_name
                .as_ref()
                .map_or(Setting::Unset("the host of the URL"), |name| text(name.as_str())),
        ),
        (
            "tls.cert",
            identity.as_ref().map_or_else(none, |files| path(&files.cert)),
        ),
        (
            "tls.key",
            match identity {
                None => none(),
                Some(files) => (files.key.as_deref()).map_or(Setting::Unset("it is in cert"), path),
            },
        ),
    ]
}

fn of_format(format: &AnswerFormat) -> Settings {
    let mut settings = vec![("format", text(format.kind().label()))];
    match format {
        AnswerFormat::Text => {}
        AnswerFormat::Regex(pattern) => settings.push(("pattern", text(pattern.as_str()))),
        AnswerFormat::Json(paths) => settings.extend(of_json(paths)),
    }
    settings
}

fn of_json(paths: &JsonPaths) -> Settings {
    let JsonPaths {
        servers,
        host,
        port,
        name,
        weight,
        priority,
        max_connections,
        sni,
    } = paths;
    let keys = [
        ("json.servers", servers),
        ("json.host", host),
        ("json.port", port),
        ("json.name", name),
        ("json.weight", weight),
        ("json.priority", priority),
        ("json.max_connections", max_connections),
        ("json.sni", sni),
    ];
    let given = keys
        .into_iter()
        .filter_map(|(key, path)| Some((key, text(&path.as_ref()?.to_string()))));
    given.collect()
}

//! Discoveries that ask a platform: Docker, Consul, LXD.

use super::source::Source;
use crate::import::{Value, fields::Fields};

/// Docker.
pub fn docker(source: &mut Source<'_>, fields: &mut Fields<'_>) {
    if let Some(endpoint) = fields.text(source.draft, "docker_endpoint") {
        let url = match endpoint.text.split_once("://") {
            Some(("unix", path)) => format!("unix:{path}"),
            Some(("tcp", rest)) => format!("http://{rest}"),
            _ => endpoint.text.to_owned(),
        };
        source.draft.set(source.section, &["url"], url);
        source.draft.translated(endpoint.id);
    }
    source.text(fields, "docker_container_label", "labels");
    source.port(fields, "docker_container_private_port");
    source.text(fields, "docker_container_host_env_var", "host_env_var");
    tls(source, fields, "docker");
}

/// Consul.
pub fn consul(source: &mut Source<'_>, fields: &mut Fields<'_>) {
    if let Some(host) = fields.text(source.draft, "consul_host") {
        source
            .draft
            .set(source.section, &["url"], format!("http://{}", host.text));
        source.draft.translated(host.id);
    }
    source.text(fields, "consul_service_name", "service");
    source.text(fields, "consul_service_tag", "tags");
    source.text(fields, "consul_datacenter", "datacenter");
    match fields.flag(source.draft, "consul_service_passing_only") {
        Some((id, true)) => source.draft.translated(id),
        Some((id, false)) => source.draft.differs(id, source.at, "only instances whose checks pass are servers"),
        None => source.draft.comment(source.at, "Without consul_service_passing_only gobetween takes every instance; Convey those whose checks pass."),
    }
    for key in ["consul_auth_username", "consul_auth_password"] {
        if let Some(scalar) = fields.text(source.draft, key) {
            source.draft.no_equal(
                scalar.id,
                source.at,
                "Convey sends no basic authentication: an ACL token in a file is `token`",
            );
        }
    }
    if let Some(token) = fields.text(source.draft, "consul_acl_token") {
        source
            .draft
            .set(source.section, &["token"], "file:/etc/convey/consul.token");
        source.draft.differs(
            token.id,
            source.at,
            "secrets are not in the configuration: write it to that file, readable for Convey's user alone",
        );
    }
    tls(source, fields, "consul");
}

/// LXD.
pub fn lxd(source: &mut Source<'_>, fields: &mut Fields<'_>) {
    let address = fields.text(source.draft, "lxd_server_address");
    let remote = fields.text(source.draft, "lxd_server_remote_name");
    let directory = fields.text(source.draft, "lxd_config_directory");
    let is_https = address.is_some_and(|address| address.text.starts_with("https:"));
    if let Some(address) = address {
        let path = address
            .text
            .strip_prefix("unix:")
            .map(|path| path.trim_start_matches('/'));
        let url = match path {
            Some("") => "unix:/var/lib/lxd/unix.socket".to_owned(),
            Some(path) => format!("unix:/{path}"),
            None => address.text.to_owned(),
        };
        source.draft.set(source.section, &["url"], url);
        source.draft.translated(address.id);
    }
    if is_https {
        let directory = directory.map_or("/root/.config/lxc", |directory| directory.text);
        let remote = remote.map_or("local", |remote| remote.text);
        let entries = [
            ("ca", format!("{directory}/servercerts/{remote}.crt")),
            ("cert", format!("{directory}/client.crt")),
            ("key", format!("{directory}/client.key")),
        ];
        source.draft.set(source.section, &["tls"], Value::table(entries));
        source.draft.comment(source.at, "The files where the client lxc keeps its own certificate and the server's; the server has to trust it already.");
    }
    for scalar in remote.into_iter().chain(directory) {
        source.draft.translated(scalar.id);
    }
    let trust = "Convey makes no certificates and trusts none by itself: `lxc config trust add` on the server lets one in";
    for key in [
        "lxd_server_remote_password",
        "lxd_generate_client_certs",
        "lxd_accept_server_cert",
    ] {
        if let Some(scalar) = fields.text(source.draft, key) {
            match scalar.text {
                "false" => source.draft.translated(scalar.id),
                _ => source.draft.no_equal(scalar.id, source.at, trust),
            }
        }
    }
    let key = fields.text(source.draft, "lxd_container_label_key");
    let value = fields.text(source.draft, "lxd_container_label_value");
    if let Some(key) = key {
        let label = match value {
            Some(value) => format!("{}={}", key.text, value.text),
            None => key.text.to_owned(),
        };
        source.draft.set(source.section, &["labels"], label);
    }
    for scalar in key.into_iter().chain(value) {
        source.draft.translated(scalar.id);
    }
    source.port(fields, "lxd_container_port");
    source.text(fields, "lxd_container_interface", "interface");
    let own = [
        ("lxd_container_port_key", "user.convey.port"),
        ("lxd_container_interface_key", "user.convey.interface"),
        ("lxd_container_sni_key", "user.convey.sni"),
    ];
    for (key, name) in own {
        if let Some(scalar) = fields.text(source.draft, key) {
            source.draft.differs(
                scalar.id,
                source.at,
                &format!("instances say it by the key {name}"),
            );
        }
    }
    if let Some(kind) = fields.text(source.draft, "lxd_container_address_type") {
        match kind.text {
            "IPv4" | "IPv6" => {
                source
                    .draft
                    .set(source.section, &["family"], kind.text.to_ascii_lowercase());
                source.draft.translated(kind.id);
            }
            _ => source
                .draft
                .no_equal(kind.id, source.at, "family is \"ipv4\" or \"ipv6\""),
        }
    } else {
        source.draft.set(source.section, &["family"], "ipv4");
    }
}

/// `KIND_tls_…`.
fn tls(source: &mut Source<'_>, fields: &mut Fields<'_>, kind: &str) {
    let enabled = fields.flag(source.draft, &format!("{kind}_tls_enabled"));
    let is_on = enabled.is_some_and(|(_, enabled)| enabled);
    enabled
        .into_iter()
        .for_each(|(id, _)| source.draft.translated(id));
    let mut entries = Vec::new();
    for (key, name) in [("cacert", "ca"), ("cert", "cert"), ("key", "key")] {
        if let Some(path) = fields.text(source.draft, &format!("{kind}_tls_{key}_path")) {
            entries.push((name, Value::from(path.text)));
            source.draft.translated(path.id);
        }
    }
    if is_on {
        if let Some(Value::Text(url)) = source.draft.get(source.section, &["url"]) {
            let url = url.replacen("http://", "https://", 1);
            source.draft.set(source.section, &["url"], url);
        }
        if !entries.is_empty() {
            source.draft.set(source.section, &["tls"], Value::table(entries));
        }
    }
}

//! What operators rely on when configurations and overrides change.

mod discovered;
mod saved;

use std::sync::Arc;

use super::*;
use crate::config::{self, Options, Source};

const SITE: &str = r#"
    [frontends.web]
    listen_addr = "192.0.2.100:80"
    mode = "passthrough"
    backend = "web"
    [backends.web]
    servers.a = { addr = "10.0.0.1:80", weight = 3 }
    servers.b = { addr = "10.0.0.2:80" }
    [backends.mail]
    servers.m = { addr = "10.0.0.3:25" }
"#;

fn load(text: &str) -> Config {
    let source = Source {
        name: "site.toml".to_owned(),
        bytes: text.into(),
    };
    config::load(&source, Options::default()).unwrap().config
}

/// The same site, changed, as a reload takes it.
fn reload(running: &Config, from: &str, to: &str) -> Config {
    let mut config = load(&SITE.replace(from, to));
    config.keep(running);
    config
}

fn key(backend: &str, server: &str) -> ServerKey {
    ServerKey {
        backend: BackendName::new(backend).unwrap(),
        server: ServerName::new(server).unwrap(),
    }
}

fn names(changed: &[BackendName]) -> Vec<&str> {
    changed.iter().map(BackendName::as_str).collect()
}

const DRAINING: Override = Override {
    admin: Some(AdminState::Draining),
    weight: None,
};

#[test]
fn a_reload_names_the_backends_that_it_adds_changes_and_removes_and_leaves_the_others_alone() {
    let (mut pools, config) = (Pools::default(), load(SITE));
    assert_eq!(names(&pools.apply(&config)), ["mail", "web"]);
    assert_eq!(names(&pools.apply(&config)), [""; 0]);

    let mail = Arc::clone(pools.get("mail").unwrap());
    let heavier = reload(&config, "weight = 3", "weight = 4");
    assert_eq!(names(&pools.apply(&heavier)), ["web"]);
    assert!(Arc::ptr_eq(pools.get("mail").unwrap(), &mail));
    assert_eq!(pools.get("web").unwrap().server("a").map(Server::weight), Some(4));

    let renamed = reload(&config, "backends.mail", "backends.post");
    let mut changed = pools.apply(&renamed);
    changed.sort();
    assert_eq!(names(&changed), ["mail", "post", "web"]);
    assert!(pools.get("mail").is_none());
    assert_eq!(pools.iter().count(), 2);
}

#[test]
fn an_override_goes_before_the_file_until_it_is_cleared() {
    let mut pools = Pools::default();
    pools.apply(&load(SITE));
    let weight = Override {
        admin: None,
        weight: Some(9),
    };
    assert!(pools.set_override(&key("web", "a"), weight));
    let weight_of = |pools: &Pools| pools.get("web").unwrap().server("a").unwrap().weight();
    assert_eq!(weight_of(&pools), 9);
    pools.apply(&load(&SITE.replace("weight = 3", "weight = 4")));
    assert_eq!(weight_of(&pools), 9, "a reload does not clear it");
    assert!(pools.set_override(&key("web", "a"), Override::default()));
    assert_eq!(weight_of(&pools), 4);
    assert!(!pools.set_override(&key("web", "c"), weight), "no such server");
    assert!(!pools.set_override(&key("wbe", "a"), weight), "no such backend");
}

#[test]
fn an_override_goes_with_its_server() {
    let (mut pools, config) = (Pools::default(), load(SITE));
    pools.apply(&config);
    pools.set_override(&key("web", "b"), DRAINING);
    pools.apply(&load(&SITE.replace("servers.b", "servers.c")));
    pools.apply(&config);
    assert_eq!(
        pools.get("web").unwrap().server("b").unwrap().overridden,
        Override::default()
    );
}

#[test]
fn what_would_be_with_an_override_can_be_asked_without_setting_it() {
    let mut pools = Pools::default();
    pools.apply(&load(SITE));
    let web = pools.get("web").unwrap();
    let drained = web.with_override("b", DRAINING);
    assert_eq!(drained.server("b").unwrap().overridden, DRAINING);
    assert!(web.server("b").unwrap().overridden.is_none());
}

#[test]
fn without_discovery_the_packet_services_are_the_files() {
    let (mut pools, config) = (Pools::default(), load(SITE));
    pools.apply(&config);
    assert_eq!(pools.packet_services(&config), config.packet_services());
    pools.set_override(&key("web", "b"), DRAINING);
    assert_eq!(
        pools.packet_services(&config).len(),
        1,
        "flows to a drained server go on"
    );
}

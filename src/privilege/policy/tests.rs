//! What the broker allows, and what not.

mod discovered;

use std::time::Duration;

use super::*;
use crate::{
    base::{Endpoint, IpFamily, Protocol, SocketKind, SocketOptions},
    config::{self, Options, Source},
};

fn policy() -> Policy {
    policy_of(
        r#"
        [stats]
        port = 7000
        [frontends.web]
        tcp_user_timeout = "30s"
        client_keepalive = { enabled = false }
        listen_addr = ["0.0.0.0:80", "[::]:80"]
        backend = "pool"
        [frontends.mail]
        listen_addr = "10.0.0.1:25"
        backend = "pool"
        [backends.pool]
        servers.a = { addr = "10.0.0.2:80" }
        "#,
    )
}

/// `web` is found by its VIP and its server, `named` by its interface; `proxied` needs no packets.
const PACKETS: &str = r#"
    [frontends.web]
    listen_addr = "10.0.0.1:80"
    mode = "passthrough"
    backend = "web"
    [backends.web]
    servers.a = { addr = "10.1.0.2:80" }
    servers.b = { addr = "10.1.0.3:80" }
    [frontends.named]
    listen_addr = "10.0.9.1:53"
    mode = "dsr"
    protocol = "udp"
    interface = "eth9"
    backend = "named"
    [backends.named]
    servers.a = { addr = "10.2.0.2:53" }
    [frontends.proxied]
    listen_addr = "10.0.7.1:80"
    backend = "proxied"
    [backends.proxied]
    servers.a = { addr = "10.7.0.2:80" }
"#;

/// Whether `name`, which has index 7 and one address, may be opened when servers of `network` are behind it.
fn open(policy: &Policy, name: &str, address: &str, network: &str) -> Result<(), String> {
    let wanted = SocketRequest {
        name,
        index: 7,
        is_loopback: name == "lo",
        addresses: &[address.parse().unwrap()],
    };
    policy.may_open(&wanted, |server| {
        Some(if server.to_string().starts_with(network) {
            7
        } else {
            1
        })
    })
}

#[test]
fn packet_sockets_are_opened_where_packets_come_in_and_nowhere_else() {
    let policy = policy_of(PACKETS);
    open(&policy, "eth9", "192.0.2.1", "none").unwrap();
    open(&policy, "eth0", "10.0.0.1", "none").unwrap();
    open(&policy, "eth1", "192.0.2.1", "10.1.").unwrap();
    for (name, address, network) in [
        ("eth2", "192.0.2.1", "none"),
        // the servers of DSR answer the clients, those of a proxied frontend the kernel's sockets
        ("eth2", "192.0.2.1", "10.2."),
        ("eth2", "192.0.2.1", "10.7."),
        ("eth2", "10.0.7.1", "none"),
        ("lo", "10.0.0.1", "10.1."),
    ] {
        let refused = open(&policy, name, address, network);
        assert!(
            refused.as_ref().is_err_and(|why| why.contains(name)),
            "{name} {address} {network}: {refused:?}"
        );
    }
    let proxy = policy_of("[global]\n");
    assert!(open(&proxy, "eth0", "10.0.0.1", "10.1.").is_err());
}

#[test]
fn loopback_is_opened_if_a_frontend_names_it() {
    let wanted = SocketRequest {
        name: "eth9",
        index: 1,
        is_loopback: true,
        addresses: &[],
    };
    policy_of(PACKETS).may_open(&wanted, |_| None).unwrap();
}

fn services() -> Vec<PacketService> {
    policy_of(PACKETS).configured
}

#[test]
fn exactly_what_the_configuration_says_is_served() {
    let policy = policy_of(PACKETS);
    policy.may_serve(&services(), &BTreeSet::new()).unwrap();
    policy.may_serve(&[], &BTreeSet::new()).unwrap();
    type PolicyChange = fn(&mut PacketService);
    let changes: [(PolicyChange, &str); 6] = [
        (
            |s| s.vip.listen = "10.0.0.1:22".parse().unwrap(),
            "10.0.0.1:22 (tcp)",
        ),
        (
            |s| s.vip = Endpoint::tcp(([0, 0, 0, 0], 80).into()).into(),
            "0.0.0.0:80",
        ),
        (|s| s.vip.protocol = Protocol::Udp, "10.0.0.1:80 (udp)"),
        (
            |s| {
                s.nat_ports = "1-65535".parse().ok();
            },
            "passthrough from ports 1-65535",
        ),
        (|s| s.nat_ports = None, "in DSR"),
        // known, but of another frontend
        (
            |s| s.servers = vec![IpServerAddr::new(([10, 2, 0, 2], 53).into())],
            "10.2.0.2:53",
        ),
    ];
    for (change, named) in changes {
        let mut services = services();
        change(&mut services[0]);
        let refused = policy.may_serve(&services, &BTreeSet::new());
        assert!(
            refused.as_ref().is_err_and(|why| why.contains(named)),
            "{services:?}: {refused:?}"
        );
    }
}

#[test]
fn flows_outlive_their_configuration_but_nothing_returns_by_itself() {
    let mut policy = policy_of(PACKETS);
    policy.served(services());
    policy.adopt(policy_of("[global]\n").config);
    policy.may_serve(&services(), &BTreeSet::new()).unwrap();
    open(&policy, "eth9", "192.0.2.1", "none").unwrap();
    open(&policy, "eth0", "10.0.0.1", "none").unwrap();

    // a change that fails is undone, one that is gone for good stays so
    policy.served(services()[..1].to_vec());
    policy.may_serve(&services(), &BTreeSet::new()).unwrap();
    policy.served(Vec::new());
    policy.may_serve(&services()[..1], &BTreeSet::new()).unwrap();
    assert!(policy.may_serve(&services(), &BTreeSet::new()).is_err());
    for (name, address) in [("eth9", "192.0.2.1"), ("eth0", "10.0.0.1")] {
        assert!(open(&policy, name, address, "10.1.").is_err(), "{name}");
    }
}

#[test]
fn a_part_of_a_range_is_served_where_the_range_leads_and_no_further() {
    let policy = policy_of(
        r#"
        [frontends.rtp]
        listen_addr = "10.0.0.1:9000-9010"
        mode = "passthrough"
        backend = "rtp"
        [backends.rtp]
        servers.a = { addr = "10.1.0.2:7000" }
        "#,
    );
    let service = |listen: &str, server: &str| PacketService {
        vip: EndpointRange {
            listen: listen.parse().unwrap(),
            protocol: Protocol::Tcp,
        },
        servers: vec![server.parse().unwrap()],
        ..policy.configured[0].clone()
    };
    let served = |listen, server| policy.may_serve(&[service(listen, server)], &BTreeSet::new());
    for (listen, server) in [
        ("10.0.0.1:9000-9010", "10.1.0.2:7000"),
        ("10.0.0.1:9004-9006", "10.1.0.2:7004"),
        ("10.0.0.1:9010", "10.1.0.2:7010"),
    ] {
        served(listen, server).unwrap();
    }
    for (listen, server) in [
        ("10.0.0.1:9000-9011", "10.1.0.2:7000"),
        ("10.0.0.1:8999", "10.1.0.2:6999"),
        ("10.0.0.1:9004-9006", "10.1.0.2:7000"),
        ("10.0.0.1:9000-9010", "10.1.0.2:7001"),
        ("10.0.0.1:9004", "10.1.0.3:7004"),
    ] {
        let refused = served(listen, server);
        assert!(
            refused.as_ref().is_err_and(|why| why.contains(listen)),
            "{listen} {server}: {refused:?}"
        );
    }
}

#[test]
fn every_port_of_a_proxied_range_may_be_bound_and_no_other() {
    let policy = policy_of(
        r#"
        [frontends.data]
        listen_addr = ["10.0.0.1:9000-9002", "[fe80::1%eth0]:80"]
        backend = "data"
        [backends.data]
        servers.a = { addr = "10.1.0.2:7000" }
        "#,
    );
    let bind = |addr: &str| {
        policy.may_bind(&ListenerRef::Frontend {
            name: "data".into(),
            listener: Endpoint {
                addr: addr.parse().unwrap(),
                protocol: Protocol::Tcp,
            }
            .into(),
        })
    };
    for addr in [
        "10.0.0.1:9000",
        "10.0.0.1:9001",
        "10.0.0.1:9002",
        "[fe80::1%eth0]:80",
    ] {
        assert_eq!(addr_of(bind(addr).unwrap()), addr);
    }
    for addr in [
        "10.0.0.1:8999",
        "10.0.0.1:9003",
        "[fe80::1%eth1]:80",
        "[fe80::1]:80",
    ] {
        assert!(bind(addr).is_err(), "{addr}");
    }
}

#[test]
fn a_unix_socket_is_bound_at_its_path_alone_with_the_rights_of_its_frontend() {
    let policy = policy_of(
        r#"
        [frontends.web]
        listen_addr = ["unix:/run/convey/web.sock", "127.0.0.1:80"]
        socket_mode = "0666"
        socket_group = "www-data"
        backend = "b"
        [frontends.other]
        listen_addr = "unix:/run/convey/other.sock"
        backend = "b"
        [backends.b]
        servers.a = { addr = "unix:/run/app.sock" }
        "#,
    );
    let bind = |name: &str, path: &str| {
        policy.may_bind(&ListenerRef::Frontend {
            name: name.into(),
            listener: ListenerId::Unix(path.parse().unwrap()),
        })
    };
    let (web, other) = ("unix:/run/convey/web.sock", "unix:/run/convey/other.sock");
    assert_eq!(addr_of(bind("web", web).unwrap()), format!("{web} 0666"));
    assert_eq!(addr_of(bind("other", other).unwrap()), format!("{other} 0660"));
    assert_eq!(policy.socket_groups().collect::<Vec<_>>(), ["www-data"]);
    for (name, path) in [
        ("web", other),
        ("web", "unix:/run/app.sock"),
        ("mail", web),
        ("web", "unix:/etc/passwd"),
    ] {
        assert!(
            bind(name, path).is_err_and(|why| why.contains(name)),
            "{name} {path}"
        );
    }
    assert!(
        policy.has_socket(web.parse().unwrap()) && !policy.has_socket("unix:/run/app.sock".parse().unwrap())
    );
}

#[test]
fn only_the_sockets_of_sources_are_connected_to_and_those_before_until_the_reload_is_done() {
    let source = |path: &str| {
        format!(
            "[backends.b.discovery]\nkind = \"docker\"\nurl = \"unix:{path}\"\nnetwork = \"bridge\"\nport = 80"
        )
    };
    let load = |text: &str| {
        let source = Source {
            name: "convey.toml".into(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    };
    let mut policy = Policy::new(load(&source("/run/docker.sock")));
    let may = |policy: &Policy, path: &str| policy.may_connect(path.parse().unwrap()).is_ok();
    let (old, new) = ("unix:/run/docker.sock", "unix:/run/podman/podman.sock");
    assert!(may(&policy, old) && !may(&policy, new) && !may(&policy, "unix:/run/dbus/system_bus_socket"));
    policy.adopt(load(&source("/run/podman/podman.sock")));
    assert!(
        may(&policy, old) && may(&policy, new),
        "a reload that fails goes back"
    );
    policy.in_effect_alone();
    assert!(!may(&policy, old) && may(&policy, new));
    assert!(policy.has_source_sockets() && !policy_of("[global]\n").has_source_sockets());
}

#[test]
fn nothing_listens_for_a_frontend_in_a_packet_mode() {
    let listener = ListenerRef::Frontend {
        name: "web".into(),
        listener: Endpoint::tcp(([10, 0, 0, 1], 80).into()).into(),
    };
    let refused = policy_of(PACKETS).may_bind(&listener);
    assert!(
        refused.as_ref().is_err_and(|why| why.contains("packet mode")),
        "{refused:?}"
    );
}

fn addr_of(permitted: Permitted) -> String {
    match permitted {
        Permitted::Network(permitted) => permitted.addr.to_string(),
        Permitted::Unix(path, rights) => format!("{path} {}", rights.mode),
    }
}

fn policy_of(text: &str) -> Policy {
    Policy::new(load(text))
}

fn load(text: &str) -> Config {
    let source = Source {
        name: "test.toml".to_owned(),
        bytes: text.into(),
    };
    config::load(&source, Options::default()).unwrap().config
}

fn bind(name: &str, addr: &str) -> Result<Permitted, String> {
    let listener = ListenerRef::Frontend {
        name: name.into(),
        listener: Endpoint::tcp(addr.parse().unwrap()).into(),
    };
    policy().may_bind(&listener)
}

#[test]
fn every_address_of_a_frontend_may_be_bound_with_its_time_out() {
    for addr in ["0.0.0.0:80", "[::]:80"] {
        let expected = PermittedAddr {
            addr: addr.parse().unwrap(),
            protocol: Protocol::Tcp,
            timeouts: PeerTimeouts {
                user_timeout: Some(Duration::from_secs(30)),
                keepalive: None,
            },
            options: SocketOptions::default(),
        };
        assert_eq!(bind("web", addr), Ok(Permitted::Network(expected)));
    }
}

#[test]
fn no_other_address_port_or_frontend_is_bound() {
    for (name, addr) in [
        ("web", "0.0.0.0:81"),
        ("web", "127.0.0.1:80"),
        ("web", "[::1]:80"),
        ("web", "10.0.0.1:25"),
        ("mail", "0.0.0.0:80"),
        ("ssh", "0.0.0.0:22"),
        ("", "0.0.0.0:80"),
    ] {
        let refused = bind(name, addr);
        assert!(
            refused.as_ref().is_err_and(|why| why.contains(name)),
            "{name} {addr}: {refused:?}"
        );
    }
}

#[test]
fn stats_and_the_admin_api_are_bound_only_if_the_file_has_their_addresses() {
    assert_eq!(
        addr_of(policy().may_bind(&ListenerRef::Stats).unwrap()),
        "127.0.0.1:7000"
    );
    let without = policy_of("[global]\n");
    assert_eq!(
        without.may_bind(&ListenerRef::Stats),
        Err("the configuration has no [stats] section".into())
    );
    let api = policy_of("[admin]\nlisten_addr = \"127.0.0.1:7001\"\n").may_bind(&ListenerRef::AdminApi);
    assert_eq!(addr_of(api.unwrap()), "127.0.0.1:7001");
    assert!(without.may_bind(&ListenerRef::AdminApi).is_err());
}

/// A frontend whose servers see the clients' addresses, if `source` says so, and one whose do not.
fn transparent(source: &str) -> Config {
    let text = format!(
        "[frontends.web]\nlisten_addr = [\"0.0.0.0:80\"]\nsource = \"{source}\"\nbackend = \"web\"\n\
         [frontends.dns]\nlisten_addr = \"0.0.0.0:53\"\nprotocol = \"udp\"\nbackend = \"web\"\n\
         [backends.web]\nservers.a = {{ addr = \"10.0.0.2:80\" }}\n"
    );
    let source = Source {
        name: "c.toml".into(),
        bytes: text.into_bytes(),
    };
    config::load(&source, Options::default()).unwrap().config
}

const TCP_V4: SocketKind = SocketKind {
    protocol: Protocol::Tcp,
    family: IpFamily::V4,
    is_transparent: true,
    mark: None,
};

#[test]
fn server_sockets_are_made_for_frontends_with_that_source_and_for_no_others() {
    let off = Policy::new(transparent("own"));
    let why = off.may_make(TCP_V4).unwrap_err();
    assert!(why.contains("no frontend with source = \"client\""), "{why}");
    let on = Policy::new(transparent("client"));
    on.may_make(TCP_V4).unwrap();
    for other in [
        SocketKind {
            protocol: Protocol::Udp,
            ..TCP_V4
        },
        SocketKind {
            family: IpFamily::V6,
            ..TCP_V4
        },
    ] {
        on.may_make(other).unwrap_err();
    }
}

#[test]
fn marked_sockets_are_made_with_the_marks_of_backends_and_no_others() {
    let text = "[frontends.web]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"web\"\n\
                [backends.web]\nserver_socket.mark = 7\nservers.a = { addr = \"10.0.0.2:80\" }\n";
    let source = Source {
        name: "c.toml".into(),
        bytes: text.into(),
    };
    let policy = Policy::new(config::load(&source, Options::default()).unwrap().config);
    let with = |mark, is_transparent| SocketKind {
        is_transparent,
        mark: std::num::NonZeroU32::new(mark),
        ..TCP_V4
    };
    policy.may_make(with(7, false)).unwrap();
    for (mark, is_transparent) in [(8, false), (0, false), (7, true), (0, true)] {
        policy.may_make(with(mark, is_transparent)).unwrap_err();
    }
}

#[test]
fn a_reload_keeps_the_supply_of_server_sockets_until_it_is_in_effect() {
    let mut policy = Policy::new(transparent("client"));
    // read, and perhaps never put in effect
    for _ in 0..3 {
        policy.adopt(transparent("own"));
        policy.may_make(TCP_V4).unwrap();
    }
    policy.in_effect_alone();
    policy.may_make(TCP_V4).unwrap_err();
    policy.adopt(transparent("client"));
    policy.may_make(TCP_V4).unwrap();
    policy.adopt(transparent("own"));
    policy.may_make(TCP_V4).unwrap_err();
}

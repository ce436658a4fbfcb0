//! What Docker, Kubernetes, LXD and Incus answer.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU16,
    time::Duration,
};

use super::*;
use crate::config::{
    DockerAddress, DockerQuery, Families, HttpService, LxdFlavour, LxdQuery, ServicePort, SourceTls,
};

fn anywhere() -> HttpService {
    HttpService {
        url: "http://localhost".parse().unwrap(),
        socket: None,
        tls: SourceTls::default(),
        token: None,
        timeout: Duration::from_secs(5),
    }
}

fn docker_query(address: DockerAddress, labels: &[&str], port: u16) -> DockerQuery {
    DockerQuery {
        engine: anywhere(),
        labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
        port: NonZeroU16::new(port),
        address,
        family: Families::Any,
    }
}

fn network(name: &str) -> DockerAddress {
    DockerAddress::Network(name.to_owned())
}

const PUBLISHED: DockerAddress = DockerAddress::Published {
    host: None,
    variable: None,
};

/// As the API's documentation has it, shortened: one that is well, one with two addresses and labels, one that is unhealthy, one
/// of another role, one that has just begun, one without a network.
const CONTAINERS: &str = r#"[
  {"Id": "8dfafdbc3a40aaaa", "Names": ["/web-1"], "Image": "web", "State": "running", "Status": "Up 5 minutes (healthy)",
   "Labels": {"role": "web"}, "HostConfig": {"NetworkMode": "shop"}, "Mounts": [],
   "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"},
             {"IP": "::", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"}, {"PrivatePort": 443, "Type": "tcp"}],
   "NetworkSettings": {"Networks": {"shop": {"NetworkID": "7ea2", "IPAddress": "172.18.0.2", "GlobalIPv6Address": ""}}}},
  {"Id": "9cd87474be90aaaa", "Names": ["/proxy/web-2", "/web-2"], "State": "running", "Status": "Up 2 hours",
   "Labels": {"role": "web", "convey.port": "8080", "convey.weight": "5", "sni": "www.example.com"},
   "Ports": [{"IP": "192.0.2.7", "PrivatePort": 8080, "PublicPort": 8082, "Type": "tcp"}],
   "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.3"},
     "shop": {"IPAddress": "172.18.0.3", "GlobalIPv6Address": "2001:db8::3"}}}},
  {"Id": "3176a2479c92aaaa", "Names": ["/web-3"], "State": "running", "Status": "Up 1 second (unhealthy)",
   "Labels": {"role": "web"}, "NetworkSettings": {"Networks": {"shop": {"IPAddress": "172.18.0.4"}}}},
  {"Id": "4cb07b47f9fbaaaa", "Names": ["/db"], "State": "running", "Status": "Up", "Labels": {"role": "db"},
   "NetworkSettings": {"Networks": {"shop": {"IPAddress": "172.18.0.5"}}}},
  {"Id": "5aaaaaaaaaaaaaaa", "Names": ["/web-5"], "State": "running", "Status": "Up 1 second (health: starting)",
   "Labels": {"role": "web"}, "NetworkSettings": {"Networks": {"shop": {"IPAddress": "172.18.0.6"}}}},
  {"Id": "6aaaaaaaaaaaaaaa", "Names": null, "State": "exited", "Status": "Exited (0)", "Labels": {"role": "web"}, "Ports": null,
   "NetworkSettings": null}
]"#;

fn docker(query: &DockerQuery, told: &[(&str, &str)]) -> Answer {
    let told: HashMap<String, String> = told
        .iter()
        .map(|(id, ip)| ((*id).to_owned(), (*ip).to_owned()))
        .collect();
    let host = "10.0.0.5".parse().unwrap();
    let containers = Containers::parse(CONTAINERS.as_bytes()).unwrap();
    containers.answer(query, host, &told, LIMITS).unwrap()
}

#[test]
fn containers_are_servers_at_their_own_addresses_unless_they_are_ill() {
    let answer = docker(&docker_query(network("shop"), &["role=web"], 80), &[]);
    assert_eq!(answer.passed_over.count, 2);
    let first = answer.passed_over.first.clone().unwrap();
    assert_eq!(first, "container web-3: it is unhealthy");
    assert_eq!(
        lines(Ok(answer)),
        [
            "web-1 172.18.0.2:80 1 1 0 ",
            "web-2 172.18.0.3:8080 5 1 0 www.example.com",
        ]
    );
    let mut query = docker_query(network("shop"), &[], 80);
    query.family = Families::Ipv6;
    assert_eq!(
        lines(Ok(docker(&query, &[]))),
        ["web-2 [2001:db8::3]:8080 5 1 0 www.example.com"]
    );
    let elsewhere = docker(&docker_query(network("bridge"), &["role=web"], 80), &[]);
    assert_eq!(
        elsewhere.passed_over.first.as_deref(),
        Some("container web-1: it is not in the network bridge")
    );
}

#[test]
fn containers_are_servers_where_their_port_is_published_once_whatever_addresses_lead_there() {
    let query = docker_query(PUBLISHED, &["role=web"], 80);
    let answer = docker(&query, &[]);
    assert_eq!(answer.duplicates, 0);
    assert_eq!(
        lines(Ok(answer)),
        [
            "web-1 10.0.0.5:8081 1 1 0 ",
            "web-2 192.0.2.7:8082 5 1 0 www.example.com"
        ]
    );
    let told = docker(
        &query,
        &[("8dfafdbc3a40aaaa", "192.0.2.9"), ("9cd87474be90aaaa", "host-b")],
    );
    assert_eq!(lines(Ok(told.clone())), ["web-1 192.0.2.9:8081 1 1 0 "]);
    assert_eq!(told.passed_over.count, 3);
    let unpublished = docker(&docker_query(PUBLISHED, &["role=web"], 443), &[]);
    let why = unpublished.passed_over.first.unwrap();
    assert_eq!(why, "container web-1: it does not publish its port 443");
    let inspected = br#"{"Id": "8", "Config": {"Env": ["PATH=/bin", "HOST_IP2=x", "HOST_IP=192.0.2.9"]}}"#;
    assert_eq!(
        Containers::variable(inspected, "HOST_IP").unwrap().as_deref(),
        Some("192.0.2.9")
    );
    assert_eq!(Containers::variable(inspected, "NONE").unwrap(), None);
}

#[test]
fn a_container_with_labels_that_say_nothing_useful_is_passed_over_and_the_others_are_not() {
    let container = |name: &str, ip: &str, labels: &str| {
        format!(
            r#"{{"Id": "{name}", "Names": ["/{name}"], "State": "running", "Labels": {labels},
               "NetworkSettings": {{"Networks": {{"n": {{"IPAddress": "{ip}"}}}}}}}}"#
        )
    };
    let list = [
        container("a", "10.0.0.1", r#"{"convey.weight": "heavy"}"#),
        container("b", "10.0.0.2", r#"{"convey.port": "http"}"#),
        container("c", "10.0.0.3", r#"{"convey.sni": "~regex"}"#),
        container("d", "10.0.0.4", r#"{"convey.weight": "70000"}"#),
        container("e", "", "null"),
        container(
            "f",
            "10.0.0.6",
            r#"{"convey.max_connections": "9", "convey.priority": "2"}"#,
        ),
        // two of a name, as two hosts behind one API may have
        container("f", "10.0.0.7", "{}"),
    ];
    let containers = Containers::parse(format!("[{}]", list.join(",")).as_bytes()).unwrap();
    let query = docker_query(network("n"), &[], 80);
    let host = "10.0.0.5".parse().unwrap();
    let answer = containers.answer(&query, host, &HashMap::new(), LIMITS).unwrap();
    assert_eq!(answer.passed_over.count, 5);
    assert_eq!(
        lines(Ok(answer)),
        [
            "f@10.0.0.6:80 10.0.0.6:80 1 2 9 ",
            "f@10.0.0.7:80 10.0.0.7:80 1 1 0 "
        ]
    );
    for lie in ["{\"message\": \"page not found\"}", "[{}]", "", "[[]]"] {
        let why = Containers::parse(lie.as_bytes()).unwrap_err().to_string();
        assert!(
            why.starts_with("the answer is no list of containers as Docker has it: "),
            "{why}"
        );
    }
}

fn slice(name: &str, family: &str, ports: &str, endpoints: &[(&str, &str, &str)]) -> String {
    let endpoints: Vec<_> = (endpoints.iter())
        .map(|(pod, ip, conditions)| {
            format!(
                r#"{{"addresses": ["{ip}"], "conditions": {conditions}, "nodeName": "n1", "zone": "z1",
                   "targetRef": {{"kind": "Pod", "namespace": "shop", "name": "{pod}", "uid": "u"}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"metadata": {{"name": "{name}", "namespace": "shop", "resourceVersion": "11"}}, "addressType": "{family}",
           "ports": {ports}, "endpoints": [{}]}}"#,
        endpoints.join(",")
    )
}

const READY: &str = r#"{"ready": true, "serving": true, "terminating": false}"#;
const PORTS: &str = r#"[{"name": "http", "protocol": "TCP", "port": 8080}, {"name": "metrics", "protocol": "TCP", "port": 9090}]"#;

fn list(slices: &[String]) -> Slices {
    let list = format!(
        r#"{{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {{"resourceVersion": "10"}}, "items": [{}]}}"#,
        slices.join(",")
    );
    Slices::parse(list.as_bytes()).unwrap()
}

fn servers(slices: &Slices, family: Families) -> Vec<String> {
    let answer = slices.answer("http", family, LIMITS).unwrap();
    answer
        .servers
        .iter()
        .map(|server| format!("{} {}", server.name, server.addr))
        .collect()
}

#[test]
fn endpoints_that_are_ready_are_servers_in_both_families_and_once_over_all_slices() {
    let slices = list(&[
        slice(
            "web-a",
            "IPv4",
            PORTS,
            &[
                ("web-1", "10.1.0.1", READY),
                (
                    "web-2",
                    "10.1.0.2",
                    r#"{"ready": false, "serving": true, "terminating": true}"#,
                ),
                ("web-3", "10.1.0.3", r#"{"ready": false}"#),
                ("web-4", "10.1.0.4", "{}"),
                // as with publishNotReadyAddresses
                ("web-5", "10.1.0.5", r#"{"ready": true, "terminating": true}"#),
            ],
        ),
        slice(
            "web-b",
            "IPv4",
            PORTS,
            &[("web-1", "10.1.0.1", READY), ("web-6", "10.1.0.6", READY)],
        ),
        slice("web-c", "IPv6", PORTS, &[("web-6", "2001:db8::6", READY)]),
        slice("web-d", "FQDN", PORTS, &[("x", "x.example.com", READY)]),
        slice("web-e", "IPv4", "null", &[]),
        slice(
            "web-f",
            "IPv4",
            r#"[{"name": null, "port": 1}]"#,
            &[("web-9", "10.1.0.9", READY)],
        ),
    ]);
    assert_eq!(
        servers(&slices, Families::Any),
        [
            "web-1 10.1.0.1:8080",
            "web-4 10.1.0.4:8080",
            "web-6@10.1.0.6:8080 10.1.0.6:8080",
            "web-6@[2001:db8::6]:8080 [2001:db8::6]:8080",
        ]
    );
    assert_eq!(servers(&slices, Families::Ipv6), ["web-6 [2001:db8::6]:8080"]);
    let answer = slices.answer("http", Families::Any, LIMITS).unwrap();
    assert_eq!(answer.passed_over.count, 2);
    assert_eq!(
        answer.passed_over.first.as_deref(),
        Some("slice web-d: its endpoints have no IP addresses")
    );
    assert_eq!(slices.version(), "10");
}

#[test]
fn a_watch_changes_slices_one_by_one_and_says_when_it_is_too_old() {
    let mut slices = list(&[slice("a", "IPv4", PORTS, &[("web-1", "10.1.0.1", READY)])]);
    let mut apply = |kind: &str, object: &str| {
        let line = format!(r#"{{"type": "{kind}", "object": {object}}}"#);
        let event = SlicesEvent::parse(line.as_bytes());
        (event.and_then(|event| slices.apply(event))).map_err(|error| error.to_string())
    };
    let other = slice("b", "IPv4", PORTS, &[("web-2", "10.1.0.2", READY)]);
    assert_eq!(apply("ADDED", &other), Ok(SlicesChange::Some));
    let moved = slice("a", "IPv4", PORTS, &[("web-3", "10.1.0.3", READY)]);
    assert_eq!(apply("MODIFIED", &moved), Ok(SlicesChange::Some));
    let bookmark =
        r#"{"kind": "EndpointSlice", "metadata": {"resourceVersion": "99", "creationTimestamp": null}}"#;
    assert_eq!(apply("BOOKMARK", bookmark), Ok(SlicesChange::None));
    let gone = r#"{"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (2)"}"#;
    assert_eq!(apply("ERROR", gone), Ok(SlicesChange::TooOld));
    let error = r#"{"kind": "Status", "code": 500, "message": "etcd\nis gone"}"#;
    assert_eq!(
        apply("ERROR", error).unwrap_err(),
        "Kubernetes ends the watch: 500 etcdis gone"
    );
    assert!(
        apply("ADDED", "{}")
            .unwrap_err()
            .starts_with("the answer is no watch of EndpointSlices")
    );
    assert_eq!(apply("NEWS", "{}"), Ok(SlicesChange::None));
    assert_eq!(slices.version(), "99");
    assert_eq!(
        servers(&slices, Families::Any),
        ["web-2 10.1.0.2:8080", "web-3 10.1.0.3:8080"]
    );
    let deleted = format!(r#"{{"type": "DELETED", "object": {other}}}"#);
    let deleted = SlicesEvent::parse(deleted.as_bytes()).unwrap();
    assert_eq!(slices.apply(deleted), Ok(SlicesChange::Some));
    assert_eq!(servers(&slices, Families::Any), ["web-3 10.1.0.3:8080"]);
    assert_eq!(slices.version(), "11");
}

/// The facts of awe4lb's fixtures in words of our own.
const COCKROACHDB: &str = r#"{"kind": "Service", "metadata": {"name": "cockroachdb"}, "spec": {"type": "NodePort",
    "selector": {"app": "cockroachdb"}, "ports": [{"name": "grpc", "port": 26257, "targetPort": 26257, "nodePort": 30257},
    {"name": "http", "port": 8080, "targetPort": 8080, "nodePort": 30080}]}}"#;

#[test]
fn awe4lbs_service_gives_the_servers_that_its_own_tests_expect() {
    let port = ServicePort::Number(NonZeroU16::new(8080).unwrap());
    let found = kubernetes::node_port(COCKROACHDB.as_bytes(), &port).unwrap();
    assert_eq!(
        (found.port.get(), found.selector.as_str()),
        (30080, "app=cockroachdb")
    );
    let other = ServicePort::Name("grpc".to_owned());
    assert_eq!(
        kubernetes::node_port(COCKROACHDB.as_bytes(), &other)
            .unwrap()
            .port
            .get(),
        30257
    );

    let pod = |node: &str, more: &str| {
        format!(
            r#"{{"metadata": {{"name": "p"{more}}}, "spec": {{"nodeName": "{node}"}}, "status": {{"phase": "Running"}}}}"#
        )
    };
    let pods = [
        pod("node-022", ""),
        pod("node-030", ""),
        pod("node-032", ""),
        pod("node-022", ""),
        pod("node-040", r#", "deletionTimestamp": "2026-01-01T00:00:00Z""#),
        r#"{"metadata": {}, "spec": {}, "status": {"phase": "Pending"}}"#.to_owned(),
    ];
    let pods = format!(r#"{{"kind": "PodList", "items": [{}]}}"#, pods.join(","));
    let names = kubernetes::nodes(pods.as_bytes()).unwrap();
    let expected = ["node-022", "node-030", "node-032"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected.clone()));
    let half = pods.replacen(
        '{',
        r#"{"metadata": {"resourceVersion": "7", "continue": "eyJ2IjoibWV0YSJ9"}, "#,
        1,
    );
    assert_eq!(
        kubernetes::nodes(half.as_bytes()).unwrap_err().to_string(),
        "the list of pods is cut off (metadata.continue)"
    );

    let node = |ip: &str| {
        let node = format!(
            r#"{{"status": {{"addresses": [{{"type": "Hostname", "address": "node"}}, {{"type": "InternalIP", "address": "{ip}"}}]}}}}"#
        );
        kubernetes::node_addresses(node.as_bytes()).unwrap()
    };
    let ips = ["172.16.3.249", "172.16.3.133", "172.16.3.193"].map(node);
    let nodes: HashMap<_, _> = expected.into_iter().zip(ips).collect();
    let answer = kubernetes::of_nodes(&nodes, found.port, Families::Any, LIMITS);
    assert_eq!(
        lines(answer.map_err(|error| error.to_string())),
        [
            "node-022 172.16.3.249:30080 1 1 0 ",
            "node-030 172.16.3.133:30080 1 1 0 ",
            "node-032 172.16.3.193:30080 1 1 0 ",
        ]
    );
}

#[test]
fn a_service_without_the_port_or_a_node_port_says_what_it_has() {
    let number = |number: u16| NonZeroU16::new(number).unwrap();
    let service = |ports: &str, more: &str| format!(r#"{{"spec": {{"ports": {ports}{more}}}}}"#);
    let name = |text: &str, wanted: u16| {
        kubernetes::port_name(text.as_bytes(), number(wanted)).map_err(|error| error.to_string())
    };
    assert_eq!(name(COCKROACHDB, 8080), Ok("http".to_owned()));
    assert_eq!(name(&service(r#"[{"port": 80}]"#, ""), 80), Ok(String::new()));
    assert_eq!(
        name(COCKROACHDB, 80).unwrap_err(),
        "the service has no port 80; it has 26257 (grpc), 8080 (http)"
    );
    assert_eq!(
        name(&service("null", ""), 80).unwrap_err(),
        "the service has no port 80, nor any other"
    );
    let at_nodes = |text: &str| {
        let port = ServicePort::Number(number(80));
        kubernetes::node_port(text.as_bytes(), &port)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        at_nodes(&service(r#"[{"port": 80}]"#, r#", "type": "ClusterIP""#)),
        "port 80 of the service has no NodePort: its type is ClusterIP"
    );
    assert!(at_nodes(&service(r#"[{"port": 80, "nodePort": 30080}]"#, "")).contains("has no selector"));
}

/// As the documentation of both has it, shortened.
const MACHINES: &str = r#"{"type": "sync", "status": "Success", "status_code": 200, "metadata": [
  {"name": "web1", "status": "Running", "type": "container", "config": {"user.role": "web"},
   "expanded_config": {"user.role": "web", "user.convey.weight": "3", "image.os": "Debian"},
   "state": {"network": {"eth0": {"state": "up", "addresses": [
       {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"},
       {"family": "inet6", "address": "2001:db8::1", "netmask": "64", "scope": "global"},
       {"family": "inet", "address": "10.158.0.2", "netmask": "24", "scope": "global"}]},
     "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "scope": "local"}]}}}},
  {"name": "web2", "status": "Running", "config": {"user.role": "web", "user.convey.interface": "enp5s0", "user.convey.port": "81"},
   "state": {"network": {"enp5s0": {"addresses": [{"family": "inet", "address": "10.158.0.3", "scope": "global"}]}}}},
  {"name": "web3", "status": "Running", "config": {"user.role": "web"}, "state": {"network": null}},
  {"name": "db", "status": "Running", "config": {"user.role": "db"}, "state": null},
  {"name": "old", "status": "Stopped", "config": {"user.role": "web"}, "state": null}]}"#;

#[test]
fn instances_are_servers_at_their_interfaces_addresses() {
    let mut query = LxdQuery {
        flavour: LxdFlavour::Incus,
        server: anywhere(),
        labels: vec!["user.role=web".parse().unwrap()],
        port: NonZeroU16::new(80),
        interface: "eth0".to_owned(),
        family: Families::Any,
    };
    let answer = of_lxd(MACHINES.as_bytes(), &query, LIMITS).unwrap();
    assert_eq!(answer.passed_over.count, 1);
    assert_eq!(
        answer.passed_over.first.as_deref(),
        Some("instance web3: it has no interface eth0")
    );
    assert_eq!(
        lines(Ok(answer)),
        ["web1 10.158.0.2:80 3 1 0 ", "web2 10.158.0.3:81 1 1 0 "]
    );
    query.family = Families::Ipv6;
    let answer = of_lxd(MACHINES.as_bytes(), &query, LIMITS).unwrap();
    assert_eq!(lines(Ok(answer)), ["web1 [2001:db8::1]:80 3 1 0 "]);
    for lie in [
        "[]",
        r#"{"error": "not authorized", "error_code": 403}"#,
        r#"{"metadata": ["/1.0/instances/a"]}"#,
    ] {
        let why = of_lxd(lie.as_bytes(), &query, LIMITS).unwrap_err().to_string();
        assert!(why.starts_with("the answer is no list of instances"), "{why}");
    }
}

#[test]
fn more_servers_than_wanted_refuse_the_answer_of_every_platform() {
    let limits = Limits {
        bytes: 1 << 20,
        servers: 1,
    };
    let query = docker_query(network("shop"), &[], 80);
    let containers = Containers::parse(CONTAINERS.as_bytes()).unwrap();
    let host = "10.0.0.5".parse().unwrap();
    let docker = containers.answer(&query, host, &HashMap::new(), limits);
    assert_eq!(docker, Err(Malformed::TooMany(1)));
    let slices = list(&[slice(
        "a",
        "IPv4",
        PORTS,
        &[("a", "10.1.0.1", READY), ("b", "10.1.0.2", READY)],
    )]);
    assert_eq!(
        slices.answer("http", Families::Any, limits),
        Err(Malformed::TooMany(1))
    );
}

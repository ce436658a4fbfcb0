//! Servers that come by themselves, named by Docker, Kubernetes and Incus: their APIs, as far as Convey asks them.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use crate::{
    Test,
    asked::QUICK,
    discovery::{Stage, discovered, save},
    lab::{PATIENCE, servers::TcpServer, unix::UnixServer, wait_until},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    docker_tells_of_containers_and_those_that_are_ill_are_left_out,
    docker_is_asked_at_no_socket_but_the_configured_one_and_says_who_may_not,
    kubernetes_tells_of_pods_and_is_asked_anew_when_it_has_forgotten,
    kubernetes_is_shown_the_token_that_its_file_has_now,
    a_service_is_reached_at_its_node_port,
    incus_is_asked_for_its_instances_again_and_again,
];

/// Does not ask again by itself while a test runs.
const ONCE: &str = "interval = \"1h\"\ntimeout = \"2s\"\nmax_removal = \"100%\"";

/// What an API knows, and what it was asked.
#[derive(Default)]
struct State {
    /// What the list is.
    list: String,
    /// What has happened: those who watch are told of each.
    events: Vec<String>,
    /// Whoever watches in another epoch is let go.
    epoch: u32,
    /// What the token must be, if there must be one.
    token: Option<String>,
    asked: Vec<String>,
}

/// An API that answers a list, and tells of what happens.
#[derive(Clone, Default)]
struct Api(Arc<(Mutex<State>, Condvar)>);

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no panic")
    }

    /// Changes what it knows.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    fn asked(&self, what: &str) -> usize {
        self.state()
            .asked
            .iter()
            .filter(|head| head.contains(what))
            .count()
    }

    /// Answers one request. `watch` begins the targets that are told of what happens; `others` answers what is no list.
    fn answer(
        &self,
        mut stream: impl Read + Write,
        watch: &str,
        others: impl Fn(&str) -> Option<String>,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut state = self.state();
        state.asked.push(head.clone());
        if let Some(token) = &state.token
            && !head.contains(&format!("authorization: Bearer {token}\r\n"))
        {
            drop(state);
            return say(&mut stream, "401 Unauthorized", "no such token");
        }
        if !head.contains(watch) {
            let list = state.list.clone();
            drop(state);
            return match others(&head) {
                Some(other) => say(&mut stream, "200 OK", &other),
                None => say(&mut stream, "200 OK", &list),
            };
        }
        let (epoch, mut told) = (state.epoch, state.events.len());
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            for event in &state.events[told..] {
                write!(stream, "{:x}\r\n{event}\n\r\n", event.len() + 1)?;
            }
            told = state.events.len();
            if state.epoch != epoch {
                return stream.write_all(b"0\r\n\r\n");
            }
            state = self.0.1.wait(state).expect("no panic");
        }
    }
}

fn say(stream: &mut impl Write, status: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A container called so, whose port is that of a server.
fn container(name: &str, server: SocketAddr, status: &str) -> String {
    format!(
        r#"{{"Id": "{name}0123456789ab", "Names": ["/{name}"], "State": "running", "Status": "{status}",
           "Labels": {{"role": "web", "convey.port": "{}"}}, "Ports": [],
           "NetworkSettings": {{"Networks": {{"lab": {{"IPAddress": "{}"}}}}}}}}"#,
        server.port(),
        server.ip()
    )
}

impl Stage {
    /// Containers of these servers, all well.
    fn containers(&self, of: &[usize]) -> String {
        let each = of
            .iter()
            .map(|index| container(NAMES[*index], self.servers[*index].addr(), "Up 2 hours"));
        format!("[{}]", each.collect::<Vec<_>>().join(","))
    }
}

const NAMES: [&str; 4] = ["web-a", "web-b", "web-c", "web-d"];

fn docker_tells_of_containers_and_those_that_are_ill_are_left_out() {
    let stage = Stage::new("docker", 3, 1);
    let api = Api::default();
    api.change(|state| state.list = stage.containers(&[0, 1]));
    let socket = stage.lb.path("docker.sock");
    let engine = {
        let api = api.clone();
        UnixServer::start(&socket, move |stream| {
            api.answer(stream, "GET /events?", |_| None)
        })
    };
    let docker = format!(
        "kind = \"docker\"\nurl = \"{}\"\nlabels = [\"role=web\"]\nnetwork = \"lab\"\n{ONCE}",
        engine.addr()
    );
    stage.convey.reload(&discovered(&stage.lb, &docker));
    stage.wait_for(&[0, 1]);
    assert_eq!(stage.reached(), "ab");
    assert!(stage.convey.order("status").contains("web-a"));
    let shown = stage.convey.order("status");
    assert!(shown.contains("docker: 2 servers, read "), "{shown}");
    wait_until("it listens to what happens", PATIENCE, || {
        api.asked("GET /events?") > 0
    });

    // each change is followed at once, though the interval is an hour; health checks are no change
    let event =
        |action: &str| format!(r#"{{"Type": "container", "Action": "{action}", "status": "{action}"}}"#);
    api.change(|state| {
        state.events.push(event("exec_start: /bin/check"));
        state.list = stage.containers(&[1, 2]);
        state.events.push(event("start"));
    });
    stage.wait_for(&[1, 2]);
    assert_eq!(stage.reached(), "bc");
    let ill = container(NAMES[1], stage.servers[1].addr(), "Up 2 hours (unhealthy)");
    let well = container(NAMES[2], stage.servers[2].addr(), "Up 2 hours (healthy)");
    api.change(|state| {
        state.list = format!("[{ill},{well}]");
        state.events.push(event("health_status: unhealthy"));
    });
    stage.wait_for(&[2]);
    stage.wait_said("left out container web-b: it is unhealthy");
    assert!(
        stage
            .convey
            .order("status")
            .contains("docker: 1 server, 1 left out")
    );
    assert!(
        api.asked("GET /containers/json?filters=%7B%22label%22%3A%5B%22role%3Dweb%22%5D%2C%22status%22") >= 3
    );

    // an engine that restarts, or forgets who listens, is asked at once
    api.change(|state| {
        state.list = stage.containers(&[0]);
        state.epoch += 1;
    });
    stage.wait_for(&[0]);
    assert_eq!(stage.reached(), "a");
    // whoever still listens is let go
    api.change(|state| state.epoch += 1);
}

fn docker_is_asked_at_no_socket_but_the_configured_one_and_says_who_may_not() {
    let stage = Stage::new("docker-denied", 2, 1);
    let api = Api::default();
    api.change(|state| state.list = stage.containers(&[0, 1]));
    let socket = stage.lb.path("docker.sock");
    let docker = |path: &std::path::Path| {
        let settings = format!(
            "kind = \"docker\"\nurl = \"unix:{}\"\nnetwork = \"lab\"\n{QUICK}\nmax_removal = \"100%\"",
            path.display()
        );
        discovered(&stage.lb, &settings)
    };
    stage.convey.reload(&docker(&stage.lb.path("missing.sock")));
    stage.wait_said("missing.sock: no such socket");
    let engine = {
        let api = api.clone();
        UnixServer::start(&socket, move |stream| {
            api.answer(stream, "GET /events?", |_| None)
        })
    };
    fs::set_permissions(engine.path(), fs::Permissions::from_mode(0o600)).expect("chmod");
    stage.convey.reload(&docker(&socket));
    stage.wait_said("docker.sock: permission denied (this user may not write to the socket");
    assert_eq!(stage.reached(), "a", "the servers stay as they are");
    fs::set_permissions(engine.path(), fs::Permissions::from_mode(0o666)).expect("chmod");
    stage.wait_for(&[0, 1]);
    // one that lies changes nothing
    api.change(|state| state.list = "{\"message\": \"page not found\"}".to_owned());
    stage.wait_shown("the answer is no list of containers as Docker has it: ");
    assert_eq!(stage.reached(), "ab");
    api.change(|state| state.epoch += 1);
}

impl Stage {
    /// The EndpointSlices of these servers, each with its port.
    fn slice(&self, index: usize, version: u32) -> String {
        let addr = self.servers[index].addr();
        format!(
            r#"{{"metadata": {{"name": "web-{index}", "resourceVersion": "{version}"}}, "addressType": "IPv4",
               "ports": [{{"name": "http", "port": {}}}], "endpoints": [{{"addresses": ["{}"],
               "conditions": {{"ready": true}}, "targetRef": {{"kind": "Pod", "name": "{}"}}}}]}}"#,
            addr.port(),
            addr.ip(),
            NAMES[index]
        )
        .replace('\n', " ")
    }

    fn slices(&self, of: &[usize], version: u32) -> String {
        let each: Vec<_> = of.iter().map(|index| self.slice(*index, version)).collect();
        format!(
            r#"{{"kind": "EndpointSliceList", "metadata": {{"resourceVersion": "{version}"}}, "items": [{}]}}"#,
            each.join(",")
        )
    }
}

/// The service, whose port 80 slices call http.
fn service(head: &str) -> Option<String> {
    let is_service = head.starts_with("GET /api/v1/namespaces/shop/services/web ");
    let service = r#"{"kind": "Service", "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}"#;
    is_service.then(|| service.to_owned())
}

fn kubernetes_tells_of_pods_and_is_asked_anew_when_it_has_forgotten() {
    let stage = Stage::new("kubernetes", 3, 1);
    let host = stage.lab.host("api");
    let api = Api::default();
    api.change(|state| state.list = stage.slices(&[0, 1], 10));
    let _server = {
        let api = api.clone();
        TcpServer::start(&host, 6443, move |stream: TcpStream| {
            api.answer(stream, "watch=1", service)
        })
    };
    let kubernetes = format!(
        "kind = \"kubernetes\"\nurl = \"http://{}\"\nnamespace = \"shop\"\nservice = \"web\"\nport = 80\n{ONCE}",
        host.addr(6443)
    );
    stage.convey.reload(&discovered(&stage.lb, &kubernetes));
    stage.wait_for(&[0, 1]);
    assert_eq!(stage.reached(), "ab");
    wait_until("it watches from what it knows", PATIENCE, || {
        api.asked("&watch=1&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=10 ") > 0
    });
    let lists = api.asked("kubernetes.io%2Fservice-name%3Dweb HTTP");
    let event = |kind: &str, object: String| format!(r#"{{"type": "{kind}", "object": {object}}}"#);
    api.change(|state| state.events.push(event("ADDED", stage.slice(2, 11))));
    stage.wait_for(&[0, 1, 2]);
    let draining = stage.slice(0, 12).replace(
        r#""ready": true"#,
        r#""ready": false, "serving": true, "terminating": true"#,
    );
    api.change(|state| {
        state.events.push(event("MODIFIED", draining));
        state.events.push(event(
            "BOOKMARK",
            r#"{"metadata": {"resourceVersion": "20"}}"#.to_owned(),
        ));
    });
    stage.wait_for(&[1, 2]);
    assert_eq!(stage.reached(), "bc");
    // a watch that is over goes on where it was
    api.change(|state| state.epoch += 1);
    wait_until("it goes on from the bookmark", PATIENCE, || {
        api.asked("&resourceVersion=20 ") > 0
    });
    assert_eq!(
        api.asked("kubernetes.io%2Fservice-name%3Dweb HTTP"),
        lists,
        "nothing was asked anew"
    );
    // what it knows is too old to be told what has changed
    api.change(|state| {
        state.list = stage.slices(&[0, 2], 500);
        let gone = r#"{"kind": "Status", "code": 410, "message": "too old resource version: 20 (500)"}"#;
        state.events.push(event("ERROR", gone.to_owned()));
    });
    stage.wait_for(&[0, 2]);
    wait_until("it watches from there", PATIENCE, || {
        api.asked("&resourceVersion=500 ") > 0
    });
    assert_eq!(stage.problem(), None);
    api.change(|state| state.epoch += 1);
}

fn kubernetes_is_shown_the_token_that_its_file_has_now() {
    let stage = Stage::new("kubernetes-token", 2, 1);
    let host = stage.lab.host("api");
    let api = Api::default();
    api.change(|state| {
        state.list = stage.slices(&[0, 1], 10);
        state.token = Some("first".to_owned());
    });
    let _server = {
        let api = api.clone();
        TcpServer::start(&host, 6443, move |stream: TcpStream| {
            api.answer(stream, "watch=1", service)
        })
    };
    let token = stage.lb.path("kubernetes.token");
    save(&token, "first\n");
    let kubernetes = format!(
        "kind = \"kubernetes\"\nurl = \"http://{}\"\nnamespace = \"shop\"\nservice = \"web\"\nport = \"http\"\ntoken = \"file:{}\"\n{QUICK}",
        host.addr(6443),
        token.display()
    );
    stage.convey.reload(&discovered(&stage.lb, &kubernetes));
    stage.wait_for(&[0, 1]);
    wait_until("it watches", PATIENCE, || api.asked("watch=1") > 0);
    // as it goes every hour: the old one is not believed any more, and the watch ends
    api.change(|state| {
        state.token = Some("second".to_owned());
        state.epoch += 1;
    });
    stage.wait_said("the server answers 401 Unauthorized: no such token");
    assert_eq!(stage.reached(), "ab");
    save(&token, "second\n");
    wait_until("the token is read again", PATIENCE, || stage.problem().is_none());
    assert!(!stage.convey.stderr().contains("second"));
    api.change(|state| state.epoch += 1);
}

fn a_service_is_reached_at_its_node_port() {
    let stage = Stage::new("node-port", 1, 1);
    let host = stage.lab.host("api");
    let node = stage.servers[0].addr();
    let others = move |head: &str| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        Some(match target {
            "/api/v1/namespaces/shop/services/web" => format!(
                r#"{{"spec": {{"type": "NodePort", "selector": {{"app": "web"}}, "ports": [{{"port": 80, "nodePort": {}}}]}}}}"#,
                node.port()
            ),
            "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb" => {
                let pod =
                    r#"{"metadata": {}, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}"#;
                format!(r#"{{"items": [{pod}, {pod}]}}"#)
            }
            "/api/v1/nodes/node-1" => format!(
                r#"{{"status": {{"addresses": [{{"type": "InternalIP", "address": "{}"}}]}}}}"#,
                node.ip()
            ),
            other => format!("unexpected {other}"),
        })
    };
    let api = Api::default();
    let _server = {
        let api = api.clone();
        TcpServer::start(&host, 6443, move |stream: TcpStream| {
            api.answer(stream, "watch=1", others)
        })
    };
    let kubernetes = format!(
        "kind = \"kubernetes\"\nvia = \"node_port\"\nurl = \"http://{}\"\nnamespace = \"shop\"\nservice = \"web\"\nport = 80\n{QUICK}",
        host.addr(6443),
    );
    stage.convey.reload(&discovered(&stage.lb, &kubernetes));
    stage.convey.wait_status("the node is a server", |status| {
        status.backends["web"]
            .servers
            .get("node-1")
            .is_some_and(|server| server.eligible)
    });
    assert_eq!(stage.reached(), "a");
}

fn incus_is_asked_for_its_instances_again_and_again() {
    let stage = Stage::new("incus", 3, 1);
    let instances = |of: &[usize]| {
        let each: Vec<_> = of
            .iter()
            .map(|index| {
                let addr = stage.servers[*index].addr();
                format!(
                    r#"{{"name": "{}", "status": "Running", "config": {{"user.role": "web", "user.convey.port": "{}"}},
                       "state": {{"network": {{"eth0": {{"addresses": [{{"family": "inet", "address": "{}", "scope": "global"}}]}}}}}}}}"#,
                    NAMES[*index],
                    addr.port(),
                    addr.ip()
                )
            })
            .collect();
        format!(r#"{{"type": "sync", "metadata": [{}]}}"#, each.join(","))
    };
    let api = Api::default();
    api.change(|state| state.list = instances(&[0, 1]));
    let socket = stage.lb.path("unix.socket");
    let server = {
        let api = api.clone();
        UnixServer::start(&socket, move |stream| {
            api.answer(stream, "GET /1.0/events", |_| None)
        })
    };
    let incus = format!(
        "kind = \"incus\"\nurl = \"{}\"\nlabels = \"user.role=web\"\n{QUICK}\nmax_removal = \"100%\"",
        server.addr()
    );
    stage.convey.reload(&discovered(&stage.lb, &incus));
    stage.wait_for(&[0, 1]);
    assert_eq!(stage.reached(), "ab");
    api.change(|state| state.list = instances(&[2]));
    stage.wait_for(&[2]);
    assert!(stage.convey.order("status").contains("web-c"));
    assert_eq!(
        api.asked("GET /1.0/instances?recursion=2 "),
        api.state().asked.len()
    );
}

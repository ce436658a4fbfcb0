//! Connections that wait, for a server or for a retry, while a reload sends their frontend elsewhere.

use std::{io::Write as _, net::TcpStream};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{BLIND, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    who_waits_for_a_server_goes_where_a_reload_sends_the_frontend,
    who_waits_leaves_a_backend_that_a_reload_removes,
    who_waits_on_a_removed_frontend_is_served_all_the_same,
    a_retry_goes_where_a_reload_sends_the_frontend,
];

const PORT: u16 = 9;

/// Two servers that name themselves, and whoever comes to them by way of the load balancer.
struct Two {
    one: TcpServer,
    two: TcpServer,
    client: Host,
    lb: Host,
    lab: Lab,
}

impl Two {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        Self {
            one: TcpServer::named(&host, 9, "one"),
            two: TcpServer::named(&host, 10, "two"),
            client,
            lb,
            lab,
        }
    }

    /// The frontend `web` with the backend `to`, of these.
    fn config(&self, to: &str, backends: &[String]) -> String {
        "[global]\nlog_format = \"json\"\nwatch_config = false\n".to_owned()
            + &frontend("web", self.lb.addr(PORT), to, "")
            + &backends.concat()
    }

    /// The backend `a` with room for one connection, on server `one`.
    fn a(&self) -> String {
        let settings = format!("{BLIND}\nqueue_timeout = \"1h\"");
        backend("a", &settings, &[("one", self.one.addr(), "max_connections = 1")])
    }

    /// The backend `b` with the server `two`.
    fn b(&self) -> String {
        backend("b", BLIND, &[("two", self.two.addr(), "")])
    }

    /// Convey with the backend `a`, the connection that has its only place, and one that waits.
    fn full(&self) -> (Convey, TcpStream, TcpStream) {
        let convey = self.lab.convey(&self.lb, &self.config("a", &[self.a()]));
        let mut served = self.connect();
        assert_eq!(read_line(&mut served).expect("the greeting"), "one");
        let waiting = self.connect();
        convey.wait_status("it waits", |status| status.backends["a"].queued == 1);
        (convey, served, waiting)
    }

    fn connect(&self) -> TcpStream {
        self.client.connect(self.lb.addr(PORT))
    }
}

/// The access event of a connection, once it has ended.
fn access(convey: &Convey, client: &str) -> serde_json::Value {
    let mut found = None;
    wait_until("its access event", PATIENCE, || {
        let log = convey.stderr();
        let mut events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        found =
            events.find(|event: &serde_json::Value| event["event"] == "access" && event["client"] == client);
        found.is_some()
    });
    found.unwrap_or_default()
}

/// Ends a connection; what the access log says of it.
#[track_caller]
fn end(convey: &Convey, mut stream: TcpStream) -> serde_json::Value {
    let client = stream.local_addr().expect("its own address").to_string();
    stream.write_all(b"x\n").expect("send");
    assert_eq!(read_line(&mut stream).expect("the echo"), "x");
    drop(stream);
    access(convey, &client)
}

fn who_waits_for_a_server_goes_where_a_reload_sends_the_frontend() {
    let two = Two::new("sentaway");
    let (convey, served, mut waiting) = two.full();
    convey.reload(&two.config("b", &[two.a(), two.b()]));
    assert_eq!(read_line(&mut waiting).expect("the greeting"), "two");
    let listed = convey.connections().connections;
    let last = listed.last().expect("the younger connection");
    assert_eq!(
        (last.backend.as_str(), last.server.as_deref()),
        ("b", Some("two"))
    );
    assert_eq!(
        (listed[0].backend.as_str(), listed[0].server.as_deref()),
        ("a", Some("one"))
    );
    let event = end(&convey, waiting);
    assert_eq!(
        (event["backend"].as_str(), event["server"].as_str()),
        (Some("b"), Some("two"))
    );
    let event = end(&convey, served);
    assert_eq!(
        (event["backend"].as_str(), event["server"].as_str()),
        (Some("a"), Some("one"))
    );
    let status = convey.status();
    let (a, b) = (&status.backends["a"], &status.backends["b"]);
    assert_eq!((a.queued, b.queued), (0, 0));
    let counts =
        |traffic: &convey::admin::views::Traffic| (traffic.connections_total, traffic.connections_current);
    assert_eq!(counts(&status.frontends["web"].traffic), (2, 0));
    assert_eq!((counts(&a.traffic), counts(&b.traffic)), ((2, 0), (1, 0)));
    assert_eq!(
        a.traffic.ended,
        [("normal".to_owned(), 1), ("rerouted".to_owned(), 1)].into()
    );
    assert_eq!(b.traffic.ended, [("normal".to_owned(), 1)].into());
}

fn who_waits_leaves_a_backend_that_a_reload_removes() {
    let two = Two::new("gonebackend");
    let (convey, _served, mut waiting) = two.full();
    convey.reload(&two.config("b", &[two.b()]));
    assert_eq!(read_line(&mut waiting).expect("the greeting"), "two");
    let event = end(&convey, waiting);
    assert_eq!(
        (event["backend"].as_str(), event["server"].as_str()),
        (Some("b"), Some("two"))
    );
}

fn who_waits_on_a_removed_frontend_is_served_all_the_same() {
    let two = Two::new("gonefrontend");
    let (convey, served, mut waiting) = two.full();
    convey.reload("[global]\nlog_format = \"json\"\nwatch_config = false\n");
    end(&convey, served);
    assert_eq!(read_line(&mut waiting).expect("the greeting"), "one");
    let event = end(&convey, waiting);
    assert_eq!(
        (event["backend"].as_str(), event["server"].as_str()),
        (Some("a"), Some("one"))
    );
}

fn a_retry_goes_where_a_reload_sends_the_frontend() {
    let two = Two::new("retry");
    let refusing = backend(
        "a",
        &format!("{BLIND}\nretries = 100"),
        // nothing listens there
        &[("one", two.lab.host("closed").addr(9), "")],
    );
    let convey = two
        .lab
        .convey(&two.lb, &two.config("a", std::slice::from_ref(&refusing)));
    let mut client = two.connect();
    convey.wait_status("a connect has failed", |status| {
        status.backends["a"].traffic.connect_failures > 0
    });
    convey.reload(&two.config("b", &[refusing, two.b()]));
    assert_eq!(read_line(&mut client).expect("the greeting"), "two");
    let event = end(&convey, client);
    assert_eq!(
        (event["backend"].as_str(), event["server"].as_str()),
        (Some("b"), Some("two"))
    );
    assert_eq!(event["redispatched"], true);
}

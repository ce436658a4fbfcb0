//! Servers that come by themselves, named by web servers and Consul.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

use crate::{
    Test,
    discovery::{Stage, discovered, lines, save},
    lab::{Host, PATIENCE, servers::TcpServer, wait_until},
    preambles::nginx,
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_web_server_is_asked_again_and_again_and_its_servers_come_and_go,
    a_web_server_that_lies_is_slow_or_gone_takes_no_server_away,
    a_web_server_is_verified_and_told_the_token_and_both_may_be_replaced,
    consul_tells_of_instances_when_they_change,
];

/// Quick to ask again, and to give up.
pub const QUICK: &str = "interval = \"200ms\"\ntimeout = \"1s\"";

fn from_web(lb: &Host, url: &str, settings: &str) -> String {
    discovered(
        lb,
        &format!("kind = \"http\"\nurl = \"{url}\"\n{QUICK}\n{settings}"),
    )
}

fn a_web_server_is_asked_again_and_again_and_its_servers_come_and_go() {
    let stage = Stage::new("http", 3, 1);
    let web = stage.lab.nginx("inventory", "");
    let url = format!("http://{}/files/web.servers", web.addr());
    let file = web.file("web.servers");
    save(&file, &lines(&stage.servers, &[0, 1]));
    stage
        .convey
        .reload(&from_web(&stage.lb, &url, "max_removal = \"100%\""));
    stage.wait_for(&[0, 1]);
    assert_eq!(
        stage.reached(),
        "ab",
        "the reload is done when the answer is there"
    );
    save(&file, &lines(&stage.servers, &[1, 2]));
    stage.wait_for(&[1, 2]);
    let shown = stage.convey.order("status");
    assert!(shown.contains("http: 2 servers, read "), "{shown}");

    // the same by JSON of another shape
    let nodes: Vec<_> = (stage.servers.iter().zip(["a", "b", "c"]))
        .map(|(server, name)| {
            let (ip, port) = (server.addr().ip(), server.addr().port());
            format!(
                "{{\"id\": \"node-{name}\", \"net\": [{{\"ip\": \"{ip}\"}}], \"port\": {port}, \"share\": 7}}"
            )
        })
        .collect();
    fs::write(
        web.file("nodes.json"),
        format!("{{\"data\": {{\"nodes\": [{}]}}}}", nodes.join(", ")),
    )
    .expect("write");
    let json = "format = \"json\"\njson = { servers = \"data.nodes\", host = \"net[0].ip\", name = \"id\", weight = \"share\" }";
    let url = url.replace("web.servers", "nodes.json");
    stage.convey.reload(&from_web(&stage.lb, &url, json));
    stage.wait_for(&[0, 1, 2]);
    assert_eq!(stage.reached(), "abc");
    assert_eq!(stage.convey.server("web", "node-b").weight, 7);
}

/// Says `answer` to whoever asks; an endless one for ever, a slow one a byte at a time.
fn liar(host: &Host, port: u16, answer: &'static [u8], again: bool) -> TcpServer {
    TcpServer::start(host, port, move |mut stream: TcpStream| -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        stream.write_all(answer)?;
        if again {
            loop {
                stream.write_all(b"10.77.0.9:80 name=again\n")?;
            }
        }
        // silent until the asker gives up, unless the answer is to be cut off
        if answer.is_empty() {
            let _ = stream.read(&mut [0]);
        }
        Ok(())
    })
}

fn a_web_server_that_lies_is_slow_or_gone_takes_no_server_away() {
    let stage = Stage::new("http-liar", 2, 2);
    let host = stage.lab.host("inventory");
    let good = lines(&stage.servers, &[0, 1]);
    let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{good}", good.len());
    let _good = liar(&host, 8000, good.leak().as_bytes(), false);
    let at = |port: u16| format!("http://{}/servers", host.addr(port));
    stage.convey.reload(&from_web(&stage.lb, &at(8000), ""));
    stage.wait_for(&[0, 1]);
    let lies: [(&[u8], bool, &str); 8] = [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n10.77.0.9:80\n10.77",
            false,
            "closed the connection before its answer was whole",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
            "the answer has 0 usable server(s)",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\n",
            true,
            "the answer has more than 65536 bytes",
        ),
        (b"", false, "it has not answered within 1 s"),
        (
            b"HTTP/1.1 500 Oops\r\ncontent-length: 13\r\n\r\ndatabase down",
            false,
            "the server answers 500 Internal Server Error: database down",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1/\r\n\r\n",
            false,
            "it leads to http://127.0.0.1/: write that URL",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n<html>login</html>    ",
            false,
            "line 1: ",
        ),
        (b"220 mail ESMTP\r\n", false, "is not HTTP/1.1"),
    ];
    for (number, (answer, again, says)) in (1..).zip(lies) {
        let _liar = liar(&host, 8000 + number, answer, again);
        let config = from_web(&stage.lb, &at(8000 + number), "max_answer_bytes = 65536");
        stage.convey.reload(&config);
        stage.wait_said(says);
        assert_eq!(stage.reached(), "ab", "{says}");
    }
    stage.convey.reload(&from_web(&stage.lb, &at(8999), ""));
    stage.wait_said("onnection refused");
    assert_eq!(stage.reached(), "ab");
    stage.convey.reload(&from_web(&stage.lb, &at(8000), ""));
    wait_until("it works again", PATIENCE, || stage.problem().is_none());
    assert_eq!(stage.reached(), "ab");
}

fn a_web_server_is_verified_and_told_the_token_and_both_may_be_replaced() {
    let stage = Stage::new("https", 2, 1);
    let host = stage.lab.host("inventory");
    let dir = host.path("nginx-tls");
    fs::create_dir_all(dir.join("files")).expect("a directory");
    // the second comes in the place of the first
    for name in ["first", "second"] {
        host.run(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=inventory.example \
             -addext subjectAltName=DNS:inventory.example -keyout {dir}/{name}.key -out {dir}/{name}.pem",
            dir = dir.display()
        ));
    }
    save(&dir.join("files/web.servers"), &lines(&stage.servers, &[0, 1]));
    let served = |certificate: &str, token: &str| {
        let http = format!(
            "server {{ listen {}:443 ssl; ssl_certificate {certificate}.pem; ssl_certificate_key {certificate}.key; root files;\n\
             if ($http_authorization != \"Bearer {token}\") {{ return 403 \"no: $http_authorization\"; }} }}",
            host.ip4()
        );
        nginx(&host, &http, host.addr(443))
    };
    let (ca, token) = (stage.lb.path("inventory.pem"), stage.lb.path("inventory.token"));
    let put = |from: &str| save(&ca, &fs::read_to_string(dir.join(from)).expect("a certificate"));
    put("first.pem");
    save(&token, "s3cret\n");
    let mut web = served("first", "s3cret");
    let tls = format!(
        "tls = {{ ca = {ca:?}, server_name = \"inventory.example\" }}\ntoken = \"file:{}\"\nmax_removal = \"100%\"",
        token.display()
    );
    let url = format!("https://{}/web.servers", host.ip4());
    let config = from_web(&stage.lb, &url, &tls);
    stage.convey.reload(&config);
    stage.wait_for(&[0, 1]);
    let shown = fs::read_to_string(stage.convey.dir().join("convey.toml")).expect("the configuration");
    assert!(!shown.contains("s3cret") && !stage.convey.stderr().contains("s3cret"));

    // another token, then another certificate: refused until the files follow
    web.kill();
    web = served("first", "changed");
    // what the server says back is shown without the token
    stage.wait_said("the server answers 403 Forbidden: no: Bearer …");
    assert!(
        !stage.convey.stderr().contains("s3cret"),
        "{}",
        stage.convey.stderr()
    );
    save(&token, "changed\n");
    wait_until("the token is read again", PATIENCE, || stage.problem().is_none());
    web.kill();
    let _web = served("second", "changed");
    stage.wait_shown("TLS with ");
    assert_eq!(stage.reached(), "ab");
    put("second.pem");
    wait_until("the certificate is read again", PATIENCE, || {
        stage.problem().is_none()
    });
}

/// What an agent of Consul knows, and what it was asked.
#[derive(Default)]
struct Agent {
    index: u64,
    instances: Vec<SocketAddr>,
    asked: Vec<String>,
}

/// Answers as Consul does: at once, or when there is something newer than it is asked for.
fn agent(host: &Host, known: &Arc<(Mutex<Agent>, Condvar)>) -> TcpServer {
    let known = Arc::clone(known);
    TcpServer::start(host, 8500, move |mut stream: TcpStream| -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let waits_for: Option<u64> = head.split("&index=").nth(1).map(|rest| {
            rest.split('&')
                .next()
                .and_then(|index| index.parse().ok())
                .expect("an index")
        });
        let mut state = known.0.lock().expect("no panic");
        state.asked.push(head);
        while waits_for.is_some_and(|index| state.index == index) {
            state = known.1.wait(state).expect("no panic");
        }
        let instances: Vec<_> = (state.instances.iter())
            .map(|addr| {
                format!(
                    r#"{{"Node": {{"Address": "{}"}}, "Service": {{"Address": "", "Port": {}, "Weights": {{"Passing": 4, "Warning": 1}}}}}}"#,
                    addr.ip(),
                    addr.port()
                )
            })
            .collect();
        let body = format!("[{}]", instances.join(","));
        let index = state.index;
        drop(state);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

fn consul_tells_of_instances_when_they_change() {
    let stage = Stage::new("consul", 3, 1);
    let host = stage.lab.host("agent");
    let known = Arc::new((Mutex::new(Agent::default()), Condvar::new()));
    let know = |index: u64, of: &[usize]| {
        let mut state = known.0.lock().expect("no panic");
        state.index = index;
        state.instances = of.iter().map(|index| stage.servers[*index].addr()).collect();
        known.1.notify_all();
    };
    know(7, &[0, 1]);
    let _agent = agent(&host, &known);
    let token = stage.lb.path("consul.token");
    save(&token, "s3cret\n");
    let consul = discovered(
        &stage.lb,
        &format!(
            "kind = \"consul\"\nurl = \"http://{}\"\nservice = \"web\"\ntags = \"blue\"\ntoken = \"file:{}\"\n{QUICK}\nmax_removal = \"100%\"",
            host.addr(8500),
            token.display()
        ),
    );
    stage.convey.reload(&consul);
    stage.wait_for(&[0, 1]);
    let server = stage.convey.server("web", &stage.servers[0].addr().to_string());
    assert_eq!(server.weight, 4);
    wait_until("it waits for something newer", PATIENCE, || {
        let state = known.0.lock().expect("no panic");
        state.asked.iter().any(|head| head.contains("&index=7&wait=60s "))
    });
    let asked = known.0.lock().expect("no panic").asked.len();
    know(8, &[1, 2]);
    stage.wait_for(&[1, 2]);
    assert_eq!(stage.reached(), "bc");
    // each change is asked for once, and nothing is in between: the next question waits
    know(9, &[0, 1, 2]);
    stage.wait_for(&[0, 1, 2]);
    {
        let state = known.0.lock().expect("no panic");
        assert!(state.asked.len() <= asked + 3, "{:?}", state.asked);
        for head in &state.asked {
            assert!(
                head.starts_with("GET /v1/health/service/web?passing=1&tag=blue"),
                "{head}"
            );
            assert!(head.contains("x-consul-token: s3cret\r\n"), "{head}");
        }
    }
    // a cluster that was restored begins anew
    know(3, &[2]);
    stage.wait_for(&[2]);
    wait_until("it is asked from the beginning", PATIENCE, || {
        let state = known.0.lock().expect("no panic");
        state.asked.iter().any(|head| head.contains("&index=3&"))
    });
    know(4, &[0]);
    stage.wait_for(&[0]);
    // whoever still waits is let go
    know(5, &[]);
    stage.wait_said("the answer has 0 usable server(s)");
    assert_eq!(stage.reached(), "a");
    know(6, &[0]);
}

//! Servers at the paths of unix sockets: `addr = "unix:/run/app.sock"`.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    thread,
};

use convey::base::{ServerState, TerminationReason};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    Test,
    lab::{
        Convey, Host, Lab, PATIENCE, Process, random_bytes,
        servers::{TcpServer, abort},
        unix::UnixServer,
        wait_until,
    },
    site::{BLIND, FAST_CHECK, NO_CHECK, expect_turned_away, frontend, read_line},
    tests,
    tls::{EC, Pki, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    clients_of_tcp_are_served_by_a_server_at_a_path,
    bulk_arrives_unchanged_in_both_directions_and_is_spliced,
    checks_say_in_words_what_is_wrong_with_a_path,
    who_finds_no_socket_is_sent_to_the_next_server,
    clients_wait_while_the_accept_queue_is_full,
    a_server_hears_by_a_proxy_header_who_the_client_is,
    ends_and_aborts_are_told_apart_and_passed_on,
    tls_to_a_path_is_verified_by_name,
    a_reload_takes_a_server_from_a_port_to_a_path,
];

const PORT: u16 = 9;

struct Paths {
    client: Host,
    lb: Host,
    lab: Lab,
}

impl Paths {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        Self { client, lb, lab }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.lb.path(name);
        assert!(path.as_os_str().len() < 100, "{path:?}");
        path
    }

    fn addr(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }

    fn config(&self, settings: &str, servers: &[(&str, String)]) -> String {
        frontend("f", self.lb.addr(PORT), "b", "") + &backend(settings, servers)
    }
}

fn backend(settings: &str, servers: &[(&str, String)]) -> String {
    let mut text = format!("[backends.b]\n{settings}\n");
    for (name, addr) in servers {
        text += &format!("servers.{name} = {{ addr = \"{addr}\" }}\n");
    }
    text
}

fn clients_of_tcp_are_served_by_a_server_at_a_path() {
    let paths = Paths::new("unix-server");
    let server = UnixServer::named(&paths.path("app.sock"), "app");
    let text = paths.config(FAST_CHECK, &[("s", server.addr())]) + "[stats]\nport = 7000\n";
    let convey = paths.lab.convey(&paths.lb, &text);
    assert_eq!(convey.server("b", "s").state, ServerState::Up);
    let stats = paths.lb.run("curl -s http://127.0.0.1:7000/stats");
    assert!(stats.contains(&server.addr()), "{stats}");
    let mut stream = paths.client.connect(paths.lb.addr(PORT));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "app");
    let listed = convey.status_json();
    assert_eq!(
        listed["backends"]["b"]["servers"]["s"]["addr"],
        server.addr().as_str()
    );
    let connection = &convey.connections().connections[0];
    assert_eq!(
        connection.server_addr.map(|addr| addr.to_string()),
        Some(server.addr())
    );
    assert!(convey.order("connections").contains(&server.addr()));
    assert!(convey.order("status").contains(&server.addr()));
    // half of it may be closed
    stream.write_all(b"still here").expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut");
    let mut back = String::new();
    stream.read_to_string(&mut back).expect("the echo");
    assert_eq!(back, "still here");
    logged(&convey, " b/s ");
    wait_until("it is counted as a whole one", PATIENCE, || {
        convey.traffic("f").ended(TerminationReason::Normal) == 1
    });
    let check = convey.tool("check");
    assert!(check.status.success(), "{}", check.stderr);
}

fn bulk_arrives_unchanged_in_both_directions_and_is_spliced() {
    let paths = Paths::new("unix-bulk");
    let server = UnixServer::echo(&paths.path("app.sock"));
    let convey = paths
        .lab
        .convey(&paths.lb, &paths.config(NO_CHECK, &[("s", server.addr())]));
    let (bytes, stream) = (
        random_bytes(7, 64 << 20),
        paths.client.connect(paths.lb.addr(PORT)),
    );
    let trace = paths.path("trace");
    let strace = paths.lb.start(&format!(
        "exec strace -f -qq -e trace=splice -o {} -p {}",
        trace.display(),
        convey.pid()
    ));
    wait_until("strace is attached", PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", convey.pid())).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    });
    let mut writer = stream.try_clone().expect("another handle");
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).expect("sent");
        writer.shutdown(Shutdown::Write).expect("shut");
    });
    let mut back = Vec::new();
    (&stream).read_to_end(&mut back).expect("given back");
    writing.join().expect("sent");
    assert!(back == bytes, "other bytes came back");
    drop(strace);
    let calls = fs::read_to_string(trace).expect("what strace saw");
    let moved = calls.lines().filter(|line| {
        line.rsplit("= ")
            .next()
            .is_some_and(|n| n.trim().parse::<u32>().is_ok_and(|n| n > 0))
    });
    assert!(moved.count() > 100, "{calls}");
}

fn said(convey: &Convey) -> String {
    convey.order("status")
}

fn checks_say_in_words_what_is_wrong_with_a_path() {
    let paths = Paths::new("unix-words");
    let convey = paths.lab.convey(
        &paths.lb,
        &paths.config(FAST_CHECK, &[("s", paths.addr("app.sock"))]),
    );
    let path = paths.path("app.sock");
    let waits = |words: &str| {
        wait_until(words, PATIENCE, || said(&convey).contains(words));
        assert_eq!(convey.server("b", "s").state, ServerState::Down);
    };
    waits("no such socket");
    drop(UnixServer::named(&path, "stale"));
    waits("connection refused (nobody listens on this socket)");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "no socket").expect("a file");
    waits("connection refused");
    let server = UnixServer::named(&path, "app");
    wait_until("it is up", PATIENCE, || {
        convey.server("b", "s").state == ServerState::Up
    });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    waits("permission denied");
    drop(server);
}

fn who_finds_no_socket_is_sent_to_the_next_server() {
    let paths = Paths::new("unix-retry");
    let there = UnixServer::named(&paths.path("there.sock"), "there");
    let servers = [("gone", paths.addr("gone.sock")), ("there", there.addr())];
    let convey = paths.lab.convey(
        &paths.lb,
        &paths.config(&format!("{BLIND}\nretries = 1"), &servers),
    );
    for _ in 0..20 {
        let mut stream = paths.client.connect(paths.lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "there");
    }
    // each worker has a round of its own, which begins anywhere
    assert!(convey.server("b", "gone").traffic.connect_failures > 0);
    // and with nothing else to try the log says which reason it was
    convey.reload(&paths.config(&format!("{BLIND}\nretries = 0"), &servers[..1]));
    expect_turned_away(&paths.client, paths.lb.addr(PORT));
    logged(&convey, " SC ");
    // real connections take it out too
    let passive = "health_check.enabled = false\nretries = 1\npassive_check = { max_failures = 2, ejection_time = \"300s\", max_ejection_time = \"300s\" }";
    convey.reload(&paths.config(passive, &servers));
    wait_until("it is out", PATIENCE, || {
        let mut stream = paths.client.connect(paths.lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "there");
        convey.server("b", "gone").state == ServerState::Down
    });
}

fn clients_wait_while_the_accept_queue_is_full() {
    let paths = Paths::new("unix-full");
    let path = paths.path("app.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener
        .bind(&SockAddr::unix(&path).expect("a path"))
        .expect("bind");
    listener.listen(0).expect("listen");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let text = paths.config(
        &format!("{BLIND}\nconnect_timeout = \"60s\"\nretries = 0"),
        &[("s", paths.addr("app.sock"))],
    );
    let convey = paths.lab.convey(&paths.lb, &text);
    let mut clients: Vec<_> = (0..5)
        .map(|_| paths.client.connect(paths.lb.addr(PORT)))
        .collect();
    convey.wait_status("all are there", |status| {
        status.frontends["f"].traffic.connections_total == 5
    });
    for _ in 0..5 {
        let (stream, _) = listener.accept().expect("a connection");
        (&stream).write_all(b"app\n").expect("sent");
    }
    for client in &mut clients {
        assert_eq!(read_line(client).expect("the greeting"), "app");
    }
    drop(clients);
    assert_eq!(convey.server("b", "s").traffic.connect_failures, 0);
    // for as long as connecting may take
    convey.reload(&text.replace("60s", "300ms"));
    let _fills_it = (0..3)
        .map(|_| {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).expect("a socket");
            socket.connect(&SockAddr::unix(&path).expect("a path")).ok();
            socket
        })
        .collect::<Vec<_>>();
    expect_turned_away(&paths.client, paths.lb.addr(PORT));
    assert_eq!(convey.server("b", "s").traffic.connect_failures, 1);
}

fn a_server_hears_by_a_proxy_header_who_the_client_is() {
    let paths = Paths::new("unix-proxy");
    for version in ["v1", "v2"] {
        let (server, heard) = hearing(&paths, version);
        let settings = format!("{NO_CHECK}\nsend_proxy = \"{version}\"");
        let _convey = paths
            .lab
            .convey(&paths.lb, &paths.config(&settings, &[("s", server.addr())]));
        let mut stream = paths.client.connect(paths.lb.addr(PORT));
        let own = stream.local_addr().expect("its address");
        stream.write_all(b"payload").expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut");
        stream.read_to_end(&mut Vec::new()).expect("its end");
        let bytes = heard.recv_timeout(PATIENCE).expect("what the server heard");
        let expected = match version {
            "v1" => format!(
                "PROXY TCP4 {} {} {} {PORT}\r\npayload",
                own.ip(),
                paths.lb.ip4(),
                own.port()
            )
            .into_bytes(),
            _ => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
                header.extend(paths.client.ip4().octets());
                header.extend(paths.lb.ip4().octets());
                header.extend(own.port().to_be_bytes());
                header.extend(PORT.to_be_bytes());
                header.extend(b"payload");
                header
            }
        };
        assert_eq!(bytes, expected, "{version}");
    }
    // a check has no addresses to say
    let (server, heard) = hearing(&paths, "check");
    let check = FAST_CHECK.replace(" }", ", send_proxy = true }");
    let _convey = paths.lab.convey(
        &paths.lb,
        &paths.config(&format!("{check}\nsend_proxy = \"v1\""), &[("s", server.addr())]),
    );
    assert_eq!(
        heard.recv_timeout(PATIENCE).expect("a check"),
        b"PROXY UNKNOWN\r\n"
    );
}

/// A server that tells all that each connection has said.
fn hearing(paths: &Paths, name: &str) -> (UnixServer, std::sync::mpsc::Receiver<Vec<u8>>) {
    let (tell, heard) = std::sync::mpsc::channel();
    let server = UnixServer::start(&paths.path(name), move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        tell.send(bytes).map_err(io::Error::other)
    });
    (server, heard)
}

fn ends_and_aborts_are_told_apart_and_passed_on() {
    let paths = Paths::new("unix-ends");
    let refuses = UnixServer::start(&paths.path("refuses"), |stream| {
        // what it has not read makes its close an abort
        stream.set_nonblocking(false)?;
        let mut one = [0];
        (&stream).read_exact(&mut one)?;
        Ok(())
    });
    let convey = paths
        .lab
        .convey(&paths.lb, &paths.config(BLIND, &[("s", refuses.addr())]));
    let mut stream = paths.client.connect(paths.lb.addr(PORT));
    stream.write_all(b"two bytes and more").expect("sent");
    let error = stream.read(&mut [0; 9]).expect_err("no orderly end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    wait_until("the server's abort is counted", PATIENCE, || {
        convey.traffic("f").ended(TerminationReason::ServerAbort) == 1
    });
    // a client that resets ends the server's side
    let (server, heard) = hearing(&paths, "hears");
    convey.reload(&paths.config(BLIND, &[("s", server.addr())]));
    let mut stream = paths.client.connect(paths.lb.addr(PORT));
    stream.write_all(b"said").expect("sent");
    convey.wait_status("it has arrived", |status| {
        status.frontends["f"].traffic.bytes_in > 18
    });
    abort(stream);
    assert_eq!(heard.recv_timeout(PATIENCE).expect("what it said"), b"said");
    wait_until("the client's abort is counted", PATIENCE, || {
        convey.traffic("f").ended(TerminationReason::ClientAbort) == 1
    });
}

/// nginx with TLS at a path.
fn nginx(paths: &Paths, pki: &Pki, path: &str) -> Process {
    let dir = paths.lb.path("nginx-tls");
    fs::create_dir_all(dir.join("tmp")).expect("nginx's directories");
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log info;\nevents {{ }}\n\
         http {{ access_log off; client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;\n\
         uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;\n\
         server {{ listen unix:{path} ssl; ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ return 200 \"$ssl_protocol $ssl_server_name\"; }} }} }}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
    );
    fs::write(dir.join("nginx.conf"), config).expect("nginx's configuration");
    let mut command = Command::new("nginx");
    command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(&dir);
    paths.lb.spawn(command)
}

fn tls_to_a_path_is_verified_by_name() {
    let paths = Paths::new("unix-tls");
    let pki = Pki::new(&paths.lb, "lab-ca");
    pki.issue("web", &["web.example"], EC, 30);
    let path = paths.path("tls.sock");
    let _nginx = nginx(&paths, &pki, &path.display().to_string());
    wait_until("nginx listens", PATIENCE, || path.exists());
    let with = |name: &str| {
        let tls = format!(
            "[backends.b.tls]\nca = \"{}\"\nserver_name = \"{name}\"\n",
            pki.path("ca.pem")
        );
        paths.config(FAST_CHECK, &[("s", paths.addr("tls.sock"))]) + &tls
    };
    let convey = paths.lab.convey(&paths.lb, &with("web.example"));
    assert_eq!(convey.server("b", "s").state, ServerState::Up);
    let url = format!("http://{}/", paths.lb.addr(PORT));
    assert_eq!(paths.client.run(&format!("curl -s {url}")), "TLSv1.3 web.example");
    convey.reload(&with("other.example"));
    wait_until("the name is wrong", PATIENCE, || {
        said(&convey).contains("other.example")
    });
    // without a name there is nothing that a certificate could be for
    convey.write_config(&with("address"));
    let refused = convey.cli("reload");
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("unix sockets, which have no address"),
        "{}",
        refused.stderr
    );
}

fn a_reload_takes_a_server_from_a_port_to_a_path() {
    let paths = Paths::new("unix-reload");
    let host = paths.lab.host("server");
    let at_port = TcpServer::named(&host, PORT, "port");
    let at_path = UnixServer::named(&paths.path("app.sock"), "path");
    let convey = paths.lab.convey(
        &paths.lb,
        &paths.config(FAST_CHECK, &[("s", at_port.addr().to_string())]),
    );
    let mut long = paths.client.connect(paths.lb.addr(PORT));
    assert_eq!(read_line(&mut long).expect("the greeting"), "port");
    convey.reload(&paths.config(FAST_CHECK, &[("s", at_path.addr())]));
    wait_until("new connections go to the path", PATIENCE, || {
        let mut stream = paths.client.connect(paths.lb.addr(PORT));
        read_line(&mut stream).is_ok_and(|said| said == "path")
    });
    long.write_all(b"still here\n").expect("sent");
    assert_eq!(read_line(&mut long).expect("the echo"), "still here");
}

//! Frontends that listen at unix sockets: what clients get there.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
};

use convey::base::{AccessReason, Remote, TerminationReason};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, random_bytes, servers::TcpServer, unix::UnixServer, wait_until},
    site::{BLIND, NO_CHECK, Site, read_line},
    tests,
    tls::{EC, Pki, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    programs_of_this_host_reach_the_servers_by_a_path,
    every_worker_takes_its_part_and_a_full_frontend_lets_clients_wait,
    bulk_arrives_unchanged_in_both_directions_and_is_spliced,
    ends_and_aborts_are_told_apart_and_passed_on,
    a_header_says_who_the_client_is_and_then_its_address_counts,
    servers_hear_that_nobody_knows_the_clients_address,
    tls_ends_at_a_path,
    rules_and_limits_of_networks_pass_over_who_has_no_address,
    whoever_has_no_address_is_one_client_to_a_hash_and_none_to_sticky,
];

/// A load balancer with one server that says its name and gives back what it gets.
pub struct Paths {
    pub lb: Host,
    pub server: TcpServer,
    pub lab: Lab,
}

impl Paths {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (lb, host) = (lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, 9, "s");
        Self { lb, server, lab }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.lb.path(name);
        assert!(path.as_os_str().len() < 100, "{path:?}");
        path
    }

    /// A frontend at a path, with these settings, and the backend.
    pub fn config(&self, name: &str, settings: &str) -> String {
        self.frontend("f", name, settings) + &self.backend(NO_CHECK)
    }

    pub fn frontend(&self, frontend: &str, name: &str, settings: &str) -> String {
        format!(
            "[frontends.{frontend}]\nlisten_addr = \"unix:{}\"\nbackend = \"b\"\n{settings}\n",
            self.path(name).display()
        )
    }

    pub fn backend(&self, settings: &str) -> String {
        format!(
            "[backends.b]\n{settings}\nservers.s = {{ addr = \"{}\" }}\n",
            self.server.addr()
        )
    }

    pub fn convey(&self, config: &str) -> Convey {
        self.lab.convey(&self.lb, config)
    }

    #[track_caller]
    pub fn connect(&self, name: &str) -> UnixStream {
        let stream = UnixStream::connect(self.path(name))
            .unwrap_or_else(|error| panic!("cannot connect to {name}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
    }

    /// Connects, and reads which server has answered.
    #[track_caller]
    pub fn greeted(&self, name: &str) -> UnixStream {
        let mut stream = self.connect(name);
        assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
        stream
    }
}

/// The end of a connection before anything has come.
#[track_caller]
pub fn expect_end(mut stream: UnixStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} instead of the end of the connection"),
    }
}

fn programs_of_this_host_reach_the_servers_by_a_path() {
    let site = Site::new("ul-curl", 1);
    let path = site.lb.path("web.sock");
    let both = format!("[\"{}\", \"unix:{}\"]", site.lb.addr(80), path.display());
    let text = site
        .config("", NO_CHECK)
        .replace(&format!("\"{}\"", site.lb.addr(80)), &both);
    let convey = site.convey(&text);
    let curl = format!(
        "curl -s --max-time 20 --unix-socket {} http://any/",
        path.display()
    );
    assert_eq!(site.lb.run(&curl), "a");
    assert_eq!(
        site.client.run(&format!("curl -s {}", site.url())),
        "a",
        "beside its address"
    );
    // where an operator looks for it
    let shown = format!("unix:{}", path.display());
    assert!(
        convey
            .stderr()
            .contains(&format!("listening on {shown} (frontend web")),
        "{}",
        convey.stderr()
    );
    assert!(
        convey.order("status").contains(&shown),
        "{}",
        convey.order("status")
    );
    assert_eq!(
        convey.status_json()["frontends"]["web"]["listen"][1],
        shown.as_str()
    );
    logged(&convey, "INFO unix [");
    let check = convey.tool("check");
    assert!(check.status.success(), "{}", check.stderr);
    let held = UnixStream::connect(&path).expect("connected");
    convey.wait_status("it is there", |status| {
        status.frontends["web"].traffic.connections_current == 1
    });
    assert_eq!(convey.connections().connections[0].client, Remote::Unix);
    assert!(
        convey.order("connections").contains("unix"),
        "{}",
        convey.order("connections")
    );
    drop(held);
    // half of a connection may be closed
    let paths = Paths::new("ul-half");
    let convey = paths.convey(&paths.config("half.sock", ""));
    let mut stream = paths.greeted("half.sock");
    stream.write_all(b"still here").expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut");
    let mut back = String::new();
    stream.read_to_string(&mut back).expect("the echo");
    assert_eq!(back, "still here");
    wait_until("it is counted as a whole one", PATIENCE, || {
        convey.traffic("f").ended(TerminationReason::Normal) == 1
    });
}

fn every_worker_takes_its_part_and_a_full_frontend_lets_clients_wait() {
    let paths = Paths::new("ul-many");
    let text = paths.config("web.sock", "max_connections = 40");
    let convey = paths.convey(&("[global]\nwatch_config = false\nworkers = 3\n".to_owned() + &text));
    let open: Vec<_> = (0..40).map(|_| paths.greeted("web.sock")).collect();
    // all are told of each, and no error is counted for those that come too late
    assert_eq!(convey.status().frontends["f"].accept_errors, 0);
    let mut waits = paths.connect("web.sock");
    convey.wait_status("it is full", |status| {
        status.frontends["f"].traffic.connections_current == 40
    });
    assert_eq!(convey.traffic("f").connections_total, 40);
    drop(open);
    assert_eq!(read_line(&mut waits).expect("the greeting"), "s");
}

fn bulk_arrives_unchanged_in_both_directions_and_is_spliced() {
    let paths = Paths::new("ul-bulk");
    let echo = UnixServer::echo(&paths.path("echo.sock"));
    let text = paths.frontend("f", "web.sock", "")
        + &format!(
            "[backends.b]\n{NO_CHECK}\nservers.s = {{ addr = \"{}\" }}\n",
            echo.addr()
        );
    let tcp = TcpServer::echo(&paths.lab.host("echo"), 7);
    let text = text
        + &paths.frontend("g", "tcp.sock", "").replace("\"b\"", "\"tcp\"")
        + &format!(
            "[backends.tcp]\n{NO_CHECK}\nservers.s = {{ addr = \"{}\" }}\n",
            tcp.addr()
        );
    let convey = paths.convey(&text);
    let bytes = random_bytes(7, 32 << 20);
    for name in ["web.sock", "tcp.sock"] {
        let stream = paths.connect(name);
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
        assert!(back == bytes, "other bytes came back by {name}");
        drop(strace);
        let calls = fs::read_to_string(&trace).expect("what strace saw");
        let moved = calls.lines().filter(|line| {
            let result = line.rsplit("= ").next().unwrap_or_default();
            result.trim().parse::<u32>().is_ok_and(|moved| moved > 0)
        });
        assert!(moved.count() > 50, "{name}: {calls}");
    }
}

fn ends_and_aborts_are_told_apart_and_passed_on() {
    let paths = Paths::new("ul-ends");
    let convey = paths.convey(&paths.config("web.sock", ""));
    // what it has not read makes its close an abort
    let mut stream = paths.connect("web.sock");
    stream.write_all(b"never echoed in full").expect("sent");
    convey.wait_status("the echo waits", |status| {
        status.frontends["f"].traffic.bytes_out > 20
    });
    drop(stream);
    wait_until("the client's abort is counted", PATIENCE, || {
        convey.traffic("f").ended(TerminationReason::ClientAbort) == 1
    });
    // a server that is not there
    let text = paths.frontend("f", "web.sock", "")
        + &format!(
            "[backends.b]\n{BLIND}\nretries = 0\nservers.s = {{ addr = \"unix:{}\" }}\n",
            paths.path("none").display()
        );
    convey.reload(&text);
    expect_end(paths.connect("web.sock"));
    logged(&convey, " SC ");
}

/// A PROXY header of version 2.
fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([
        0x20 | command,
        family,
        0,
        u8::try_from(addresses.len()).expect("short"),
    ]);
    header.extend(addresses);
    header
}

fn a_header_says_who_the_client_is_and_then_its_address_counts() {
    let paths = Paths::new("ul-ppin");
    let settings = "proxy_protocol = { from = \"unix\" }\n\
                    access = { default = \"deny\", rules = [\"allow 192.0.2.0/24\"] }\n\
                    limits = { per_client = { connections = 1 } }\n\
                    [[frontends.f.routes]]\nsource = \"192.0.2.128/25\"\nreject = true";
    let convey = paths.convey(&paths.config("web.sock", settings));
    let says = |last: u8| {
        let mut stream = paths.connect("web.sock");
        let addresses = [192, 0, 2, last, 10, 0, 0, 1, 0x9c, 0x40, 0, 80];
        stream.write_all(&header(1, 0x11, &addresses)).expect("sent");
        stream
    };
    let mut held = says(7);
    assert_eq!(read_line(&mut held).expect("the greeting"), "s");
    let client = convey.connections().connections[0].client;
    assert_eq!(client.to_string(), "192.0.2.7:40000");
    expect_end(says(7));
    let refused = |reason| {
        let frontend = &convey.status().frontends["f"];
        frontend.refused.values().sum::<u64>() > 0 && convey.stderr().contains(reason)
    };
    wait_until("it is counted for its client", PATIENCE, || refused("PR "));
    expect_end(says(200));
    let mut other = says(8);
    assert_eq!(read_line(&mut other).expect("the greeting"), "s");
    // one that says of nobody has no address, and the default decides; one without a header is refused
    let mut local = paths.connect("web.sock");
    local.write_all(&header(0, 0, &[])).expect("sent");
    expect_end(local);
    let mut none = paths.connect("web.sock");
    none.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    expect_end(none);
    drop(held);
    logged(&convey, "INFO 192.0.2.7:40000 [");
    assert!(convey.stderr().contains(" peer=unix"), "{}", convey.stderr());
}

fn servers_hear_that_nobody_knows_the_clients_address() {
    let paths = Paths::new("ul-ppout");
    for (version, expected) in [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", header(1, 0, &[]))] {
        let (tell, heard) = std::sync::mpsc::channel();
        let server = UnixServer::start(&paths.path(version), move |mut stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            tell.send(bytes).map_err(io::Error::other)
        });
        let backend = format!(
            "[backends.b]\n{NO_CHECK}\nsend_proxy = \"{version}\"\nservers.s = {{ addr = \"{}\" }}\n",
            server.addr()
        );
        let _convey = paths.convey(&(paths.frontend("f", "web.sock", "") + &backend));
        let mut stream = paths.connect("web.sock");
        stream.write_all(b"payload").expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut");
        stream.read_to_end(&mut Vec::new()).expect("its end");
        let said = heard.recv_timeout(PATIENCE).expect("what the server heard");
        assert_eq!(said, [expected, b"payload".to_vec()].concat(), "{version}");
    }
}

fn tls_ends_at_a_path() {
    let site = Site::new("ul-tls", 1);
    let pki = Pki::new(&site.lb, "lab-ca");
    pki.issue("web", &["web.example"], EC, 30);
    let path = site.lb.path("tls.sock");
    let tls = format!(
        "[frontends.web.tls]\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]",
        pki.path("web.pem"),
        pki.path("web.key")
    );
    let text = site
        .config(&tls, NO_CHECK)
        .replace(&site.lb.addr(80).to_string(), &format!("unix:{}", path.display()));
    let convey = site.convey(&text);
    let answer = site.lb.run(&format!(
        "curl -s --max-time 20 --cacert {} --unix-socket {} https://web.example/",
        pki.path("ca.pem"),
        path.display()
    ));
    assert_eq!(answer, "a");
    logged(&convey, " sni=web.example TLSv1.3/");
}

fn rules_and_limits_of_networks_pass_over_who_has_no_address() {
    let paths = Paths::new("ul-access");
    let rules = |default: &str| {
        format!(
            "access = {{ default = \"{default}\", rules = [\"allow 10.0.0.0/8\", \"deny 0.0.0.0/0\"] }}\n\
             limits = {{ per_client = {{ connections = 1, new_per_second = 1 }} }}"
        )
    };
    let convey = paths.convey(&paths.config("web.sock", &rules("allow")));
    // of one client they would be too many
    let open: Vec<_> = (0..5).map(|_| paths.greeted("web.sock")).collect();
    convey.reload(&paths.config("web.sock", &rules("deny")));
    expect_end(paths.connect("web.sock"));
    let denied = |convey: &Convey| {
        let status = convey.status();
        let refused = &status.frontends["f"].refused;
        refused
            .iter()
            .any(|(reason, count)| reason.to_string() == AccessReason::Denied.label() && *count == 1)
    };
    wait_until("it is counted", PATIENCE, || denied(&convey));
    logged(&convey, "now one from unix (");
    // a rate of the frontend counts all
    convey.reload(&paths.config("web.sock", "limits = { new_per_second = 1 }"));
    let answers: Vec<_> = (0..6)
        .map(|_| read_line(&mut paths.connect("web.sock")).unwrap_or_default())
        .collect();
    assert!(
        answers.iter().any(|answer| answer == "s") && answers.iter().any(String::is_empty),
        "{answers:?}"
    );
    drop(open);
}

fn whoever_has_no_address_is_one_client_to_a_hash_and_none_to_sticky() {
    let paths = Paths::new("ul-hash");
    let servers: Vec<_> = ["a", "b", "c"]
        .map(|name| UnixServer::named(&paths.path(name), name))
        .into();
    let config = |settings: &str| {
        let mut text =
            paths.frontend("f", "web.sock", "") + &format!("[backends.b]\n{NO_CHECK}\n{settings}\n");
        for (name, server) in ["a", "b", "c"].iter().zip(&servers) {
            text += &format!("servers.{name} = {{ addr = \"{}\" }}\n", server.addr());
        }
        text
    };
    let convey = paths.convey(&config("balance = \"source_hash\""));
    let answers = || {
        let mut answers: Vec<_> = (0..12)
            .map(|_| read_line(&mut paths.connect("web.sock")).expect("the greeting"))
            .collect();
        answers.sort();
        answers.dedup();
        answers
    };
    for hash in ["source_hash", "maglev"] {
        convey.reload(&config(&format!("balance = \"{hash}\"")));
        assert_eq!(answers().len(), 1, "{hash}");
    }
    convey.reload(&config("balance = \"round_robin\"\nsticky = { ttl = \"1h\" }"));
    assert_eq!(answers(), ["a", "b", "c"]);
}

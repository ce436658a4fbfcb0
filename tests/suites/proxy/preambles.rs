//! What real programs say before their payload: PROXY headers of and for HAProxy and nginx, ClientHellos of curl and openssl.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
};

use convey::base::{AccessReason, TerminationReason};

use crate::{
    Test,
    lab::{Convey, Family, Host, Lab, PATIENCE, Process, servers::TcpServer, wait_until},
    site::{FAST_CHECK, NO_CHECK, backend, expect_turned_away, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    haproxy_in_front_says_who_the_client_is,
    haproxy_and_nginx_behind_hear_who_the_client_is,
    a_header_of_a_stranger_is_refused_before_it_is_read,
    checks_introduce_themselves_to_servers_that_expect_it,
    names_lead_to_servers_and_tls_is_theirs,
    a_fallback_serves_while_nobody_else_can,
    thousands_who_stop_in_the_middle_of_a_hello_cost_little_and_delay_nobody,
];

const PORT: u16 = 443;

/// HAProxy with these sections after the global one, ready when it listens there.
#[track_caller]
fn haproxy(host: &Host, sections: &str, listens: SocketAddr) -> Process {
    let config = host.path("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 1000\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{sections}\n"
    );
    fs::write(&config, text).expect("HAProxy's configuration");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&config);
    listening(host, command, listens)
}

/// nginx with these blocks in `http`, ready when it listens there.
#[track_caller]
pub fn nginx(host: &Host, http: &str, listens: SocketAddr) -> Process {
    let dir = host.path("nginx-tls");
    fs::create_dir_all(dir.join("tmp")).expect("nginx's directories");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|of| format!("{of}_temp_path tmp/{of};\n"))
        .collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ }}\nhttp {{\naccess_log off;\n{temporary}{http}\n}}\n"
    );
    fs::write(dir.join("nginx.conf"), text).expect("nginx's configuration");
    let mut command = Command::new("nginx");
    command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(&dir);
    listening(host, command, listens)
}

#[track_caller]
fn listening(host: &Host, command: Command, addr: SocketAddr) -> Process {
    let mut process = host.spawn(command);
    wait_until("it listens", PATIENCE, || {
        if let Some(status) = process.ended() {
            panic!("it ended with {status}\n{}", process.stderr());
        }
        host.inside(|| TcpStream::connect(addr).is_ok())
    });
    process
}

/// The log's line of a connection that a server has served.
#[track_caller]
fn logged(convey: &Convey, what: &str) {
    wait_until(what, PATIENCE, || convey.stderr().contains(what));
}

fn haproxy_in_front_says_who_the_client_is() {
    let lab = Lab::new("ppin");
    let (client, front, lb, server) = (
        lab.host("client"),
        lab.host("front"),
        lab.host("lb"),
        lab.host("server"),
    );
    let _server = TcpServer::named(&server, 9, "s");
    let (mut sections, mut text) = (String::new(), String::new());
    let ways = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    ];
    for (way, port) in ways.iter().zip(100..) {
        for family in Family::ALL {
            let label = format!("{port}{}", if family == Family::V4 { "v4" } else { "v6" });
            sections += &format!(
                "listen {label}\n  mode tcp\n  unique-id-format %[uuid]\n  bind {}\n  server lb {} {way}\n",
                front.addr_of(family, port),
                lb.addr_of(family, port),
            );
            text += &frontend(
                &label,
                lb.addr_of(family, port),
                "b",
                &format!("proxy_protocol.from = [\"{}\", \"{}\"]", front.ip4(), front.ip6()),
            );
        }
    }
    text += &backend("b", NO_CHECK, &[("s", server.addr(9), "")]);
    let convey = lab.convey(&lb, &text);
    let _front = haproxy(&front, &sections, front.addr(100));
    for port in 100..103 {
        for family in Family::ALL {
            let mut stream = client.connect(front.addr_of(family, port));
            let own = stream.local_addr().expect("its address");
            assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
            let listed = convey.connections();
            assert_eq!(
                listed.connections[0].client.socket_addr().expect("its address"),
                own,
                "the client, not HAProxy"
            );
            drop(stream);
            logged(&convey, &format!("INFO {own} ["));
        }
    }
    assert!(convey.stderr().contains(&format!("peer={}:", front.ip4())));
}

/// What answers `ADDRESS PORT` of the client that it was told of.
fn haproxy_and_nginx_behind_hear_who_the_client_is() {
    let lab = Lab::new("ppout");
    let (client, lb, hap, ngx) = (
        lab.host("client"),
        lab.host("lb"),
        lab.host("hap"),
        lab.host("ngx"),
    );
    let hap_config = "frontend f\n  mode http\n  bind :80 accept-proxy\n  bind :::80 v6only accept-proxy\n  \
                      http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"";
    let _hap = haproxy(&hap, hap_config, hap.addr(80));
    let _ngx = nginx(
        &ngx,
        "server { listen 80 proxy_protocol; listen [::]:80 ipv6only=on proxy_protocol; location / { return 200 \
         \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; } }",
        ngx.addr(80),
    );
    let mut text = String::new();
    let mut port = 200;
    let mut cases = Vec::new();
    for send in [
        "send_proxy = \"v1\"",
        "send_proxy = \"v2\"",
        "send_proxy = \"v2\"\nsend_proxy_tlvs = [\"authority\", \"alpn\", \"ssl\", \"unique_id\", \"crc32c\"]",
    ] {
        for behind in [&hap, &ngx] {
            // the client's family, and the server's
            for (family, of_server) in Family::ALL
                .into_iter()
                .flat_map(|one| Family::ALL.map(|other| (one, other)))
            {
                let name = format!("b{port}");
                text += &frontend(&name, lb.addr_of(family, port), &name, "");
                text += &backend(
                    &name,
                    &format!("{NO_CHECK}\n{send}"),
                    &[("s", behind.addr_of(of_server, 80), "")],
                );
                cases.push(lb.addr_of(family, port));
                port += 1;
            }
        }
    }
    let _convey = lab.convey(&lb, &text);
    for (case, to) in cases.into_iter().enumerate() {
        let from = 20_000 + case;
        let said = client.run(&format!(
            "curl -s --max-time {} --local-port {from} http://{to}/",
            PATIENCE.as_secs()
        ));
        let own = if to.is_ipv4() {
            client.ip4().to_string()
        } else {
            client.ip6().to_string()
        };
        assert_eq!(said, format!("{own} {from} {} {}", to.ip(), to.port()), "{text}");
    }
}

fn a_header_of_a_stranger_is_refused_before_it_is_read() {
    let lab = Lab::new("ppspoof");
    let (client, lb, server) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let served = TcpServer::named(&server, 9, "s");
    let from = "proxy_protocol = { from = [\"192.0.2.0/24\"] }";
    let text = frontend("f", lb.addr(9), "b", from) + &backend("b", NO_CHECK, &[("s", server.addr(9), "")]);
    let convey = lab.convey(&lb, &text);
    for _ in 0..3 {
        expect_turned_away(&client, lb.addr(9));
    }
    let refused = convey.status().frontends["f"].refused.clone();
    assert_eq!(
        refused.get(&AccessReason::UntrustedProxy.into()),
        Some(&3),
        "{refused:?}"
    );
    assert_eq!(served.accepted(), 0);
    logged(&convey, "untrusted_proxy");
}

fn checks_introduce_themselves_to_servers_that_expect_it() {
    let lab = Lab::new("ppcheck");
    let (lb, hap) = (lab.host("lb"), lab.host("hap"));
    let sections = "frontend f\n  mode tcp\n  log stdout format raw local0\n  option tcplog\n  bind :80 accept-proxy\n  \
                    default_backend none\nbackend none\n  mode tcp";
    let behind = haproxy(&hap, sections, hap.addr(80));
    let mut text = String::new();
    for version in ["v1", "v2"] {
        let check = FAST_CHECK.replace(" }", ", send_proxy = true }");
        text += &backend(
            version,
            &format!("{check}\nsend_proxy = \"{version}\""),
            &[("s", hap.addr(80), "")],
        );
    }
    text += &frontend("f1", lb.addr(1), "v1", "");
    text += &frontend("f2", lb.addr(2), "v2", "");
    let convey = lab.convey(&lb, &text);
    for version in ["v1", "v2"] {
        convey.wait_status("checked", |status| status.backends[version].servers["s"].eligible);
    }
    // HAProxy says so of each connection that brings no valid header
    let own = format!("{}:", lb.ip4());
    wait_until("checks have come", PATIENCE, || {
        behind.stdout().matches(&own).count() > 2
    });
    let log = behind.stdout();
    let is_wrong = |line: &str| line.starts_with(&own) && line.contains("PROXY");
    assert!(!log.lines().any(is_wrong), "{log}");
}

/// nginx servers `a` and `b` with certificates of their own, before them Convey with routes.
struct Names {
    client: Host,
    lb: Host,
    convey: Convey,
    _servers: Vec<Process>,
    _lab: Lab,
}

impl Names {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let mut servers = Vec::new();
        let mut text = frontend(
            "tls",
            lb.addr(PORT),
            "a",
            "unexpected_sni = \"reject\"\n[[frontends.tls.routes]]\nsni = [\"b.example\", \"*.b.example\"]\nbackend = \"b\"\n\
             [[frontends.tls.routes]]\nalpn = \"http/1.0\"\nbackend = \"b\"\n[[frontends.tls.routes]]\nsni = \"~^a[0-9]*\\\\.\"\nbackend = \"a\"",
        );
        for who in ["a", "b"] {
            let host = lab.host(who);
            host.run(&format!(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={who} \
                 -keyout {dir}/key -out {dir}/cert 2>&1",
                dir = host.dir().display()
            ));
            let dir = host.dir().display();
            servers.push(nginx(
                &host,
                &format!(
                    "server {{ listen {PORT} ssl; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key; \
                     location / {{ return 200 \"{who} $ssl_server_name\"; }} }}"
                ),
                host.addr(PORT),
            ));
            text += &backend(who, NO_CHECK, &[(who, host.addr(PORT), "")]);
        }
        let convey = lab.convey(&lb, &text);
        Self {
            client,
            lb,
            convey,
            _servers: servers,
            _lab: lab,
        }
    }

    fn ask(&self, name: &str) -> Option<String> {
        let command = format!(
            "curl -sk --max-time {} --resolve {name}:{PORT}:{} https://{name}/",
            PATIENCE.as_secs(),
            self.lb.ip4()
        );
        let output = self.client.try_run(&command);
        output.status.success().then_some(output.stdout)
    }
}

fn names_lead_to_servers_and_tls_is_theirs() {
    let names = Names::new("names");
    for (name, server) in [
        ("a.example", "a"),
        ("a7.example", "a"),
        ("b.example", "b"),
        ("x.y.b.example", "b"),
    ] {
        assert_eq!(names.ask(name), Some(format!("{server} {name}")));
    }
    assert_eq!(names.ask("c.example"), None, "nobody expects it");
    let openssl = |more: &str| {
        let output = names.client.try_run(&format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout {} openssl s_client -quiet -connect {}:{PORT} {more} 2>/dev/null",
            PATIENCE.as_secs(),
            names.lb.ip4()
        ));
        output.stdout.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(openssl("-servername b.example"), "b b.example");
    assert_eq!(
        openssl("-noservername -alpn http/1.0"),
        "b ",
        "by the protocol alone"
    );
    assert_eq!(openssl("-noservername"), "");
    let plain = names.client.try_run(&format!(
        "curl -s --max-time 20 http://{}:{PORT}/",
        names.lb.ip4()
    ));
    assert!(!plain.status.success(), "no TLS");
    let ended = |reason| names.convey.traffic("tls").ended(reason);
    wait_until("all are counted", PATIENCE, || {
        ended(TerminationReason::NonTls) == 1
    });
    assert_eq!(ended(TerminationReason::UnexpectedSni), 2);
    logged(&names.convey, " sni=x.y.b.example");
    let explained = |more: &str| {
        names
            .convey
            .tool(&format!(
                "explain tcp {}:1 {}:{PORT} {more}",
                names.client.ip4(),
                names.lb.ip4()
            ))
            .stdout
    };
    let by_route = explained("--sni WWW.b.example");
    assert!(
        by_route.contains("route     1\n") && by_route.contains("backend b"),
        "{by_route}"
    );
    assert!(explained("--sni c.example").contains("expects the name"));
    let listed = names.convey.tool("status").stdout;
    assert!(listed.contains("a +1"), "{listed}");
}

fn a_fallback_serves_while_nobody_else_can() {
    let lab = Lab::new("sorry");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let _sorry = TcpServer::named(&host, 10, "sorry");
    let main = TcpServer::named(&host, 9, "main");
    let text = frontend("f", lb.addr(9), "main", "")
        + &backend(
            "main",
            &format!("{FAST_CHECK}\nfallback = \"sorry\""),
            &[("m", host.addr(9), "")],
        )
        + &backend("sorry", FAST_CHECK, &[("s", host.addr(10), "")]);
    let convey = lab.convey(&lb, &text);
    let served = || read_line(&mut client.connect(lb.addr(9))).expect("a greeting");
    let eligible = |wanted| {
        convey.wait_status("it is noticed", move |status| {
            status.backends["main"].servers["m"].eligible == wanted && status.frontends["f"].serves
        });
    };
    assert_eq!(served(), "main");
    drop(main);
    eligible(false);
    assert_eq!(served(), "sorry");
    let _back = TcpServer::named(&host, 9, "main");
    eligible(true);
    assert_eq!(served(), "main");
}

fn thousands_who_stop_in_the_middle_of_a_hello_cost_little_and_delay_nobody() {
    const MANY: usize = 5_000;
    let names = Names::new("halfway");
    assert!(names.ask("a.example").is_some());
    let before = names.convey.private_memory();
    // a record that promises 16 KiB
    let half = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[0; 1_000]].concat();
    let halfway: Vec<TcpStream> = (0..MANY)
        .map(|_| {
            let mut stream = names.client.connect(names.lb.addr(PORT));
            stream.write_all(&half).expect("half a hello");
            stream
        })
        .collect();
    names.convey.wait_status("all are there", |status| {
        status.frontends["tls"].traffic.connections_current >= MANY as u64
    });
    assert_eq!(
        names.ask("a.example").as_deref(),
        Some("a a.example"),
        "others are served"
    );
    let each = names.convey.private_memory().saturating_sub(before) / MANY as u64;
    eprintln!("{each} bytes each, of which {} are what it has sent", half.len());
    assert!(each < 8 << 10, "{each} bytes each");
    let mut last = halfway;
    let mut one = last.pop().expect("one of them");
    // each is turned away when its time is over, or goes
    drop(last);
    let mut rest = Vec::new();
    let _reset = one.read_to_end(&mut rest);
    assert!(rest.is_empty());
    names.convey.wait_status("none is left", |status| {
        status.frontends["tls"].traffic.connections_current == 0
    });
}

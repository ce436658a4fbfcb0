//! TLS to servers, shown with nginx, HAProxy, OpenSSL, GnuTLS and Python.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use convey::base::{ServerState, ServerTlsFailure, TerminationReason};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, Process, wait_until},
    site::{BLIND, FAST_CHECK, NO_CHECK, backend, frontend},
    tests,
    tls::{EC, Pki, RSA, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    servers_are_verified_with_both_versions_and_kinds_of_keys_and_sessions_are_resumed,
    servers_of_other_programs_are_spoken_to,
    a_server_with_a_wrong_certificate_is_refused_with_the_reason,
    a_self_signed_server_is_accepted_only_where_its_certificate_is_pinned,
    a_server_that_asks_for_a_certificate_gets_the_right_one,
    the_name_and_the_protocol_of_the_client_reach_the_server,
];

/// A load balancer and a host of servers with certificates; both directories are open to both.
pub struct Spoken {
    pub client: Host,
    pub lb: Host,
    pub web: Host,
    pub pki: Pki,
    pub lab: Lab,
}

/// `[backends.NAME.tls]`.
pub fn tls(backend: &str, settings: &str) -> String {
    format!("[backends.{backend}.tls]\n{settings}\n")
}

impl Spoken {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, web) = (lab.host("client"), lab.host("lb"), lab.host("web"));
        let pki = Pki::new(&lb, "lab-ca");
        pki.issue("web", &["web.example", "b.example"], EC, 30);
        Self {
            client,
            lb,
            web,
            pki,
            lab,
        }
    }

    /// nginx with these servers, in the context of `http`.
    pub fn nginx(&self, host: &Host, servers: &str, port: u16) -> Process {
        let dir = host.path("nginx-tls");
        fs::create_dir_all(dir.join("tmp")).expect("nginx's directories");
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log info;\n\
             events {{ worker_connections 1000; }}\n\
             http {{ access_log off; client_max_body_size 0; ssl_session_cache shared:all:1m; ssl_protocols TLSv1.2 TLSv1.3;\n\
             client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;\n\
             uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;\n{servers}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), config).expect("nginx's configuration");
        let mut command = Command::new("nginx");
        command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(&dir);
        let process = host.spawn(command);
        listens(host, host.addr(port));
        process
    }

    /// A server of nginx's that says what it knows of each connection.
    pub fn site(&self, port: u16, certificate: &str, more: &str) -> String {
        format!(
            "server {{ listen {port} ssl; ssl_certificate {}; ssl_certificate_key {}; {more}\n\
             location / {{ return 200 \"$ssl_protocol $ssl_session_reused $ssl_server_name $ssl_client_s_dn\"; }}\n\
             location /files/ {{ root .; dav_methods PUT; }} }}\n",
            self.pki.path(&format!("{certificate}.pem")),
            self.pki.path(&format!("{certificate}.key"))
        )
    }

    pub fn ca(&self) -> String {
        format!(
            "ca = \"{}\"\nserver_name = \"web.example\"",
            self.pki.path("ca.pem")
        )
    }

    /// What curl gets through a plain frontend; empty if it gets nothing.
    pub fn get(&self, port: u16) -> String {
        let url = format!("http://{}/", self.lb.addr(port));
        let curl = format!("curl -s --max-time {} {url}", PATIENCE.as_secs());
        self.client.try_run(&curl).stdout
    }

    /// One frontend and backend on the same port of either host.
    pub fn one(&self, port: u16, check: &str, settings: &str) -> String {
        let name = format!("p{port}");
        frontend(&name, self.lb.addr(port), &name, "")
            + &backend(&name, check, &[("web", self.web.addr(port), "")])
            + &tls(&name, settings)
    }

    pub fn convey(&self, config: &str) -> Convey {
        self.lab.convey(
            &self.lb,
            &format!("[global]\nworkers = 1\nwatch_config = true\n{config}"),
        )
    }
}

fn listens(host: &Host, addr: SocketAddr) {
    wait_until("the server listens", PATIENCE, || {
        host.inside(|| TcpStream::connect(addr).is_ok())
    });
}

/// Without retries, whose pauses take long where there is one server.
pub fn once(check: &str) -> String {
    format!("{check}\nretries = 0")
}

fn failures(convey: &Convey, backend: &str, server: &str, why: ServerTlsFailure) -> u64 {
    let server = convey.server(backend, server);
    server.tls_failures.get(&why.into()).copied().unwrap_or(0)
}

fn servers_are_verified_with_both_versions_and_kinds_of_keys_and_sessions_are_resumed() {
    let spoken = Spoken::new("stlsboth");
    spoken.pki.issue("rsa", &["web.example"], RSA, 30);
    let mut sites = String::new();
    let mut config = String::new();
    let mut port = 8440;
    for certificate in ["web", "rsa"] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            port += 1;
            sites += &spoken.site(port, certificate, &format!("ssl_protocols {version};"));
            config += &spoken.one(port, FAST_CHECK, &spoken.ca());
        }
    }
    let _nginx = spoken.nginx(&spoken.web, &sites, port);
    let convey = spoken.convey(&config);
    for (port, version) in (8441..).zip(["TLSv1.2", "TLSv1.3", "TLSv1.2", "TLSv1.3"]) {
        assert_eq!(spoken.get(port), format!("{version} . web.example "), "{port}");
        assert_eq!(
            spoken.get(port),
            format!("{version} r web.example "),
            "{port} again"
        );
    }
    logged(
        &convey,
        "server_tls=TLSv1.2/TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384/resumed",
    );
    logged(&convey, "server_tls=TLSv1.3/TLS_AES_256_GCM_SHA384/resumed");
    let stream = spoken
        .client
        .inside(|| TcpStream::connect(spoken.lb.addr(8442)))
        .expect("a connection");
    wait_until("it is listed with its TLS", PATIENCE, || {
        let listed = convey.connections();
        let tls = listed.connections.iter().find_map(|c| c.server_tls.as_ref());
        tls.is_some_and(|tls| tls.version == "TLSv1.3")
    });
    drop(stream);
    let explained = convey.cli(&format!(
        "explain tcp {} {}",
        spoken.client.addr(40_000),
        spoken.lb.addr(8441)
    ));
    assert!(
        explained
            .stdout
            .contains("tls       to the server, whose certificate must be for web.example"),
        "{}{}",
        explained.stdout,
        explained.stderr
    );
}

fn servers_of_other_programs_are_spoken_to() {
    let spoken = Spoken::new("stlsothers");
    let (pem, key) = (spoken.pki.path("web.pem"), spoken.pki.path("web.key"));
    let both = spoken.web.path("both.pem");
    spoken
        .web
        .run(&format!("cat {pem} {key} > {} && chmod 644 {0}", both.display()));
    let haproxy = spoken.web.path("haproxy.cfg");
    fs::write(
        &haproxy,
        format!(
            "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n\
             frontend f\n bind {} ssl crt {}\n http-request return status 200 content-type text/plain string \"haproxy\"\n",
            spoken.web.addr(9001),
            both.display()
        ),
    )
    .expect("HAProxy's configuration");
    let python = format!(
        "import http.server, ssl\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20 def do_GET(self):\n\
         \x20   self.send_response(200); self.end_headers(); self.wfile.write(b'python')\n\
         c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('{pem}', '{key}')\n\
         s = http.server.ThreadingHTTPServer(('{}', 9004), H)\n\
         s.socket = c.wrap_socket(s.socket, server_side=True); s.serve_forever()\n",
        spoken.web.ip4()
    );
    let commands: [(u16, &str, Vec<String>, &str); 4] = [
        (
            9001,
            "haproxy",
            vec!["-db".into(), "-f".into(), haproxy.display().to_string()],
            "haproxy",
        ),
        (
            9002,
            "openssl",
            format!("s_server -accept 9002 -cert {pem} -key {key} -www -quiet")
                .split(' ')
                .map(Into::into)
                .collect(),
            "s_server",
        ),
        (
            9003,
            "gnutls-serv",
            format!("--http -p 9003 --x509certfile {pem} --x509keyfile {key}")
                .split(' ')
                .map(Into::into)
                .collect(),
            "GnuTLS",
        ),
        (9004, "python3", vec!["-c".into(), python], "python"),
    ];
    let mut processes = Vec::new();
    let mut config = String::new();
    for (port, program, arguments, _) in &commands {
        let mut command = Command::new(program);
        command.args(arguments);
        processes.push(spoken.web.spawn(command));
        listens(&spoken.web, spoken.web.addr(*port));
        config += &spoken.one(*port, FAST_CHECK, &spoken.ca());
    }
    let convey = spoken.convey(&config);
    for (port, program, _, expected) in &commands {
        let got = spoken.get(*port);
        assert!(got.contains(expected), "{program}: {got}\n{}", convey.stderr());
        let state = convey.server(&format!("p{port}"), "web").state;
        assert_eq!(state, ServerState::Up, "{program}");
    }
}

fn a_server_with_a_wrong_certificate_is_refused_with_the_reason() {
    let spoken = Spoken::new("stlswrong");
    spoken.pki.issue("named", &["other.example"], EC, 30);
    let other = Pki::new(&spoken.web, "other-ca");
    other.issue("web", &["web.example"], EC, 30);
    // `openssl x509` cannot date back
    spoken.pki.run(
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=web.example -keyout old.key -out old.csr && \
         touch old.index && echo 77 > old.serial && \
         printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=old.index\\nserial=old.serial\\nnew_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\nx509_extensions=x\\n[p]\\ncommonName=supplied\\n[x]\\nsubjectAltName=DNS:web.example\\n' > old.cnf && \
         openssl ca -batch -config old.cnf -keyfile ca.key -cert ca.pem -startdate 20200101000000Z -enddate 20200201000000Z -in old.csr -out old.pem && \
         chmod 644 old.key",
    );
    let foreign = format!(
        "server {{ listen 8444 ssl; ssl_certificate {}; ssl_certificate_key {}; return 200 foreign; }}",
        other.path("web.pem"),
        other.path("web.key")
    );
    let sites = spoken.site(8441, "web", "")
        + &spoken.site(8442, "named", "")
        + &spoken.site(8443, "old", "")
        + &foreign
        + "server { listen 8445; return 200 plain; }\n"
        + &spoken.site(8446, "web", "ssl_protocols TLSv1.2; ssl_ciphers AES128-SHA;");
    let _nginx = spoken.nginx(&spoken.web, &sites, 8445);
    let cases = [
        (8442, ServerTlsFailure::CertificateName),
        (8443, ServerTlsFailure::CertificateExpired),
        (8444, ServerTlsFailure::CertificateUnknownCa),
        (8445, ServerTlsFailure::NotTls),
        (8446, ServerTlsFailure::Incompatible),
    ];
    let mut config = String::new();
    for (port, _) in &cases {
        config += &spoken.one(*port, &once(BLIND), &spoken.ca());
    }
    // the second of two serves
    config += &frontend("two", spoken.lb.addr(80), "two", "");
    config += &backend(
        "two",
        NO_CHECK,
        &[
            ("wrong", spoken.web.addr(8442), ""),
            ("right", spoken.web.addr(8441), ""),
        ],
    );
    config += &tls("two", &spoken.ca());
    let convey = spoken.convey(&config);
    for (port, why) in cases {
        assert_eq!(spoken.get(port), "", "{why}");
        logged(&convey, &format!("server_tls_failure={why}"));
        let name = format!("p{port}");
        let ended = convey.traffic(&name).ended(TerminationReason::ServerTls);
        assert_eq!(ended, 1, "{why}");
        assert_eq!(failures(&convey, &name, "web", why), 1, "{why}");
    }
    for _ in 0..4 {
        assert!(spoken.get(80).starts_with("TLSv1.3"), "{}", convey.stderr());
    }
    let why = ServerTlsFailure::CertificateName;
    assert!(failures(&convey, "two", "wrong", why) >= 1);
}

fn a_self_signed_server_is_accepted_only_where_its_certificate_is_pinned() {
    let spoken = Spoken::new("stlspinned");
    let own = |name: &str, extension: &str| {
        spoken.pki.run(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=appliance -keyout {name}.key -out {name}.pem {extension} && chmod 644 {name}.key"
        ));
    };
    // what everybody makes, which is marked as a CA's, and one that is not
    own("marked", "");
    own("leaf", "-addext basicConstraints=critical,CA:FALSE");
    let sites = spoken.site(8441, "marked", "") + &spoken.site(8442, "leaf", "");
    let _nginx = spoken.nginx(&spoken.web, &sites, 8442);
    let pin = |name: &str| format!("ca = \"{}\"", spoken.pki.path(&format!("{name}.pem")));
    let config = |pinned: [&str; 2]| {
        let pinned = pinned.map(pin);
        "[global]\nworkers = 1\n".to_owned()
            + &spoken.one(8441, &once(BLIND), &pinned[0])
            + &spoken.one(8442, &once(BLIND), &pinned[1])
    };
    let convey = spoken.lab.convey(&spoken.lb, &config(["ca", "ca"]));
    for port in [8441, 8442] {
        assert_eq!(spoken.get(port), "", "not pinned");
    }
    convey.reload(&config(["marked", "leaf"]));
    for port in [8441, 8442] {
        assert_eq!(spoken.get(port), "TLSv1.3 .  ", "{}", convey.stderr());
    }
    convey.reload(&config(["leaf", "marked"]));
    assert_eq!(spoken.get(8441), "", "another's");
    let anybody = "verify = false";
    convey.reload(&("[global]\nworkers = 1\n".to_owned() + &spoken.one(8441, &once(BLIND), anybody)));
    assert!(spoken.get(8441).starts_with("TLSv1.3"));
    logged(&convey, "servers are not verified");
    let status = convey.cli("status");
    assert!(
        status.stdout.contains("servers are not verified"),
        "{}",
        status.stdout
    );
}

fn a_server_that_asks_for_a_certificate_gets_the_right_one() {
    let spoken = Spoken::new("stlsmutual");
    spoken.pki.issue("convey", &["convey"], EC, 30);
    let other = Pki::new(&spoken.web, "other-ca");
    other.issue("convey", &["convey"], EC, 30);
    let (pem, key, ca) = (
        spoken.pki.path("web.pem"),
        spoken.pki.path("web.key"),
        spoken.pki.path("ca.pem"),
    );
    let mut servers = Vec::new();
    for (port, version) in [(8441, "tls1_2"), (8442, "tls1_3")] {
        let mut command = Command::new("openssl");
        let line = format!(
            "s_server -accept {port} -cert {pem} -key {key} -www -quiet -{version} -Verify 1 -verify_return_error -CAfile {ca}"
        );
        command.args(line.split(' '));
        servers.push(spoken.web.spawn(command));
        listens(&spoken.web, spoken.web.addr(port));
    }
    let config = |check: &str, identity: &str| {
        let settings = format!("{}\n{identity}", spoken.ca());
        "[global]\nworkers = 1\n".to_owned()
            + &spoken.one(8441, check, &settings)
            + &spoken.one(8442, check, &settings)
    };
    let own = |pki: &Pki| {
        format!(
            "cert = \"{}\"\nkey = \"{}\"",
            pki.path("convey.pem"),
            pki.path("convey.key")
        )
    };
    let convey = spoken
        .lab
        .convey(&spoken.lb, &config(FAST_CHECK, &own(&spoken.pki)));
    for port in [8441, 8442] {
        assert!(spoken.get(port).contains("s_server"), "{}", convey.stderr());
    }
    for identity in ["", &own(&other)] {
        convey.reload(&config(FAST_CHECK, identity));
        for name in ["p8441", "p8442"] {
            wait_until("its check is refused", PATIENCE, || {
                convey.server(name, "web").state == ServerState::Down
            });
            let reason = convey.server(name, "web").state_reason;
            let reason = reason.as_deref().unwrap_or_default();
            assert!(
                reason.contains("wants a certificate of convey's"),
                "{name}: {reason}"
            );
        }
    }
    convey.reload(&config(BLIND, &own(&other)));
    for port in [8441, 8442] {
        wait_until("it is up", PATIENCE, || {
            convey.server(&format!("p{port}"), "web").state == ServerState::Up
        });
        assert_eq!(spoken.get(port), "");
        let name = format!("p{port}");
        wait_until("it is counted", PATIENCE, || {
            failures(&convey, &name, "web", ServerTlsFailure::OurCertificate) >= 1
        });
    }
    logged(&convey, "server_tls_failure=our_certificate");
}

fn the_name_and_the_protocol_of_the_client_reach_the_server() {
    let spoken = Spoken::new("stlsnames");
    let _nginx = spoken.nginx(
        &spoken.web,
        &(spoken.site(8441, "web", "")
            + &spoken
                .site(8442, "web", "http2 on;")
                .replace("http2 on;", "")
                .replace("8442 ssl", "8442 ssl http2")),
        8442,
    );
    let ended = format!(
        "[frontends.p8441.tls]\ncertificates = [{{ cert = \"{0}\", key = \"{1}\" }}]\n\
         [frontends.p8442.tls]\ncertificates = [{{ cert = \"{0}\", key = \"{1}\" }}]\nalpn = [\"h2\", \"http/1.1\"]\n",
        spoken.pki.path("web.pem"),
        spoken.pki.path("web.key")
    );
    let settings = format!("ca = \"{}\"\nserver_name = \"client\"", spoken.pki.path("ca.pem"));
    let convey = spoken.convey(
        &(spoken.one(8441, FAST_CHECK, &settings) + &spoken.one(8442, FAST_CHECK, &settings) + &ended),
    );
    let get = |name: &str, port: u16, more: &str| {
        spoken
            .client
            .try_run(&format!(
                "curl -s --max-time {} --cacert {} --resolve {name}:{port}:{} https://{name}:{port}/ {more}",
                PATIENCE.as_secs(),
                spoken.pki.path("ca.pem"),
                spoken.lb.ip4()
            ))
            .stdout
    };
    for name in ["web.example", "b.example"] {
        assert_eq!(
            get(name, 8441, ""),
            format!("TLSv1.3 . {name} "),
            "{}",
            convey.stderr()
        );
    }
    assert_eq!(
        get("web.example", 8442, "-w ' %{http_version}'"),
        "TLSv1.3 . web.example  2"
    );
    assert_eq!(
        get("web.example", 8442, "--http1.1 -w ' %{http_version}'"),
        "TLSv1.3 r web.example  1.1"
    );
}

//! What `convey import` makes of HAProxy and nginx, held to the originals: one file runs in the original, then what becomes of it
//! in Convey, between the same servers and clients, and both do the same.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use convey::import::{InputFile, Kind, NoFiles, translate};

use crate::{
    Test,
    lab::{
        Convey, Host, Lab, PATIENCE, Process,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    haproxy_and_convey_share_out_refuse_and_fall_back_alike,
    haproxy_and_convey_lead_names_to_the_same_servers,
    haproxy_and_convey_tell_servers_the_same_of_the_client,
    nginx_and_convey_share_out_refuse_and_retry_alike,
    nginx_and_convey_lead_names_to_the_same_servers,
    nginx_and_convey_answer_datagrams_alike,
];

/// Where the original and Convey listen, one after the other.
const PORT: u16 = 80;

/// A client, another one, a load balancer, and a host of servers.
struct Site {
    client: Host,
    stranger: Host,
    lb: Host,
    host: Host,
    lab: Lab,
}

/// What balances: the original or Convey.
enum Balancer {
    Original { _process: Process },
    Convey { _convey: Convey },
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        Self {
            client: lab.host("client"),
            stranger: lab.host("stranger"),
            lb: lab.host("lb"),
            host: lab.host("servers"),
            lab,
        }
    }

    fn vip(&self) -> SocketAddr {
        self.lb.addr(PORT)
    }

    fn server(&self, name: &str, port: u16) -> TcpServer {
        TcpServer::witness(&self.host, self.host.addr(port), name)
    }

    /// The original with its file, listening.
    #[track_caller]
    fn original(&self, kind: Kind, text: &str) -> Balancer {
        let path = self.lb.path("original.conf");
        fs::write(&path, text).expect("a configuration");
        let path = path.display();
        let (check, run) = match kind {
            Kind::Nginx => {
                let place = self.lb.dir().display();
                (
                    format!("nginx -t -e stderr -p {place} -c {path}"),
                    format!("exec nginx -e stderr -p {place} -c {path}"),
                )
            }
            _ => (
                format!("haproxy -c -f {path}"),
                format!("exec haproxy -db -f {path}"),
            ),
        };
        self.lb.run(&check);
        let mut process = self.lb.start(&run);
        wait_until("the original listens", PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}\n{}", process.stderr());
            }
            let sockets = self.lb.run("ss -Hlntu");
            sockets.lines().any(|line| line.contains(&format!(":{PORT} ")))
        });
        Balancer::Original { _process: process }
    }

    /// Convey with what becomes of it. One worker, for the order of round robin is a worker's own.
    #[track_caller]
    fn convey(&self, kind: Kind, text: &str) -> Balancer {
        let imported = translate(
            kind,
            &InputFile::new("original.conf", text.as_bytes()),
            &mut NoFiles,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let config = format!("{}\n[global]\nworkers = 1\n", imported.text);
        Balancer::Convey {
            _convey: self.lab.convey(&self.lb, &config),
        }
    }

    /// What is observed of both, which must be the same.
    #[track_caller]
    fn alike<T: PartialEq + std::fmt::Debug>(&self, kind: Kind, text: &str, observe: impl Fn() -> T) -> T {
        let original = self.original(kind, text);
        let of_original = observe();
        drop(original);
        wait_until("the original has ended", PATIENCE, || {
            !self.lb.run("ss -Hlntu").contains(&format!(":{PORT} "))
        });
        let convey = self.convey(kind, text);
        let of_convey = observe();
        drop(convey);
        assert_eq!(of_original, of_convey, "the original, and Convey");
        of_original
    }

    /// The servers of so many connections, and how often each.
    #[track_caller]
    fn shares(&self, connections: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..connections {
            let met = Witness::meet(&self.client, self.vip()).expect("a server");
            *shares.entry(met.server).or_default() += 1;
        }
        shares
    }

    /// Waits until every one of five connections in a row comes to a server.
    #[track_caller]
    fn wait_for(&self, server: &str) {
        wait_until(server, PATIENCE, || {
            (0..5).all(|_| Witness::meet(&self.client, self.vip()).is_ok_and(|met| met.server == server))
        });
    }

    /// The server that a connection comes to that begins so; `None` if it is refused.
    fn after(&self, bytes: &[u8]) -> Option<String> {
        let mut stream = self.client.try_connect(self.vip()).ok()?;
        stream.write_all(bytes).ok()?;
        Witness::hear(stream).ok().map(|met| met.server)
    }
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let owned = shares.iter().map(|(name, count)| ((*name).to_owned(), *count));
    owned.collect()
}

/// A ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2) that asks for a name (RFC 6066, 3), or for none.
fn hello(name: &str) -> Vec<u8> {
    let two = |length: usize| u16::try_from(length).expect("a short one").to_be_bytes().to_vec();
    let mut extensions = Vec::new();
    if !name.is_empty() {
        let entry = [vec![0], two(name.len()), name.as_bytes().to_vec()].concat();
        let list = [two(entry.len()), entry].concat();
        extensions = [vec![0, 0], two(list.len()), list].concat();
    }
    // supported groups: x25519
    extensions.extend([0, 10, 0, 4, 0, 2, 0, 29]);
    let body = [
        vec![3, 3],
        vec![7; 32],
        vec![0],
        two(2),
        vec![0xc0, 0x2f],
        vec![1, 0],
        two(extensions.len()),
        extensions,
    ]
    .concat();
    let message = [vec![1, 0], two(body.len()), body].concat();
    [vec![22, 3, 1], two(message.len()), message].concat()
}

fn haproxy_and_convey_share_out_refuse_and_fall_back_alike() {
    let site = Site::new("import-haproxy");
    let _spare = site.server("spare", 9_003);
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1m\n  timeout server 1m\n\
         frontend web\n  bind {vip}\n  tcp-request connection reject if {{ src {stranger} }}\n  default_backend app\n\
         backend app\n  balance roundrobin\n  default-server check inter 200ms fall 2 rise 1\n  server a {ip}:9001 weight 3\n  \
         server b {ip}:9002\n  server spare {ip}:9003 backup\n",
        stranger = site.stranger.ip4()
    );
    let shares = site.alike(Kind::HaProxy, &text, || {
        let (a, b) = (site.server("a", 9_001), site.server("b", 9_002));
        // both may have been down when the checks began
        wait_until("a and b are used", PATIENCE, || {
            let shares = site.shares(4);
            shares.contains_key("a") && shares.contains_key("b")
        });
        let shares = site.shares(40);
        let stranger = Witness::meet(&site.stranger, vip).is_ok();
        drop((a, b));
        site.wait_for("spare");
        let back = site.server("b", 9_002);
        site.wait_for("b");
        drop(back);
        (shares, stranger)
    });
    assert_eq!(shares, (of(&[("a", 30), ("b", 10)]), false));
}

fn haproxy_and_convey_lead_names_to_the_same_servers() {
    let site = Site::new("import-haproxy-names");
    let _servers = [("a", 9_001), ("b", 9_002), ("c", 9_003)].map(|(name, port)| site.server(name, port));
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1m\n  timeout server 1m\n\
         frontend tls\n  bind {vip}\n  tcp-request inspect-delay 5s\n  tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
         acl is_b req.ssl_sni -i b.example\n  acl is_b req.ssl_sni -i -m end .b.example\n  \
         tcp-request content reject if {{ req.ssl_sni -i bad.example }}\n  \
         use_backend a if {{ req.ssl_sni -i a.example }}\n  use_backend b if is_b\n  \
         use_backend a if {{ req.ssl_sni -m reg ^a[0-9]+[.] }}\n  default_backend c\n\
         backend a\n  server a {ip}:9001\nbackend b\n  server b {ip}:9002\nbackend c\n  server c {ip}:9003\n"
    );
    let names = [
        "a.example",
        "A.Example",
        "b.example",
        "x.y.b.example",
        "a7.example",
        "other.example",
        "",
    ];
    let met = site.alike(Kind::HaProxy, &text, || {
        let by_name = names.map(|name| site.after(&hello(name)));
        (by_name, site.after(b"GET / HTTP/1.0\r\n\r\n"))
    });
    let some = |server: &str| Some(server.to_owned());
    let expected = [
        some("a"),
        some("a"),
        some("b"),
        some("b"),
        some("a"),
        some("c"),
        some("c"),
    ];
    assert_eq!(met, (expected, some("c")));
}

fn haproxy_and_convey_tell_servers_the_same_of_the_client() {
    let site = Site::new("import-haproxy-proxy");
    let _server = TcpServer::echo(&site.host, 9_001);
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "listen web\n  mode tcp\n  bind {vip}\n  timeout connect 1s\n  timeout client 1m\n  timeout server 1m\n  server a {ip}:9001 \
         send-proxy\n"
    );
    let header = site.alike(Kind::HaProxy, &text, || {
        let mut stream = site.client.connect(vip);
        let port = stream.local_addr().expect("an address").port().to_string();
        stream.write_all(b"x\n").expect("a byte");
        let mut back = Vec::new();
        let mut byte = [0];
        while back.iter().filter(|byte| **byte == b'\n').count() < 2 {
            stream.read_exact(&mut byte).expect("what the server got");
            back.push(byte[0]);
        }
        String::from_utf8_lossy(&back).replace(&port, "PORT")
    });
    let expected = format!(
        "PROXY TCP4 {} {} PORT {PORT}\r\nx\n",
        site.client.ip4(),
        site.lb.ip4()
    );
    assert_eq!(header, expected);
}

/// What nginx needs beside `stream`.
const NGINX: &str = "daemon off;\nmaster_process off;\npid nginx.pid;\nload_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
                     events { worker_connections 1000; }\n";

fn nginx_and_convey_share_out_refuse_and_retry_alike() {
    let site = Site::new("import-nginx");
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "{NGINX}stream {{\n  upstream app {{\n    server {ip}:9001 weight=3;\n    server {ip}:9002;\n    server {ip}:9003 backup;\n  \
         }}\n  server {{\n    listen {vip};\n    deny {stranger};\n    proxy_connect_timeout 1s;\n    proxy_pass app;\n  }}\n}}\n",
        stranger = site.stranger.ip4()
    );
    let met = site.alike(Kind::Nginx, &text, || {
        let (a, b) = (site.server("a", 9_001), site.server("b", 9_002));
        let _spare = site.server("spare", 9_003);
        let shares = site.shares(40);
        let stranger = Witness::meet(&site.stranger, vip).is_ok();
        drop(a);
        // each connection that meets the dead one is tried again elsewhere
        let without_a = site.shares(10);
        drop(b);
        site.wait_for("spare");
        (shares, stranger, without_a)
    });
    let expected = (of(&[("a", 30), ("b", 10)]), false, of(&[("b", 10)]));
    assert_eq!(met, expected);
}

fn nginx_and_convey_lead_names_to_the_same_servers() {
    let site = Site::new("import-nginx-names");
    let _servers = [("a", 9_001), ("b", 9_002), ("c", 9_003)].map(|(name, port)| site.server(name, port));
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "{NGINX}stream {{\n  map $ssl_preread_server_name $to {{\n    hostnames;\n    ~^a[0-9]+[.] a;\n    *.b.example b;\n    \
         x.b.example {ip}:9003;\n    a.example a;\n    default c;\n  }}\n  upstream a {{ server {ip}:9001; }}\n  upstream b {{ server \
         {ip}:9002; }}\n  upstream c {{ server {ip}:9003; }}\n  server {{\n    listen {vip};\n    ssl_preread on;\n    proxy_pass $to;\n  \
         }}\n}}\n"
    );
    let names = [
        "a.example",
        "y.b.example",
        "x.b.example",
        "b.example",
        "a7.example",
        "other.example",
        "",
    ];
    let met = site.alike(Kind::Nginx, &text, || {
        let by_name = names.map(|name| site.after(&hello(name)));
        (by_name, site.after(b"GET / HTTP/1.0\r\n\r\n"))
    });
    let some = |server: &str| Some(server.to_owned());
    let expected = [
        some("a"),
        some("b"),
        some("c"),
        some("c"),
        some("a"),
        some("c"),
        some("c"),
    ];
    assert_eq!(met, (expected, some("c")));
}

fn nginx_and_convey_answer_datagrams_alike() {
    let site = Site::new("import-nginx-udp");
    let _servers = [("a", 9_001), ("b", 9_002)]
        .map(|(name, port)| UdpServer::echo(&site.host, site.host.addr(port), name));
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "{NGINX}stream {{\n  upstream dns {{ server {ip}:9001 weight=2; server {ip}:9002; }}\n  server {{ listen {vip} udp; proxy_responses \
         1; proxy_pass dns; }}\n}}\n"
    );
    let shares = site.alike(Kind::Nginx, &text, || {
        let mut shares: BTreeMap<u8, usize> = BTreeMap::new();
        for _ in 0..9 {
            let client = UdpClient::new(&site.client, vip);
            let answer = client.ask(b"x").expect("an answer");
            *shares.entry(answer[0]).or_default() += 1;
        }
        shares
    });
    assert_eq!(shares, BTreeMap::from([(b'a', 6), (b'b', 3)]));
}

//! Packets get through by every way, to the right servers, unharmed.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Test,
    lab::{
        Nginx, PATIENCE, Process,
        checksums::Checksums,
        forge::ping,
        load::{Wrk, transfer},
        random_bytes,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{Mode, Plan, Port, Site, Transport, WAYS, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: a_dsr_server_sees_the_client_and_a_passthrough_server_the_load_balancer,
    Any: datagrams_come_back_and_their_senders_are_seen_likewise,
    Any: ten_mebibytes_arrive_unchanged_in_both_directions,
    Any: bulk_flows_in_both_directions,
    Any: many_short_connections_run_without_an_error,
    Any: a_dns_server_answers_over_udp_and_tcp,
    Any: ports_are_mapped,
    Any: weights_are_honoured,
    Any: a_flow_stays_with_its_server,
    Any: the_kernel_still_answers_pings_of_the_vip,
];

/// Witnesses on port 9 of every server, by both protocols.
const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn is_balancers(site: &Site, seen: SocketAddr) -> bool {
    let own = [IpAddr::V4(site.lb.ip4()), IpAddr::V6(site.lb.ip6())];
    own.contains(&seen.ip()) && (61_000..=65_535).contains(&seen.port())
}

fn a_dsr_server_sees_the_client_and_a_passthrough_server_the_load_balancer() {
    let site = Site::new("seen", 1);
    let server = &site.servers[0];
    let _witnesses = [9, 10].map(|last| {
        let addr = if last == 9 {
            server.addr(9)
        } else {
            server.addr6(9)
        };
        TcpServer::witness(server, addr, "a")
    });
    let _checksums = Checksums::of(site.hosts());
    let _balancer = site.balance(&Plan::new(&[WITNESS], &site.servers));
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let mut witness = Witness::meet(&site.client, to).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let own = witness.stream().local_addr().expect("an own address");
        match way.0 {
            Mode::Dsr => assert_eq!(witness.seen, own, "{way:?}"),
            Mode::Passthrough => assert!(is_balancers(&site, witness.seen), "{way:?}: {}", witness.seen),
        }
        witness.talk(&random_bytes(1, 5000)).expect("talk");
    }
}

fn datagrams_come_back_and_their_senders_are_seen_likewise() {
    let site = Site::new("udp", 1);
    let server = &site.servers[0];
    let servers = [server.addr(7), server.addr6(7)].map(|addr| UdpServer::echo(server, addr, ""));
    let _checksums = Checksums::of(site.hosts());
    let _balancer = site.balance(&Plan::new(&[ECHO], &site.servers));
    for way in WAYS {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        // an odd length has a padded checksum, a lone byte is shorter than Ethernet's minimum
        for len in [0, 1, 17, 512, 1400] {
            let datagram = random_bytes(len as u64, len);
            let back = client
                .ask(&datagram)
                .unwrap_or_else(|error| panic!("{way:?}, {len} bytes: {error}"));
            assert!(
                back == datagram,
                "{way:?}: {len} bytes came back as {}",
                back.len()
            );
        }
        let seen: Vec<SocketAddr> = servers
            .iter()
            .flat_map(|server| server.seen().senders.into_keys())
            .collect();
        match way.0 {
            Mode::Dsr => assert!(seen.contains(&client.own()), "{way:?}: {seen:?}"),
            Mode::Passthrough => {
                assert!(
                    !seen.is_empty() && seen.iter().all(|seen| is_balancers(&site, *seen)),
                    "{seen:?}"
                );
            }
        }
    }
}

fn ten_mebibytes_arrive_unchanged_in_both_directions() {
    let site = Site::new("bytes", 1);
    let web = Nginx::start(&site.servers[0], "a");
    let bytes = random_bytes(1, 10 << 20);
    fs::write(web.file("served"), &bytes).expect("a file to serve");
    let _checksums = Checksums::of(site.hosts());
    let port = Port::same("web", Transport::Tcp, 80);
    let _balancer = site.balance(&Plan::new(&[port], &site.servers));
    let here = site.client.path("here");
    for way in WAYS {
        let url = format!("http://{}/files", SocketAddr::new(vip(way), 80));
        let here = here.display();
        site.client
            .run(&format!("curl -sf --max-time 60 -o {here} {url}/served"));
        assert!(
            fs::read(site.client.path("here")).expect("the download") == bytes,
            "{way:?}: the download differs"
        );
        site.client
            .run(&format!("curl -sf --max-time 60 -T {here} {url}/uploaded"));
        assert!(
            fs::read(web.file("uploaded")).expect("the upload") == bytes,
            "{way:?}: the upload differs"
        );
        fs::remove_file(web.file("uploaded")).expect("room for the next");
    }
}

fn bulk_flows_in_both_directions() {
    let site = Site::new("bulk", 1);
    let server = &site.servers[0];
    let _iperf3 = server.start("exec iperf3 -s -p 5201");
    let _checksums = Checksums::of(site.hosts());
    let port = Port::same("bulk", Transport::Tcp, 5201);
    let _balancer = site.balance(&Plan::new(&[port], &site.servers));
    for way in WAYS {
        for reverse in [false, true] {
            // it stops listening for a moment after each client
            wait_until("iperf3 listens and has let its last client go", PATIENCE, || {
                let sockets = server.run("ss -Htan sport = :5201");
                sockets.contains("LISTEN") && !sockets.contains("ESTAB")
            });
            let bytes = transfer(&site.client, SocketAddr::new(vip(way), 5201), 100, reverse);
            assert!(
                bytes >= 50 << 20,
                "{way:?}: only {bytes} bytes, reverse: {reverse}"
            );
        }
    }
}

fn many_short_connections_run_without_an_error() {
    let site = Site::new("short", 2);
    let _webs: Vec<Nginx> = site.servers.iter().map(|host| Nginx::start(host, "ok")).collect();
    let _checksums = Checksums::of(site.hosts());
    let port = Port::same("web", Transport::Tcp, 80);
    let _balancer = site.balance(&Plan::new(&[port], &site.servers));
    for way in WAYS {
        let url = format!("http://{}/", SocketAddr::new(vip(way), 80));
        let mut requests = 0;
        wait_until("a thousand requests", PATIENCE, || {
            let report = Wrk::start(&site.client, &url, 32, 1, true).finish();
            assert_eq!(report.errors, 0, "{way:?}\n{}", report.text);
            requests += report.requests;
            requests > 1000
        });
    }
}

fn a_dns_server_answers_over_udp_and_tcp() {
    let site = Site::new("dns", 1);
    let server = &site.servers[0];
    let _dnsmasq: Process = server.start(
        "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --no-daemon --port=53 \
         --address=/lab.example/192.0.2.7 --txt-record=long.example,\"$(head -c 200 /dev/zero | tr '\\0' x)\"",
    );
    wait_until("dnsmasq listens", PATIENCE, || {
        server.run("ss -Hltn sport = :53").contains("LISTEN")
    });
    let _checksums = Checksums::of(site.hosts());
    let ports = [
        Port::same("dns", Transport::Udp, 53),
        Port::same("dns-tcp", Transport::Tcp, 53),
    ];
    let _balancer = site.balance(&Plan::new(&ports, &site.servers));
    for way in WAYS {
        for tcp in ["+notcp", "+tcp"] {
            let dig = |question: &str| {
                let at = vip(way);
                site.client
                    .run(&format!("dig +short +time=60 +tries=1 {tcp} @{at} {question}"))
            };
            assert_eq!(dig("lab.example A").trim(), "192.0.2.7", "{way:?} {tcp}");
            assert!(
                dig("long.example TXT").contains(&"x".repeat(200)),
                "{way:?} {tcp}"
            );
        }
    }
}

fn ports_are_mapped() {
    let site = Site::new("ports", 1);
    let server = &site.servers[0];
    let _web = Nginx::start(server, "mapped");
    let _echoes = [server.addr(7777), server.addr6(7777)].map(|addr| UdpServer::echo(server, addr, ""));
    let _checksums = Checksums::of(site.hosts());
    let ports = [
        Port {
            name: "web",
            transport: Transport::Tcp,
            port: 8000,
            target: 80,
        },
        Port {
            name: "echo",
            transport: Transport::Udp,
            port: 7,
            target: 7777,
        },
    ];
    let _balancer = site.balance(&Plan::new(&ports, &site.servers));
    for way in WAYS {
        let url = format!("http://{}/", SocketAddr::new(vip(way), 8000));
        let answer = site.client.run(&format!("curl -s --max-time 60 {url}"));
        assert_eq!(answer, "mapped", "{way:?}");
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        assert_eq!(client.ask(b"here").expect("an echo"), b"here", "{way:?}");
    }
}

fn weights_are_honoured() {
    let site = Site::new("weight", 3);
    let _echoes: Vec<UdpServer> = site
        .servers
        .iter()
        .flat_map(|host| [host.addr(7), host.addr6(7)].map(|addr| UdpServer::echo(host, addr, host.name())))
        .collect();
    let mut plan = Plan::new(&[ECHO], &site.servers);
    for (server, weight) in plan.servers.iter_mut().zip([5, 1, 0]) {
        server.1 = weight;
    }
    let _balancer = site.balance(&plan);
    for way in WAYS {
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..600 {
            let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
            let answer = client
                .ask(b"?")
                .unwrap_or_else(|error| panic!("{way:?}: {error}"));
            *answers
                .entry(String::from_utf8_lossy(&answer).into_owned())
                .or_default() += 1;
        }
        // 500 of 600 expected; five standard deviations of a fair choice are 46
        let a = answers.get("a:?").copied().unwrap_or(0);
        let b = answers.get("b:?").copied().unwrap_or(0);
        assert!((450..=550).contains(&a) && a + b == 600, "{way:?}: {answers:?}");
    }
}

fn a_flow_stays_with_its_server() {
    let site = Site::new("stays", 3);
    let _echoes: Vec<UdpServer> = site
        .servers
        .iter()
        .flat_map(|host| [host.addr(7), host.addr6(7)].map(|addr| UdpServer::echo(host, addr, host.name())))
        .collect();
    let _balancer = site.balance(&Plan::new(&[ECHO], &site.servers));
    for way in WAYS {
        for _ in 0..20 {
            let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
            let first = client
                .ask(b"?")
                .unwrap_or_else(|error| panic!("{way:?}: {error}"));
            for _ in 0..5 {
                assert_eq!(client.ask(b"?").expect("an answer"), first, "{way:?}");
            }
        }
    }
}

fn the_kernel_still_answers_pings_of_the_vip() {
    let site = Site::new("echoes", 1);
    let _balancer = site.balance(&Plan::new(&[ECHO, WITNESS], &site.servers));
    for way in WAYS {
        assert!(ping(&site.client, vip(way)), "{way:?}");
    }
}

//! The configuration changes while packets flow.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{
        Family, Nginx, PATIENCE,
        load::Wrk,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    process::rules,
    site::{Plan, Port, Site, Transport, WAYS, Way, vip},
    talkers::Talkers,
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: two_hundred_reloads_under_load_break_no_flow,
    Any: a_change_of_frontends_loses_and_doubles_no_packet_of_the_others,
    Convey: a_reload_adds_a_frontend_and_a_server,
    Convey: a_reload_that_fails_changes_nothing,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const OTHER: Port = Port::same("other", Transport::Tcp, 99);
const WEB: Port = Port::same("web", Transport::Tcp, 80);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn two_hundred_reloads_under_load_break_no_flow() {
    let site = Site::new("reloads", 3);
    let _witnesses = witnesses(&site);
    let _webs: Vec<Nginx> = site.servers.iter().map(|host| Nginx::start(host, "ok")).collect();
    let ways = [WAYS[0], WAYS[2]];
    let one = Plan::new(&[WITNESS, WEB], &site.servers).by(&ways);
    let mut two = Plan::new(&[WITNESS, WEB, OTHER], &site.servers).by(&ways);
    two.servers.pop();
    let convey = site.convey(&one);
    let to = ways.map(|way| SocketAddr::new(vip(way), 9));
    let talkers = Talkers::start(&site.client, &to, 10);
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let load = |way: Way| {
        let url = format!("http://{}/", SocketAddr::new(vip(way), 80));
        while !stop.load(Ordering::Relaxed) {
            let report = Wrk::start(&site.client, &url, 4, 2, true).finish();
            assert_eq!(report.errors, 0, "{way:?}: {}", report.text);
        }
    };
    thread::scope(|scope| {
        let load = &load;
        let loads = ways.map(|way| scope.spawn(move || load(way)));
        for turn in 0..200 {
            convey.reload(&if turn % 2 == 0 { &two } else { &one }.config());
        }
        eprintln!("200 reloads in {:.1?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert_eq!(convey.status().config_generation, 201);
    talkers.expect_unbroken();
}

fn a_change_of_frontends_loses_and_doubles_no_packet_of_the_others() {
    let site = Site::new("counted", 1);
    let server = &site.servers[0];
    let echoes = [server.addr(7), server.addr6(7)].map(|addr| UdpServer::echo(server, addr, ""));
    let one = Plan::new(&[ECHO], &site.servers);
    let two = Plan::new(&[ECHO, OTHER, WEB], &site.servers);
    let balancer = site.balance(&one);
    let stop = AtomicBool::new(false);
    let clients = WAYS.map(|way| UdpClient::new(&site.client, SocketAddr::new(vip(way), 7)));
    for client in &clients {
        client.ask(&u64::MAX.to_le_bytes()).expect("a first answer");
    }
    // one steady stream of numbers by each way, each number once
    let sent = WAYS.map(|_| AtomicU64::new(0));
    thread::scope(|scope| {
        for (way, (client, sent)) in clients.iter().zip(&sent).enumerate() {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..2 {
                        let number = (way as u64) << 32 | sent.fetch_add(1, Ordering::Relaxed);
                        client.socket().send(&number.to_le_bytes()).expect("send");
                    }
                    thread::sleep(Duration::from_millis(4));
                }
            });
        }
        for turn in 0..20 {
            balancer.change(if turn % 2 == 0 { &two } else { &one });
            let before = sent.each_ref().map(|sent| sent.load(Ordering::Relaxed));
            wait_until("every stream goes on", PATIENCE, || {
                (sent.iter().zip(before)).all(|(sent, before)| sent.load(Ordering::Relaxed) > before + 25)
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (way, sent) in sent.into_iter().enumerate() {
        let sent = sent.into_inner();
        let echo = &echoes[usize::from(WAYS[way].1 == Family::V6)];
        // what was sent before the last one has arrived when it has, or never will
        let last = u64::MAX - 1 - way as u64;
        let mark = clients[way].socket();
        wait_until("the last one arrives", PATIENCE, || {
            mark.send(&last.to_le_bytes()).expect("send");
            echo.seen().numbers.contains_key(&last)
        });
        let seen = echo.seen();
        let first = (way as u64) << 32;
        let missing: Vec<u64> = (first..first + sent)
            .filter(|number| !seen.numbers.contains_key(number))
            .collect();
        let doubled: Vec<_> = seen
            .numbers
            .range(first..first + sent)
            .filter(|(_, count)| **count > 1)
            .collect();
        assert!(
            missing.is_empty(),
            "{:?}: lost {} of {sent}",
            WAYS[way],
            missing.len()
        );
        assert!(
            doubled.is_empty(),
            "{:?}: {} of {sent} came twice",
            WAYS[way],
            doubled.len()
        );
        assert!(sent > 500, "{:?}: only {sent} were sent", WAYS[way]);
    }
}

fn a_reload_adds_a_frontend_and_a_server() {
    let site = Site::new("adds", 2);
    let _others: Vec<TcpServer> = site
        .servers
        .iter()
        .flat_map(|host| {
            Family::ALL.map(|family| TcpServer::witness(host, host.addr_of(family, 99), host.name()))
        })
        .collect();
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    let grown = Plan::new(&[WITNESS, OTHER], &site.servers);
    plan.servers.pop();
    site.prepare_servers(&grown);
    let convey = site.convey(&plan);
    site.prepare_servers(&grown);
    convey.reload(&grown.config());
    for way in WAYS {
        let mut servers: Vec<String> = (0..32)
            .map(|_| {
                Witness::meet(&site.client, SocketAddr::new(vip(way), 99))
                    .unwrap_or_else(|error| panic!("{way:?}: {error}"))
                    .server
            })
            .collect();
        servers.sort();
        servers.dedup();
        assert_eq!(servers, ["a", "b"], "{way:?}");
    }
}

fn a_reload_that_fails_changes_nothing() {
    let site = Site::new("badreload", 1);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers);
    let convey = site.convey(&plan);
    let talkers = Talkers::start(&site.client, &everywhere(), 3);
    let before = rules(&site.lb);
    for wrong in [
        plan.config()
            .replace("dsr_method = \"nft\"", "dsr_method = \"magic\""),
        plan.config().replace("[packet]", "[packet]\nmax_flows = 1"),
    ] {
        convey.write_config(&wrong);
        let output = convey.cli("reload");
        assert_eq!(output.status.code(), Some(78), "{output:?}");
    }
    assert_eq!(rules(&site.lb), before);
    talkers.expect_unbroken();
    for to in everywhere() {
        Witness::meet(&site.client, to).expect("new ones too");
    }
}

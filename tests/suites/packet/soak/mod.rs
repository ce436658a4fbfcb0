//! Everything at once, in an order that nobody thought of: clients of all modes and both families, near and behind a router,
//! while servers die and are drained, configurations are reloaded, rules are flushed, the router changes, and somebody who
//! is no party forges segments. What broke must be explained by what was done to it.
//!
//! A minute here; `CONVEY_SOAK_SECONDS=1800` for longer, `CONVEY_SOAK_SEED=N` to play the same events in the same order again.

mod clients;
mod events;
mod mortal;
mod random;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Test,
    lab::{Convey, Family, Host, PATIENCE, udp::UdpServer, wait_until},
    networks::Behind,
    site::{BLIND, Plan, Port, Transport, WAYS, backend_name, vip},
    tests,
};
use clients::{Clients, Outcome};
use events::{Done, Events};
use mortal::Mortal;
use random::Random;

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: whatever_happens_nothing_leaks_and_every_broken_connection_is_explained,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const OTHER: Port = Port::same("other", Transport::Tcp, 99);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);
const SERVERS: usize = 3;
/// Flows go soon, so that the end can be waited for.
const IDLE: &str = "5s";
/// A server that dies is noticed at once, one that is slow because the machine is busy is not taken for dead.
const CHECK: &str =
    r#"health_check = { interval = "300ms", fast_interval = "100ms", timeout = "20s", rise = 1, fall = 3 }"#;
/// Descriptors beside those of the start: health checks under way, and who asks for the status.
const FEW: usize = 12;
/// What the memory of the daemon may grow by after the first part, in bytes: caches of the allocator.
const SLACK: u64 = 8 << 20;

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn whatever_happens_nothing_leaks_and_every_broken_connection_is_explained() {
    let time = Duration::from_secs(setting("CONVEY_SOAK_SECONDS", 60));
    let seed = setting("CONVEY_SOAK_SEED", u64::from(std::process::id()));
    eprintln!("soak: CONVEY_SOAK_SEED={seed}, {time:?}");
    let behind = Behind::with_servers("soak", 1, SERVERS);
    let site = &behind.site;
    let mut mortals: Vec<Mortal> = site
        .servers
        .iter()
        .map(|host| Mortal::new(host, WITNESS.port))
        .collect();
    let _echoes: Vec<UdpServer> = (site.servers.iter())
        .flat_map(|host| Family::ALL.map(|family| UdpServer::echo(host, host.addr_of(family, ECHO.port), "")))
        .collect();
    for server in &site.servers {
        // what they answer directly goes by the router, too
        behind.lead_back(server);
    }
    site.prepare_servers(&plan(&behind, &[WITNESS, ECHO], BLIND));
    let convey = site.lab.convey(&site.lb, &config(&behind, 1, false));
    let at_rest = descriptors(&convey);
    let to = addresses(&site.lb);
    let mut random = Random::new(seed);
    let clients = Clients::start(&[&site.client, &behind.far], &to, &mut random);
    let (mut events, start) = (Events::new(&behind, &convey), Instant::now());
    let mut settled = None;
    while start.elapsed() < time {
        events.next(&mut random, &mut mortals, &clients);
        if settled.is_none() && start.elapsed() > time / 4 {
            settled = Some(convey.private_memory());
        }
    }
    events.calm(&mut mortals);
    // at peace everybody is served again
    clients.wait_round();
    let outcomes = clients.stop();
    report(&outcomes, &clients, &events.done, start);
    for outcome in &outcomes {
        assert!(
            events.done.iter().any(|done| done.explains(outcome)),
            "nothing explains {outcome:?} (CONVEY_SOAK_SEED={seed})\n{}\n{}",
            events.around(outcome, start),
            log_around(&convey, outcome)
        );
    }
    expect_counters_to_add_up(&convey, &clients);
    expect_nothing_left(&convey, settled.unwrap_or_default(), at_rest);
}

/// In proxy mode the load balancer listens at its own addresses.
fn addresses(lb: &Host) -> Vec<SocketAddr> {
    let own = Family::ALL.map(|family| lb.addr_of(family, WITNESS.port));
    let vips = WAYS.map(|way| SocketAddr::new(vip(way), WITNESS.port));
    own.into_iter().chain(vips).collect()
}

/// Of these ports, with this health check.
fn plan(behind: &Behind, ports: &[Port], backend: &str) -> Plan {
    let mut plan = Plan::new(ports, &behind.site.servers);
    plan.passthrough = format!("idle_timeout = \"{IDLE}\"");
    plan.backend = backend.to_owned();
    plan
}

/// With the last server of this weight, and with or without frontends that nobody uses.
fn config(behind: &Behind, weight: u32, has_others: bool) -> String {
    let mut checked = plan(behind, &[WITNESS], CHECK);
    checked.servers[SERVERS - 1].1 = weight;
    if has_others {
        checked.ports.push(OTHER);
    }
    let blind = plan(behind, &[ECHO], BLIND).config();
    let (_, echoes) = blind.split_once("[frontends.").expect("frontends");
    let mut text = format!("{}[frontends.{echoes}", checked.config());
    for family in Family::ALL {
        let (lb, backend) = (&behind.site.lb, backend_name(WITNESS.name, family));
        text += &format!(
            "[frontends.proxied-{backend}]\nlisten_addr = \"{}\"\nbackend = \"{backend}\"\n",
            lb.addr_of(family, WITNESS.port),
        );
    }
    text
}

/// What the log says of the seconds before a connection was seen to have failed.
fn log_around(convey: &Convey, outcome: &Outcome) -> String {
    let ago = |seconds: u64| {
        let at = SystemTime::now() - outcome.until.elapsed() - Duration::from_secs(seconds);
        humantime(at)
    };
    let (from, until) = (ago(4), ago(0));
    let log = convey.stderr();
    let lines = log.lines().filter(|line| {
        let second = line.get(..19).unwrap_or_default();
        (from.as_str()..=until.as_str()).contains(&second)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A moment as the log writes it, to the second.
fn humantime(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let date = Command::new("date")
        .args(["-u", &format!("-d@{seconds}"), "+%FT%T"])
        .output();
    String::from_utf8_lossy(&date.expect("date(1)").stdout)
        .trim()
        .to_owned()
}

fn report(broken: &[Outcome], clients: &Clients, done: &[Done], start: Instant) {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for one in done {
        *kinds.entry(one.label()).or_default() += 1;
    }
    let made: u64 = clients.counts().values().map(|count| count.connected).sum();
    eprintln!(
        "soak: {:.0?}, {kinds:?}; {made} connections served, {} broken or refused",
        start.elapsed(),
        broken.len()
    );
    assert_eq!(kinds.len(), Done::KINDS, "something of each kind was done");
}

/// What each frontend has counted is what clients saw: a connection that was refused may count or not.
fn expect_counters_to_add_up(convey: &Convey, clients: &Clients) {
    wait_until("every connection has ended", PATIENCE, || {
        let status = convey.status();
        status
            .frontends
            .values()
            .all(|frontend| frontend.traffic.connections_current == 0)
    });
    let status = convey.status();
    for (to, count) in clients.counts() {
        let mut found = status.frontends.values().filter(|frontend| {
            let serves = |ip: IpAddr| {
                frontend
                    .listen
                    .iter()
                    .any(|listen| listen.to_string() == SocketAddr::new(ip, to.port()).to_string())
            };
            serves(to.ip())
        });
        let traffic = &found.next().expect("its frontend").traffic;
        let range = count.connected..=count.connected + count.failed;
        assert!(
            range.contains(&traffic.connections_total),
            "{to}: {} connections counted, {range:?} made",
            traffic.connections_total
        );
    }
}

fn expect_nothing_left(convey: &Convey, settled: u64, at_rest: usize) {
    let flows = || convey.status_json()["packet"]["flows"].clone();
    wait_until("no flow is left", PATIENCE, || {
        let flows = flows();
        flows["nat"] == 0 && flows["dsr"] == 0 && flows["half_open"] == 0
    });
    let status = convey.status();
    for (name, backend) in &status.backends {
        for (server, view) in &backend.servers {
            let claimed = view.packet.as_ref().and_then(|packet| packet.nat_ports);
            assert_eq!(
                claimed.map_or(0, |ports| ports.claimed),
                0,
                "NAT ports of {name}/{server}"
            );
        }
    }
    let memory = convey.private_memory();
    eprintln!(
        "soak: {} KiB after a quarter, {} KiB at the end",
        settled >> 10,
        memory >> 10
    );
    assert!(memory <= settled + SLACK, "{settled} bytes became {memory}");
    wait_until("as few descriptors are open as at the start", PATIENCE, || {
        descriptors(convey) <= at_rest + FEW
    });
    let log = convey.stderr();
    assert!(!log.contains("panicked"), "{log}");
}

/// Open descriptors of the daemon.
fn descriptors(convey: &Convey) -> usize {
    fs::read_dir(format!("/proc/{}/fd", convey.pid()))
        .expect("its descriptors")
        .count()
}

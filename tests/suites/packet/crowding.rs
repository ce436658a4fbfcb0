//! Forged clients crowd nobody out: what is half-open gives its NAT port up first.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{
    Test,
    kept::witnesses,
    lab::{
        Family, Host, PATIENCE,
        forge::{Forger, SYN, nobodies},
        servers::Witness,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{PASSTHROUGH, Plan, Port, Site, Transport, eventually, vip},
    talkers::Talkers,
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: forged_syns_keep_no_honest_client_out,
    Convey: a_flood_of_forged_syns_keeps_no_honest_client_out,
    Convey: forged_questions_that_a_server_answers_keep_no_honest_client_out,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);
/// Few enough for an attacker to take them all in a second.
const FEW: &str = "61000-61127";
const FEW_COUNT: u64 = 128;
/// Time between two packets of each family: 300 in a second.
const PACE: Duration = Duration::from_micros(3_300);

/// An attack that goes on until it is dropped, also when the test fails.
struct Attack<'a> {
    is_over: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl Attack<'_> {
    /// Waits until so many packets more have been sent.
    #[track_caller]
    fn wait(&self, packets: u64) {
        let until = self.sent.load(Ordering::Relaxed) + packets;
        wait_until("the attack goes on", PATIENCE, || {
            self.sent.load(Ordering::Relaxed) >= until
        });
    }
}

impl Drop for Attack<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Runs `defence` while `strike` is called again and again; it gives how many packets it has sent.
fn under_attack(mut strike: impl FnMut() -> u64 + Send, defence: impl FnOnce(&Attack)) {
    let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                sent.fetch_add(strike(), Ordering::Relaxed);
            }
        });
        let attack = Attack {
            is_over: &is_over,
            sent: &sent,
        };
        defence(&attack);
    });
}

fn forged_syns_keep_no_honest_client_out() {
    let site = Site::new("syns", 1);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
    plan.nat_ports = FEW;
    let convey = site.convey(&plan);
    let to = PASSTHROUGH.map(|way| SocketAddr::new(vip(way), 9));
    let talkers = Talkers::start(&site.client, &to, 3);
    let forger = Forger::new(&site.lab.host("attacker"));
    let mut crowds = Family::ALL.map(|family| nobodies(family, 7));
    let strike = || {
        for (crowd, to) in crowds.iter_mut().zip(to) {
            let from = crowd.next().expect("one more");
            forger.tcp(from, to, SYN, u32::from(from.port()), 0);
        }
        thread::sleep(PACE);
        2
    };
    under_attack(strike, |attack| {
        // every port of both families was asked for twice
        attack.wait(2 * 2 * FEW_COUNT);
        let mut met = Vec::new();
        for turn in 0..10 {
            for to in to {
                let witness = Witness::meet(&site.client, to)
                    .unwrap_or_else(|error| panic!("client {turn} of {to}: {error}"));
                met.push((to, witness));
            }
        }
        attack.wait(2 * FEW_COUNT);
        for (to, witness) in &mut met {
            witness
                .talk(b"still here")
                .unwrap_or_else(|error| panic!("{to}: {error}"));
        }
        talkers.expect_unbroken();
        let flows = told::flows(&convey);
        assert!(flows > FEW_COUNT, "the attack held ports: {flows} flows");
    });
}

fn a_flood_of_forged_syns_keeps_no_honest_client_out() {
    // as fast as the lab sends, with pauses: what is lost before it is received says nothing about ports
    const BURST: u32 = 1_000;
    const PAUSE: Duration = Duration::from_millis(100);
    let site = Site::new("fastest", 1);
    let _witnesses = witnesses(&site);
    let _convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
    let to = PASSTHROUGH.map(|way| SocketAddr::new(vip(way), 9));
    let talkers = Talkers::start(&site.client, &to, 5);
    let forger = Forger::new(&site.lab.host("attacker"));
    let strike = || {
        forger.flood(to[0], BURST);
        thread::sleep(PAUSE);
        u64::from(BURST)
    };
    under_attack(strike, |attack| {
        // more than twice all ports
        attack.wait(10_000);
        for turn in 0..5 {
            for to in to {
                // a flood may slow them down, and cost one a try
                let mut witness = eventually(&format!("client {turn} of {to}"), || {
                    Witness::meet(&site.client, to)
                });
                witness
                    .talk(b"here")
                    .unwrap_or_else(|error| panic!("client {turn} of {to}: {error}"));
            }
        }
        talkers.expect_unbroken();
        eprintln!("a flood of {} SYNs", attack.sent.load(Ordering::Relaxed));
    });
}

fn forged_questions_that_a_server_answers_keep_no_honest_client_out() {
    let site = Site::new("questions", 1);
    let server = &site.servers[0];
    let _echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
    let mut plan = Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH);
    plan.nat_ports = FEW;
    let convey = site.convey(&plan);
    let to = PASSTHROUGH.map(|way| SocketAddr::new(vip(way), 7));
    let established = to.map(|to| {
        let client = UdpClient::new(&site.client, to);
        for _ in 0..3 {
            client.ask(b"mine").expect("an answer");
        }
        let flow = told::flow(&convey, client.own()).expect("a flow");
        (client, flow)
    });
    let forger = Forger::new(&site.lab.host("attacker"));
    let mut crowds = Family::ALL.map(|family| nobodies(family, 8));
    let strike = || {
        for (crowd, to) in crowds.iter_mut().zip(to) {
            forger.udp(crowd.next().expect("one more"), to, b"forged");
        }
        thread::sleep(PACE);
        2
    };
    under_attack(strike, |attack| {
        attack.wait(2 * 2 * FEW_COUNT);
        for to in to {
            for turn in 0..5 {
                asks_until_answered(&site.client, to, turn);
            }
        }
        attack.wait(2 * FEW_COUNT);
        for (client, flow) in &established {
            assert_eq!(client.ask(b"mine").expect("an answer"), b"mine");
            let still = told::flow(&convey, client.own());
            assert_eq!(still.as_ref(), Some(flow), "it has its port still");
        }
    });
}

/// A client that asks again when no answer comes, as resolvers do.
#[track_caller]
fn asks_until_answered(client: &Host, to: SocketAddr, turn: usize) {
    let socket: UdpSocket = UdpClient::new(client, to).socket().try_clone().expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a time-out");
    let mut buffer = [0; 16];
    let len = eventually(&format!("client {turn} of {to} is answered"), || {
        socket.send(b"honest")?;
        socket.recv(&mut buffer)
    });
    assert_eq!(&buffer[..len], b"honest");
}

//! Somebody who knows every address and port and sees no packet ends, moves and diverts no flow.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use convey::base::PacketReason;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, PATIENCE,
        forge::{ACK, FIN, Forger, RST, SYN, guesses},
        random_bytes,
        servers::{Gate, TcpServer, Witness, abort},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    networks::TwoNetworks,
    site::{PASSTHROUGH, Plan, Port, Site, Transport, Way, vip},
    talkers::Talkers,
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: guessed_resets_and_fins_end_no_flow,
    Any: a_syn_behind_a_guessed_reset_begins_nothing_anew,
    Convey: a_reset_of_either_side_ends_a_flow_and_frees_its_port,
    Any: resets_from_the_servers_addresses_on_the_clients_network_end_nothing,
    Convey: a_servers_packet_on_the_clients_network_is_refused,
    Convey: answers_by_another_interface_count_only_if_the_file_says_so,
    Any: a_strangers_segments_divert_no_answers,
    Any: a_strangers_datagrams_divert_no_answers,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn own(witness: &Witness) -> SocketAddr {
    witness.stream().local_addr().expect("an own address")
}

/// One idle connection by every way, of a site with one server.
fn idle(site: &Site) -> Vec<(Way, Witness)> {
    PASSTHROUGH
        .into_iter()
        .map(|way| {
            let met = Witness::meet(&site.client, SocketAddr::new(vip(way), 9));
            (way, met.unwrap_or_else(|error| panic!("{way:?}: {error}")))
        })
        .collect()
}

fn witnesses(site: &Site) -> Vec<TcpServer> {
    crate::kept::witnesses(site)
}

fn guessed_resets_and_fins_end_no_flow() {
    const GUESSES: usize = 500;
    let site = Site::new("guessed", 1);
    let _witnesses = witnesses(&site);
    let balancer = site.balance(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
    let forger = Forger::new(&site.lab.host("liar"));
    let mut idle = idle(&site);
    for (way, witness) in &idle {
        let (client, vip) = (own(witness), SocketAddr::new(vip(*way), 9));
        let server = site.servers[0].addr_of(way.1, 9);
        for (number, guess) in guesses(1, GUESSES).into_iter().enumerate() {
            let (flags, ack) = [(RST, 0), (RST | ACK, !guess), (FIN | ACK, !guess)][number % 3];
            forger.tcp(client, vip, flags, guess, ack);
            forger.tcp(server, witness.seen, flags, guess, ack);
        }
    }
    if let Some(convey) = balancer.convey() {
        outlive_a_reset_flow(&site, convey, idle.len() as u64);
    }
    for (way, witness) in &mut idle {
        witness
            .talk(b"alive")
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

/// Waits until a connection that ends by its client's own RST now has been forgotten: whatever ended before it is
/// forgotten too, and `idle` flows are left.
#[track_caller]
fn outlive_a_reset_flow(site: &Site, convey: &Convey, idle: u64) {
    let mayfly = Witness::meet(&site.client, SocketAddr::new(vip(PASSTHROUGH[0]), 9)).expect("a meeting");
    let client = own(&mayfly);
    mayfly.reset();
    wait_until("a reset flow is forgotten", PATIENCE, || {
        told::flow(convey, client).is_none() && told::flows(convey) <= idle
    });
    assert_eq!(told::flows(convey), idle, "idle flows");
}

fn a_syn_behind_a_guessed_reset_begins_nothing_anew() {
    let site = Site::new("anew", 1);
    let _witnesses = witnesses(&site);
    let balancer = site.balance(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
    let forger = Forger::new(&site.lab.host("liar"));
    let mut idle = idle(&site);
    for turn in 0..20 {
        for (way, witness) in &mut idle {
            let (client, vip) = (own(witness), SocketAddr::new(vip(*way), 9));
            let server = site.servers[0].addr_of(way.1, 9);
            for guess in guesses(turn, 5) {
                forger.tcp(client, vip, RST, guess, 0);
                forger.tcp(client, vip, SYN, !guess, 0);
                forger.tcp(server, witness.seen, RST | ACK, guess, !guess);
                forger.tcp(client, vip, SYN, guess.rotate_left(7), 0);
            }
            witness
                .talk(b"alive")
                .unwrap_or_else(|error| panic!("{way:?}, turn {turn}: {error}"));
        }
    }
    if let Some(convey) = balancer.convey() {
        for (way, witness) in &idle {
            let flow = told::flow(convey, own(witness));
            let expected = Some(("established".to_owned(), witness.seen));
            assert_eq!(flow, expected, "{way:?}: it has its port still");
        }
    }
}

pub fn a_reset_of_either_side_ends_a_flow_and_frees_its_port() {
    let site = Site::new("exact", 1);
    let server = &site.servers[0];
    let _witnesses = witnesses(&site);
    // greets, and resets when it hears something
    let _resetting = Family::ALL.map(|family| {
        TcpServer::start_at(server, server.addr_of(family, 99), |mut stream| {
            stream.read_exact(&mut [0])?;
            abort(stream);
            Ok(())
        })
    });
    let mut plan = Plan::new(
        &[WITNESS, Port::same("resetting", Transport::Tcp, 99)],
        &site.servers,
    )
    .by(&PASSTHROUGH);
    // the next connection needs the port of the last one
    plan.nat_ports = "61000-61000";
    let convey = site.convey(&plan);
    let ended = |client| {
        wait_until("the flow is over", PATIENCE, || {
            told::flow(&convey, client).is_none_or(|(state, _)| state != "established")
        });
    };
    for way in PASSTHROUGH {
        for turn in 0..4 {
            let witness = Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
                .unwrap_or_else(|error| panic!("{way:?}, turn {turn}: {error}"));
            let client = own(&witness);
            witness.reset();
            ended(client);
        }
        for turn in 0..4 {
            let mut stream: TcpStream = site
                .client
                .try_connect(SocketAddr::new(vip(way), 99))
                .unwrap_or_else(|error| panic!("{way:?}, turn {turn}: {error}"));
            let client = stream.local_addr().expect("an own address");
            std::io::Write::write_all(&mut stream, b"x").expect("send");
            let end = stream.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{way:?}");
            ended(client);
        }
    }
    assert_eq!(
        told::packets(&convey, PacketReason::PortsExhausted),
        0,
        "no SYN came too early"
    );
}

fn resets_from_the_servers_addresses_on_the_clients_network_end_nothing() {
    let networks = TwoNetworks::new("fromserver", 2);
    let site = &networks.site;
    let _witnesses = witnesses(site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
    plan.nat_ports = "61000-61127";
    let balancer = site.balance(&plan);
    let to = PASSTHROUGH.map(|way| SocketAddr::new(vip(way), 9));
    let talkers = Talkers::start(&site.client, &to, 4);
    let mut idle = idle(site);
    let forger = Forger::new(&networks.outsider);
    for family in Family::ALL {
        for server in &site.servers {
            for (port, guess) in (61_000..=61_127).zip(guesses(3, 128)) {
                let nat = site.lb.addr_of(family, port);
                forger.tcp(server.addr_of(family, 9), nat, RST, guess, 0);
                forger.tcp(server.addr_of(family, 9), nat, RST | ACK, guess, !guess);
            }
        }
    }
    if let Some(convey) = balancer.convey() {
        // two of all of them for each flow, whose port and server they have
        let sent = 2 * told::flows(convey);
        wait_until("they are refused, or delivered", PATIENCE, || {
            told::packets(convey, PacketReason::WrongInterface) >= sent
                || states(convey, &idle) != ["established"; 2]
        });
        assert_eq!(told::packets(convey, PacketReason::WrongInterface), sent);
        assert_eq!(states(convey, &idle), ["established"; 2]);
    }
    talkers.expect_unbroken();
    for (way, witness) in &mut idle {
        witness
            .talk(b"alive")
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

fn states(convey: &Convey, idle: &[(Way, Witness)]) -> Vec<String> {
    let state = |witness| told::flow(convey, own(witness)).map_or_else(String::new, |(state, _)| state);
    idle.iter().map(|(_, witness)| state(witness)).collect()
}

/// Datagrams have no numbers: the interface alone tells.
fn a_servers_packet_on_the_clients_network_is_refused() {
    const EACH: u64 = 20;
    let networks = TwoNetworks::new("wrongside", 1);
    let site = &networks.site;
    let server = &site.servers[0];
    let echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
    let convey = site.convey(&Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH));
    let forger = Forger::new(&networks.outsider);
    let mut sent = 0;
    for (way, echo) in PASSTHROUGH.into_iter().zip(&echoes) {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        client.ask(b"first").expect("an answer");
        let nat = *echo
            .seen()
            .senders
            .keys()
            .next()
            .expect("the NAT address and port");
        for _ in 0..EACH {
            forger.udp(server.addr_of(way.1, 7), nat, b"evil");
            sent += 1;
        }
        // a forged one that was delivered would be heard first
        let heard = client.ask(b"second").expect("an answer");
        assert_eq!(heard, b"second", "{way:?}: the client heard a forged datagram");
        wait_until(&format!("{way:?}: they are counted"), PATIENCE, || {
            told::packets(&convey, PacketReason::WrongInterface) == sent
        });
        let heard = client.ask(b"third").expect("an answer");
        assert_eq!(heard, b"third", "{way:?}: the client heard a forged datagram");
    }
}

fn answers_by_another_interface_count_only_if_the_file_says_so() {
    let site = Site::new("asymmetric", 1);
    let server = &site.servers[0];
    // to the server by a cable of its own; its answers come by the switch
    let _other_end = site.plug_in("eth1", (server, "eth1"));
    server.add_address("eth1", &format!("{}/128", server.ip6()));
    site.lb.run(&format!(
        "ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
        server.ip4(),
        server.ip6()
    ));
    let echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
    let strict = Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH);
    let mut lenient = strict.clone();
    lenient.passthrough = "any_interface = true".to_owned();
    let convey = site.convey(&strict);
    for (way, echo) in PASSTHROUGH.into_iter().zip(&echoes) {
        let before = told::packets(&convey, PacketReason::WrongInterface);
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        client.socket().send(b"strict").expect("send");
        wait_until(&format!("{way:?}: the answer is refused"), PATIENCE, || {
            told::packets(&convey, PacketReason::WrongInterface) > before
        });
        assert_eq!(echo.seen().bytes, 6, "{way:?}: the server has answered");
    }
    convey.reload(&lenient.config());
    for way in PASSTHROUGH {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        assert_eq!(client.ask(b"lenient").expect("an answer"), b"lenient", "{way:?}");
    }
}

/// Counts, on a host that is a party to nothing, what servers' answers come to it.
fn count_answers(stranger: &Host) {
    stranger.nft(
        "table inet stolen {
           counter answers { }
           chain in {
             type filter hook prerouting priority -300
             tcp sport 9 counter name answers
             udp sport 7 counter name answers
           }
         }",
    );
}

#[track_caller]
fn expect_no_answers(stranger: &Host) {
    let counter = stranger.run("nft list counter inet stolen answers");
    assert!(
        counter.contains("packets 0 "),
        "answers came to {}: {counter}",
        stranger.name()
    );
}

fn a_strangers_segments_divert_no_answers() {
    for from_inside in [false, true] {
        let networks = TwoNetworks::new("divert", 1);
        let site = &networks.site;
        let server = &site.servers[0];
        let (gate, bytes) = (Arc::<Gate>::default(), random_bytes(4, 500_000));
        let _servers =
            Family::ALL.map(|family| TcpServer::gated(server, server.addr_of(family, 9), &gate, &bytes));
        let _balancer = site.balance(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
        let stranger = stranger(&networks, from_inside);
        let forger = Forger::new(stranger);
        let mut readers = idle(site);
        let victims: Vec<(SocketAddr, SocketAddr)> = readers
            .iter()
            .map(|(way, witness)| (own(witness), SocketAddr::new(vip(*way), 9)))
            .collect();
        let forge = |seed| {
            for (client, vip) in &victims {
                for guess in guesses(seed, 4) {
                    forger.tcp(*client, *vip, ACK, guess, !guess);
                    forger.tcp_with(*client, *vip, ACK, !guess, guess, b"mine");
                }
            }
        };
        for seed in 0..25 {
            forge(seed);
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // and goes on while the server speaks
            scope.spawn(|| {
                let mut seed = 100;
                while !is_over.load(Ordering::Relaxed) {
                    forge(seed);
                    seed += 1;
                    thread::sleep(Duration::from_millis(2));
                }
            });
            gate.open();
            let got: Vec<_> = readers
                .iter_mut()
                .map(|(way, reader)| (*way, reader.rest()))
                .collect();
            is_over.store(true, Ordering::Relaxed);
            for (way, got) in got {
                let got = got.unwrap_or_else(|error| panic!("{way:?}: {error}"));
                assert!(got == bytes, "{way:?}: {} bytes came", got.len());
            }
        });
        expect_no_answers(stranger);
    }
}

fn a_strangers_datagrams_divert_no_answers() {
    for from_inside in [false, true] {
        let networks = TwoNetworks::new("astray", 1);
        let site = &networks.site;
        let server = &site.servers[0];
        let _echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
        let _balancer = site.balance(&Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH));
        let stranger = stranger(&networks, from_inside);
        let forger = Forger::new(stranger);
        for way in PASSTHROUGH {
            let to = SocketAddr::new(vip(way), 7);
            let client = UdpClient::new(&site.client, to);
            for _ in 0..2 {
                assert_eq!(client.ask(b"mine").expect("an answer"), b"mine", "{way:?}");
            }
            for _ in 0..10 {
                forger.udp(client.own(), to, b"forged");
            }
            // the server cannot tell them from the client's, whose address its answers go to
            let mut buffer = [0; 16];
            for number in 0..10 {
                let len = (client.socket().recv(&mut buffer))
                    .unwrap_or_else(|error| panic!("{way:?}, answer {number}: {error}"));
                assert_eq!(&buffer[..len], b"forged", "{way:?}");
            }
            assert_eq!(client.ask(b"mine").expect("an answer"), b"mine", "{way:?}");
        }
        expect_no_answers(stranger);
    }
}

fn stranger(networks: &TwoNetworks, from_inside: bool) -> &Host {
    let stranger = if from_inside {
        &networks.neighbour
    } else {
        &networks.outsider
    };
    count_answers(stranger);
    stranger
}

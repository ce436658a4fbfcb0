//! The tools of this suite themselves, without a load balancer.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    Test,
    lab::{
        Family, Lab, PATIENCE,
        checksums::Checksums,
        crowd::{self, Holder, Report},
        dsr::{self, Rewrite},
        forge::{ACK, Forger, RST, ping},
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: a_forged_datagram_arrives_with_its_false_source,
    Any: a_wrong_checksum_is_noticed,
    Any: hosts_answer_pings,
    Any: a_dsr_server_answers_with_the_vip_as_its_source,
    Any: a_crowd_notices_answers_of_another_server,
    Any: a_witness_says_who_talks_to_it,
];

fn a_forged_datagram_arrives_with_its_false_source() {
    let lab = Lab::new("forge");
    let (liar, victim) = (lab.host("liar"), lab.host("victim"));
    let forger = Forger::new(&liar);
    let _checksums = Checksums::of([&victim]);
    for family in Family::ALL {
        let server = UdpServer::echo(&victim, victim.addr_of(family, 7), "");
        let false_source = match family {
            Family::V4 => "10.77.0.200:4321",
            Family::V6 => "[fd77::200]:4321",
        };
        let false_source: SocketAddr = false_source.parse().expect("an address");
        forger.udp(false_source, server.addr(), b"odd");
        crate::lab::wait_until(&format!("the datagram arrives over {family:?}"), PATIENCE, || {
            server.seen().senders.contains_key(&false_source)
        });
    }
}

fn a_wrong_checksum_is_noticed() {
    let lab = Lab::new("checksum");
    let (liar, victim) = (lab.host("liar"), lab.host("victim"));
    let checksums = Checksums::of([&victim]);
    // rewriting behind the checksum's back
    liar.nft(
        "table netdev break {
           chain out {
             type filter hook egress device eth0 priority 0
             tcp flags & rst == rst @th,64,32 set 0x12345678
           }
         }",
    );
    let forger = Forger::new(&liar);
    forger.tcp(liar.addr(5), victim.addr(5), RST | ACK, 1, 1);
    crate::lab::wait_until("the victim counts it", PATIENCE, || !checksums.found().is_empty());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        std::panic::set_hook(Box::new(|_| {}));
        drop(checksums);
    }));
    drop(std::panic::take_hook());
    assert!(panic.is_err());
}

fn hosts_answer_pings() {
    let lab = Lab::new("ping");
    let (client, host) = (lab.host("client"), lab.host("host"));
    for family in Family::ALL {
        assert!(ping(&client, host.addr_of(family, 0).ip()));
    }
    assert!(!ping(&client, IpAddr::from([10, 77, 0, 99])));
}

fn a_dsr_server_answers_with_the_vip_as_its_source() {
    let lab = Lab::new("dsr");
    let (client, server) = (lab.host("client"), lab.host("server"));
    for (family, vip) in [(Family::V4, "10.77.0.101"), (Family::V6, "fd77::101")] {
        let vip = SocketAddr::new(vip.parse().expect("an address"), 53);
        let own = server.addr_of(family, 5353);
        let rewrite = Rewrite {
            own,
            vip,
            protocol: "udp",
        };
        dsr::install(&server, &[rewrite], &[]);
        let _server = UdpServer::echo(&server, own, "");
        let listening = UdpClient::new(&client, vip);
        // answers of up to 14 fragments, all of them from the VIP
        for len in [1, 1472, 1473, 3000, 20_000] {
            let datagram = crate::lab::random_bytes(len as u64, len);
            client.inside(|| {
                let sender = socket2::SockRef::from(listening.socket());
                sender
                    .send_to(&datagram, &own.into())
                    .expect("send to the server itself")
            });
            let mut back = vec![0; 65_535];
            let len = listening
                .socket()
                .recv(&mut back)
                .expect("an answer from the VIP");
            assert!(back[..len] == datagram, "{len} bytes came back");
        }
        // from anywhere: answers of the server's own address would come before the last ones of the VIP
        let anybody = client.inside(|| UdpSocket::bind(client.addr_of(family, 0)).expect("a socket"));
        anybody.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        for _ in 0..5 {
            anybody.send_to(b"x", own).expect("send to the server itself");
            let (_, from) = anybody.recv_from(&mut [0; 8]).expect("an answer");
            assert_eq!(from, vip, "the server's own address is silent");
        }
    }
}

fn a_crowd_notices_answers_of_another_server() {
    let lab = Lab::new("crowd");
    let (client, lb, a, b) = (lab.host("client"), lab.host("lb"), lab.host("a"), lab.host("b"));
    let servers = [&a, &b].map(|host| crowd::servers(host, host.addr(9), u64::from(host.index()), 2));
    let dnat = |to: &str| {
        lb.nft(&format!(
            "table ip t {{
               chain in {{
                 type nat hook prerouting priority 0
                 tcp dport 9 dnat to {to}
               }}
               chain out {{
                 type nat hook postrouting priority 0
                 masquerade
               }}
             }}"
        ));
    };
    lb.forward();
    dnat(&a.ip4().to_string());
    let mut holder = Holder::start(&client, IpAddr::V4(client.ip4()), lb.addr(9), 1, 50);
    let expected = Report {
        right: 50,
        failed: 0,
        wrong: 0,
    };
    assert_eq!(holder.report(PATIENCE), expected);
    holder.ask();
    assert_eq!(holder.report(PATIENCE), expected);
    drop(servers);
    holder.ask();
    let report = holder.report(PATIENCE);
    assert_eq!((report.right, report.failed), (0, 50), "no server is left");
}

fn a_witness_says_who_talks_to_it() {
    let lab = Lab::new("witness");
    let (client, host) = (lab.host("client"), lab.host("host"));
    for family in Family::ALL {
        let server = TcpServer::witness(&host, host.addr_of(family, 9), "joe");
        let mut witness = Witness::meet(&client, server.addr()).expect("a meeting");
        assert_eq!(witness.server, "joe");
        assert_eq!(
            Some(witness.seen),
            witness.stream().local_addr().ok(),
            "nobody is between us"
        );
        witness.talk(b"hello").expect("an echo");
    }
}

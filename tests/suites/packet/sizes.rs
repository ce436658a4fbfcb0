//! Packets that are too big for something: fragments, super-frames, links with a smaller MTU.

use std::{fs, net::SocketAddr};

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use crate::{
    Test,
    lab::{
        Family, Host, Nginx, PATIENCE,
        checksums::Checksums,
        random_bytes,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{DSR, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, Way, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: fragmented_datagrams_arrive_whole_in_passthrough,
    Convey: fragmented_datagrams_arrive_whole_in_dsr,
    Any: super_frames_of_a_gso_sender_arrive,
    Any: a_passthrough_server_learns_of_a_small_mtu_towards_the_client,
    Convey: a_dsr_server_learns_of_a_small_mtu_towards_the_client,
    Any: a_client_learns_of_a_small_mtu_between_load_balancer_and_server,
    Any: a_client_learns_of_the_load_balancers_own_small_mtu_in_passthrough,
    Convey: a_client_learns_of_the_load_balancers_own_small_mtu_in_dsr,
];

const ECHO: Port = Port::same("echo", Transport::Udp, 7);
const WEB: Port = Port::same("web", Transport::Tcp, 80);

fn fragmented_datagrams_arrive_whole_in_passthrough() {
    fragments_arrive(&PASSTHROUGH);
}

fn fragmented_datagrams_arrive_whole_in_dsr() {
    fragments_arrive(&DSR);
}

fn fragments_arrive(ways: &[Way]) {
    let site = Site::new("fragments", 2);
    let servers: Vec<UdpServer> = site
        .servers
        .iter()
        .flat_map(|host| [host.addr(7), host.addr6(7)].map(|addr| UdpServer::echo(host, addr, "")))
        .collect();
    let _checksums = Checksums::of(site.hosts());
    let _balancer = site.balance(&Plan::new(&[ECHO], &site.servers).by(ways));
    for way in ways {
        // several flows: each is hashed to a worker and a server of its own
        for flow in 0..4 {
            let client = UdpClient::new(&site.client, SocketAddr::new(vip(*way), 7));
            for len in [1473, 1481, 2000, 2961, 4000, 9000, 15_001, 20_000] {
                let datagram = random_bytes(flow * 100_000 + len as u64, len);
                let back = client
                    .ask(&datagram)
                    .unwrap_or_else(|error| panic!("{way:?}, flow {flow}, {len} bytes: {error}"));
                assert!(back == datagram, "{way:?}: {len} bytes came back otherwise");
            }
        }
    }
    let largest = servers.iter().map(|server| server.seen().largest).max();
    assert_eq!(largest, Some(20_000), "whole at the server");
}

fn super_frames_of_a_gso_sender_arrive() {
    let site = Site::new("gso", 1);
    let server = &site.servers[0];
    let servers = [server.addr(7), server.addr6(7)].map(|addr| UdpServer::echo(server, addr, ""));
    let _checksums = Checksums::of(site.hosts());
    let _balancer = site.balance(&Plan::new(&[ECHO], &site.servers));
    for way in WAYS {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        client
            .ask(b"first")
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let echo = &servers[usize::from(way.1 == Family::V6)];
        let before = echo.seen();
        setsockopt(client.socket(), UdpGsoSegment, &1200).expect("UDP_SEGMENT");
        // 10 super-frames of 40 segments and a shorter one
        let burst = random_bytes(7, 40 * 1200 + 300);
        let mut back = 0;
        for _ in 0..10 {
            client.socket().send(&burst).expect("send a super-frame");
            let mut buffer = vec![0; 65_535];
            for _ in 0..41 {
                back += client.socket().recv(&mut buffer).expect("an echo");
            }
        }
        let now = echo.seen();
        assert_eq!(now.bytes - before.bytes, 10 * burst.len() as u64, "{way:?}");
        assert_eq!(back, 10 * burst.len(), "{way:?}");
        assert_eq!(now.largest, 1200, "{way:?}: in segments");
    }
}

/// A client behind a router whose way to it takes 1,400 bytes only, although both its ends are of 1,500.
fn far_client(site: &Site) -> Host {
    let (router, far) = (site.lab.host("router"), site.lab.host("far"));
    far.run("ip link set eth0 down");
    site.lab.cable((&router, "eth1"), (&far, "eth1"));
    router.add_address("eth1", "10.78.0.1/24");
    router.add_address("eth1", "fd78::1/64");
    far.add_address("eth1", "10.78.0.2/24");
    far.add_address("eth1", "fd78::2/64");
    router.forward();
    router.run(
        "ip route replace 10.78.0.0/24 dev eth1 mtu lock 1400
         ip -6 route replace fd78::/64 dev eth1 metric 1 mtu lock 1400",
    );
    far.run("ip route add default via 10.78.0.1; ip -6 route add default via fd78::1");
    for host in site.hosts() {
        host.run(&format!(
            "ip route add 10.78.0.0/24 via {}; ip -6 route add fd78::/64 via {}",
            router.ip4(),
            router.ip6()
        ));
    }
    far
}

fn a_passthrough_server_learns_of_a_small_mtu_towards_the_client() {
    downloads_through_the_small_mtu(&PASSTHROUGH);
}

fn a_dsr_server_learns_of_a_small_mtu_towards_the_client() {
    downloads_through_the_small_mtu(&DSR);
}

fn downloads_through_the_small_mtu(ways: &[Way]) {
    let site = Site::new("mtu", 2);
    let far = far_client(&site);
    let webs: Vec<Nginx> = site.servers.iter().map(|host| Nginx::start(host, "ok")).collect();
    let bytes = random_bytes(3, 1 << 20);
    for web in &webs {
        fs::write(web.file("served"), &bytes).expect("a file to serve");
    }
    let _checksums = Checksums::of(site.hosts().chain([&far]));
    let _balancer = site.balance(&Plan::new(&[WEB], &site.servers).by(ways));
    let here = far.path("here");
    for way in ways {
        // what a server has learned of one client it knows for all its connections: any server must learn it
        for turn in 0..6 {
            let url = format!("http://{}/files/served", SocketAddr::new(vip(*way), 80));
            let output = far.try_run(&format!("curl -sf --max-time 60 -o {} {url}", here.display()));
            assert!(output.status.success(), "{way:?}, turn {turn}: {output:?}");
            assert!(
                fs::read(&here).expect("the download") == bytes,
                "{way:?}: the download differs"
            );
        }
    }
    let learned = site.servers.iter().any(|host| {
        let towards = match ways[0].1 {
            Family::V4 => "10.78.0.2",
            Family::V6 => "fd78::2",
        };
        host.run(&format!("ip route get {towards}")).contains("mtu 1400")
    });
    // in passthrough the servers speak to the load balancer, for which they keep what they learn
    let known = site.servers.iter().any(|host| {
        [Family::V4, Family::V6].iter().any(|family| {
            host.run(&format!("ip route get {}", site.lb.addr_of(*family, 0).ip()))
                .contains("mtu 1400")
        })
    });
    assert!(
        learned || known,
        "no server has learned an MTU: was the way small?"
    );
}

/// Uploads to a server behind a link of 1,400 bytes.
fn upload(site: &Site, web: &Nginx, way: Way) {
    let bytes = random_bytes(4, 1 << 20);
    let here = site.client.path("here");
    fs::write(&here, &bytes).expect("a file to send");
    for turn in 0..3 {
        let url = format!("http://{}/files/uploaded", SocketAddr::new(vip(way), 80));
        let output = site
            .client
            .try_run(&format!("curl -sf --max-time 60 -T {} {url}", here.display()));
        assert!(output.status.success(), "{way:?}, turn {turn}: {output:?}");
        assert!(
            fs::read(web.file("uploaded")).expect("the upload") == bytes,
            "{way:?}: the upload differs"
        );
        fs::remove_file(web.file("uploaded")).expect("room for the next");
    }
    let learned = site.client.run(&format!("ip route get {}", vip(way)));
    assert!(learned.contains("mtu 1400"), "{way:?}: {learned}");
}

fn a_client_learns_of_a_small_mtu_between_load_balancer_and_server() {
    let site = Site::new("behind", 1);
    let server = &site.servers[0];
    let router = site.lab.host("router");
    // the server keeps its address but lives behind the router now
    let (ip4, ip6) = (server.ip4(), server.ip6());
    site.lab.cable((&router, "eth1"), (server, "eth1"));
    server.run("ip link set eth0 down");
    server.run(&format!(
        "ip addr flush dev eth0; ip addr add {ip4}/32 dev eth1; ip addr add {ip6}/128 dev eth1 nodad"
    ));
    router.add_address("eth1", "10.79.0.1/24");
    router.add_address("eth1", "fd79::1/64");
    server.add_address("eth1", "10.79.0.2/24");
    server.add_address("eth1", "fd79::2/64");
    router.forward();
    router.run(&format!(
        "ip route add {ip4}/32 dev eth1 mtu lock 1400; ip -6 route add {ip6}/128 dev eth1 mtu lock 1400"
    ));
    server.run("ip route add default via 10.79.0.1; ip -6 route add default via fd79::1");
    site.lb.run(&format!(
        "ip route add {ip4}/32 via {}; ip -6 route add {ip6}/128 via {}",
        router.ip4(),
        router.ip6()
    ));
    let web = Nginx::start(server, "ok");
    let _checksums = Checksums::of(site.hosts().chain([&router]));
    let _balancer = site.balance(&Plan::new(&[WEB], &site.servers).by(&PASSTHROUGH));
    for way in PASSTHROUGH {
        upload(&site, &web, way);
    }
}

fn a_client_learns_of_the_load_balancers_own_small_mtu_in_passthrough() {
    own_small_mtu(&PASSTHROUGH);
}

fn a_client_learns_of_the_load_balancers_own_small_mtu_in_dsr() {
    own_small_mtu(&DSR);
}

/// The load balancer reaches the server by a cable of its own, of 1,400 bytes; answers come by the switch.
fn own_small_mtu(ways: &[Way]) {
    let site = Site::new("own-mtu", 1);
    let server = &site.servers[0];
    let _other_end = site.plug_in("eth1", (server, "eth1"));
    site.lb.run(&format!(
        "ip link set eth1 mtu 1400; ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
        server.ip4(),
        server.ip6()
    ));
    // IPv6 answers a solicitation for an address of the same interface only
    server.add_address("eth1", &format!("{}/128", server.ip6()));
    let web = Nginx::start(server, "ok");
    let _checksums = Checksums::of(site.hosts());
    let mut plan = Plan::new(&[WEB], &site.servers).by(ways);
    "any_interface = true".clone_into(&mut plan.passthrough);
    let _balancer = site.balance(&plan);
    wait_until("the way is known", PATIENCE, || {
        site.lb
            .run(&format!("ip route get {}", server.ip4()))
            .contains("eth1")
    });
    for way in ways {
        upload(&site, &web, *way);
    }
}

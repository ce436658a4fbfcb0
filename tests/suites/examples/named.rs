//! `routes.toml`.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use convey::{base::ServerState, config::Options};

use crate::{
    lab::{Host, servers::Witness},
    site::Site,
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    the_name_decides_which_site_serves_and_servers_learn_who_asks,
    other_names_and_plain_text_are_reset,
    a_load_balancer_in_front_speaks_for_its_clients_and_nobody_else_does,
    the_page_of_excuses_serves_while_both_shops_are_down,
];

/// Begins every PROXY header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// TLV of the name that the client asks for, and of a checksum.
const AUTHORITY: u8 = 2;
const CRC32C: u8 = 3;

/// What a server was told before the first byte of the client's.
struct Told {
    server: String,
    client: SocketAddr,
    local: SocketAddr,
    tlvs: Vec<(u8, Vec<u8>)>,
}

fn site() -> Site {
    Site::new("routes.toml", &["10.0.0.2/24"], Options::default())
}

/// A ClientHello of TLS 1.2 that offers one suite and asks for a name.
fn hello(name: &str) -> Vec<u8> {
    fn sized(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("a short hello");
        [&length.to_be_bytes(), bytes].concat()
    }
    let host = [&[0], sized(name.as_bytes()).as_slice()].concat();
    let server_name = [&[0, 0], sized(&sized(&host)).as_slice()].concat();
    let fields: [&[u8]; 6] = [
        &[3, 3],
        &[7; 32],
        &[0],
        &sized(&[0x13, 0x01]),
        &[1, 0],
        &sized(&server_name),
    ];
    let body = fields.concat();
    let handshake = [&[1, 0], sized(&body).as_slice()].concat();
    [&[22, 3, 1], sized(&handshake).as_slice()].concat()
}

/// Connects, sends `before` and a ClientHello that asks for a name, and hears which server got both, and after which header.
fn ask(client: &Host, to: SocketAddr, before: &[u8], name: &str) -> io::Result<Told> {
    let mut stream = client.try_connect(to)?;
    let hello = hello(name);
    stream.write_all(&[before, &hello].concat())?;
    let mut witness = Witness::hear(stream)?;
    let mut fixed = [0; 16];
    witness.stream().read_exact(&mut fixed)?;
    assert_eq!(&fixed[..12], SIGNATURE, "a header of version 2");
    assert_eq!(fixed[12..14], [0x21, 0x11], "a connection over IPv4 by TCP");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    witness.stream().read_exact(&mut rest)?;
    let mut back = vec![0; hello.len()];
    witness.stream().read_exact(&mut back)?;
    assert_eq!(back, hello, "the ClientHello comes whole and unchanged");
    witness.talk(b"then the rest")?;
    Ok(told(witness.server, &rest))
}

fn told(server: String, rest: &[u8]) -> Told {
    let ip =
        |at: usize| -> IpAddr { Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]).into() };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let mut tlvs = Vec::new();
    let mut left = &rest[12..];
    while let [kind, high, low, more @ ..] = left {
        let (value, next) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, value.to_vec()));
        left = next;
    }
    Told {
        server,
        client: SocketAddr::new(ip(0), port(8)),
        local: SocketAddr::new(ip(4), port(10)),
        tlvs,
    }
}

fn the_name_decides_which_site_serves_and_servers_learn_who_asks() {
    let site = site();
    let _convey = site.convey();
    let lb = site.lb.host().addr(443);
    let servers = |name: &str| -> Vec<String> {
        let mut servers: Vec<String> = (0..4)
            .map(|_| ask(&site.client, lb, b"", name).expect("a server").server)
            .collect();
        servers.sort();
        servers.dedup();
        servers
    };
    for name in ["shop.example.com", "a.b.shop.example.com", "SHOP.example.com"] {
        assert!(
            servers(name).iter().all(|server| server.starts_with("shop")),
            "{name}"
        );
    }
    assert_eq!(servers("blog.example.com"), ["blog"]);
    let told = ask(&site.client, lb, b"", "blog.example.com").expect("a server");
    assert_eq!(told.client.ip(), IpAddr::from(site.client.ip4()));
    assert_eq!(told.local, lb);
    let kinds: Vec<u8> = told.tlvs.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.contains(&AUTHORITY) && kinds.contains(&CRC32C), "{kinds:?}");
    assert!(told.tlvs.contains(&(AUTHORITY, b"blog.example.com".to_vec())));
}

fn other_names_and_plain_text_are_reset() {
    let site = site();
    let _convey = site.convey();
    let lb = site.lb.host().addr(443);
    for bytes in [hello("other.example.com"), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut stream = site.client.connect(lb);
        stream.write_all(&bytes).expect("a connection");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert_eq!((end, answer), (Err(io::ErrorKind::ConnectionReset), Vec::new()));
    }
    // and the next one is served
    assert_eq!(
        ask(&site.client, lb, b"", "blog.example.com")
            .expect("a server")
            .server,
        "blog"
    );
}

fn a_load_balancer_in_front_speaks_for_its_clients_and_nobody_else_does() {
    let site = site();
    let _convey = site.convey();
    let lb = site.lb.host().addr(443);
    let front = site.lab.host("front");
    front.add_address("eth0", "10.0.0.4/24");
    let inside = SocketAddr::from(([10, 0, 0, 2], 443));
    let header = b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n";
    let told = ask(&front, inside, header, "blog.example.com").expect("a server");
    assert_eq!(told.client, SocketAddr::from(([198, 51, 100, 7], 4711)));
    let plain = ask(&front, inside, b"", "blog.example.com").expect("a server");
    assert_eq!(plain.client.ip(), IpAddr::from([10, 0, 0, 4]));
    // from elsewhere the header is text before TLS
    let error = ask(&site.client, lb, header, "blog.example.com")
        .err()
        .expect("no server");
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidData
        ),
        "{error}"
    );
}

fn the_page_of_excuses_serves_while_both_shops_are_down() {
    let mut site = site();
    let _convey = site.convey();
    let lb = site.lb.host().addr(443);
    for server in ["shop1", "shop2"] {
        site.stop("shop", server);
        site.lb.wait_status("it is down", |status| {
            status.backends["shop"].servers[server].state == ServerState::Down
        });
    }
    assert_eq!(
        ask(&site.client, lb, b"", "shop.example.com")
            .expect("a server")
            .server,
        "page"
    );
    assert_eq!(
        ask(&site.client, lb, b"", "blog.example.com")
            .expect("a server")
            .server,
        "blog"
    );
    site.start("shop", "shop2");
    site.lb.wait_status("shop2 is up", |status| {
        status.backends["shop"].servers["shop2"].state == ServerState::Up
    });
    assert_eq!(
        ask(&site.client, lb, b"", "shop.example.com")
            .expect("a server")
            .server,
        "shop2"
    );
}

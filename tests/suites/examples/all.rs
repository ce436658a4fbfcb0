//! `full.toml`: every key, and frontends as people have them.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use convey::{base::ServerState, config::Options};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use crate::{
    classic::expect_stats,
    packets::{MANY, assert_direct},
    site::{Site, assert_shares},
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    web_and_mail_are_proxied_and_the_log_is_json,
    the_database_is_one_server_at_a_time,
    queries_leave_from_the_nat_addresses_and_files_come_directly,
    tls_ends_here_with_a_certificate_for_each_name,
];

/// As an operator makes what the file names: a CA, a certificate with its key and an OCSP response, a bundle, a list of revoked
/// certificates, keys of tickets; the servers' CA and a certificate to show them.
const CERTIFICATES: &str = r#"
set -eu
mkdir -p /etc/convey/certificates
cd /etc/convey/certificates
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -days 30 -subj "/CN=Lab CA" -keyout ca.key -out clients.pem
issue() {
    openssl req $key -subj "/CN=$2" -addext "subjectAltName=DNS:$2" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA clients.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copyall -out "$1.pem"
}
cp clients.pem servers-ca.pem
issue convey convey.example.com
issue admin lb1.example.com
issue www www.example.com
issue shop shop.example.com
cat shop.pem shop.key >bundle.pem
issue blog blog.example.com
mkdir sites
mv blog.pem blog.key sites
printf 'V\t350101000000Z\t\t%s\tunknown\t/CN=www.example.com\n' "$(openssl x509 -in www.pem -noout -serial | cut -d= -f2)" >index
openssl ocsp -issuer clients.pem -cert www.pem -no_nonce -reqout request
openssl ocsp -index index -CA clients.pem -rsigner clients.pem -rkey ca.key -ndays 30 -reqin request -respout www.ocsp
printf '[ca]\ndefault_ca = lab\n[lab]\ndatabase = index\ncrlnumber = number\ndefault_md = sha256\n' >ca.cnf
echo 01 >number
openssl ca -config ca.cnf -gencrl -crldays 30 -keyfile ca.key -cert clients.pem -out revoked.pem
for turn in 1 2; do openssl rand -base64 80 | tr -d '\n'; echo; done >/etc/convey/ticket.keys
chmod 640 admin.key www.key convey.key bundle.pem sites/blog.key /etc/convey/ticket.keys
"#;

fn site() -> Site {
    let site = Site::new(
        "full.toml",
        &[
            "10.0.0.2/24",
            "10.0.0.3/24",
            "203.0.113.2/24",
            "203.0.113.3/24",
            "2001:db8::2/64",
        ],
        Options::default(),
    );
    site.lb
        .write("/etc/convey/balancers.list", "# the pair's other one\n10.0.0.5\n");
    site.lb
        .write("/etc/convey/blocked.list", "# nobody here\n198.51.100.0/24\n");
    site.lb.write(
        "/etc/convey/http.servers",
        "# by the deployment; the configuration has this one\n10.0.0.12:8080\n",
    );
    // printf %s cvy_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
    site.lb.write(
        "/etc/convey/tokens",
        "grafana read sha256:0d1dd1f2949a9983b5d4cbb97edcb5ea8c93cfdcced12aa6f2e0b6f7b27527d8\n",
    );
    site.lb.run(CERTIFICATES);
    site
}

fn tls_ends_here_with_a_certificate_for_each_name() {
    let site = site();
    let convey = site.convey();
    for name in ["www.example.com", "shop.example.com", "blog.example.com"] {
        let (server, version) = over_tls(&site, name);
        assert!(server.starts_with("web"), "{name}: {server}");
        assert_eq!(version, ProtocolVersion::TLSv1_3, "{name}");
    }
    assert!(!convey.log().contains("cannot be used"), "{}", convey.log());
    let api = |header: &str| {
        let ask = "curl -s -o /dev/null -w %{http_code} --cacert /etc/convey/certificates/clients.pem";
        let to = "--resolve lb1.example.com:7001:10.0.0.2 https://lb1.example.com:7001/v1/status";
        site.lb.run(&format!("{ask} -H '{header}' {to}"))
    };
    assert_eq!(api("Accept: application/json"), "401");
    let token = format!("cvy_{}", "A".repeat(43));
    assert_eq!(api(&format!("Authorization: Bearer {token}")), "200");
}

/// Connects as a client that knows the CA and insists on a name; returns which server greets it, and the version of TLS.
fn over_tls(site: &Site, name: &str) -> (String, ProtocolVersion) {
    let mut roots = RootCertStore::empty();
    let ca = site.lb.path("/etc/convey/certificates/clients.pem");
    let ca = CertificateDer::from_pem_file(ca).expect("the CA's certificate");
    roots.add(ca).expect("a CA");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = ServerName::try_from(name.to_owned()).expect("a name");
    let client = ClientConnection::new(Arc::new(config), host).expect("a client");
    let socket = site.client.connect(([203, 0, 113, 10], 9443).into());
    let mut stream = BufReader::new(StreamOwned::new(client, socket));
    stream.get_mut().write_all(b"hello\n").expect("a handshake");
    let (mut greeting, mut back) = (String::new(), String::new());
    stream.read_line(&mut greeting).expect("the server's greeting");
    stream.read_line(&mut back).expect("an echo");
    assert_eq!(back, "hello\n");
    let version = stream.get_ref().conn.protocol_version().expect("a version");
    (greeting, version)
}

fn web_and_mail_are_proxied_and_the_log_is_json() {
    let site = site();
    let convey = site.convey();
    assert_shares(&site.shares("203.0.113.10:80", 60), &[("web1", 3), ("web2", 1)]);
    // one client comes to one server, by its address
    for addr in ["203.0.113.10:443", "[2001:db8::10]:443"] {
        assert_eq!(site.shares(addr, 10).len(), 1);
    }
    let lb: IpAddr = [10, 0, 0, 2].into();
    assert_eq!(site.meet("203.0.113.10:443").seen.ip(), lb, "source_addr");
    // the server's greeting comes first
    assert_eq!(site.shares("203.0.113.10:25", 40).len(), 2);
    expect_stats(&site.lb, 7000, "smtp");
    for line in convey.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

fn the_database_is_one_server_at_a_time() {
    let mut site = site();
    let _convey = site.convey();
    let witness = site.meet("10.0.0.2:5432");
    assert_eq!(
        (witness.server.as_str(), witness.seen.ip()),
        ("db1", [10, 0, 0, 3].into())
    );
    assert_eq!(site.shares("10.0.0.2:5432", 10), [("db1".to_owned(), 10)].into());
    site.stop("database", "db1");
    site.lb.wait_status("db1 is down", |status| {
        status.backends["database"].servers["db1"].state == ServerState::Down
    });
    assert_eq!(site.shares("10.0.0.2:5432", 10), [("db2".to_owned(), 10)].into());
}

fn queries_leave_from_the_nat_addresses_and_files_come_directly() {
    let site = site();
    for server in ["10.0.0.41", "10.0.0.42"] {
        let ip: IpAddr = server.parse().expect("an address");
        site.servers[&ip].run("ip route add 203.0.113.2/31 dev eth0");
    }
    site.set_up_servers("files", "", "");
    let _convey = site.convey();
    let mut asked = [0, 0];
    // 133 of 200 expected, and five standard deviations more than half
    for _ in 0..200 {
        let (server, _) = site.ask("203.0.113.11:53");
        asked[usize::from(server == "ns2")] += 1;
    }
    assert!(
        asked[0] > asked[1] && asked[1] > 0,
        "ns1 has weight 2, ns2 has 1: {asked:?}"
    );
    let senders: BTreeSet<IpAddr> = site.udp_senders().iter().map(SocketAddr::ip).collect();
    assert_eq!(senders, [2, 3].map(|last| [203, 0, 113, last].into()).into());
    assert_shares(
        &site.shares("203.0.113.20:80", MANY),
        &[("files1", 1), ("files2", 1)],
    );
    assert_direct(&site.meet("203.0.113.20:80"));
}

//! What convey and a server agree on: certificates, names, protocols.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    config::{SendProxy, ServerAlpn},
    tls::ClientAuthSettings,
};

#[test]
fn a_server_that_wants_a_certificate_of_ours_gets_it_or_says_why_it_refuses_us() {
    let ca = Ca::new("lab");
    let asking = |version: crate::config::TlsVersion| {
        serving(&ca, &[NAME], |settings| {
            settings.max_version = version;
            settings.client_auth = Some(ClientAuthSettings {
                required: true,
                ca: ca.certificate.pem().into_bytes(),
                crls: Vec::new(),
                crl_policy: crate::config::CrlPolicy::Complete,
            });
        })
    };
    for version in crate::config::TlsVersion::ALL {
        let addr = tls_server(asking(version), echo);
        let identity = ca.issue(Key::P256, &["convey"]).pair();
        let spoken = Spoken::new(&[addr], trusting(&ca, Some(identity), &[]), |_, _| ());
        assert_eq!(spoken.ask(b"x"), b"x");
        let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, backend| {
            backend.retries = 0;
        });
        let mut client = spoken.rig.client();
        let _ = client.write_all(b"x");
        assert!(client.read(&mut [0]).is_err(), "{version}");
        let record = spoken.rig.record();
        assert_eq!(
            (record.reason, record.server_tls_failure),
            (Reason::ServerTls, Some(ServerTlsFailure::OurCertificate)),
            "{version}"
        );
    }
}

#[test]
fn the_name_is_the_clients_the_servers_a_fixed_one_or_the_address() {
    let ca = Ca::new("lab");
    let asked = |from: ServerNameFrom, names: &[&str], with_tls: bool, client: &str| {
        let addr = tls_server(serving(&ca, names, |_| ()), |mut stream| {
            let name = stream.conn.server_name().unwrap_or("-").to_owned();
            let _ = stream.write_all(name.as_bytes());
            end(stream);
        });
        let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, backend| {
            backend.retries = 0;
            backend.tls = Some(settings(from));
        });
        let mut all = String::new();
        let read = match with_tls {
            true => {
                let spoken = spoken.ended(&ca, |_| ());
                let mut stream = spoken.connect(client);
                stream.read_to_string(&mut all).map(|_| ())
            }
            false => spoken.rig.client().read_to_string(&mut all).map(|_| ()),
        };
        read.ok().map(|()| all)
    };
    assert_eq!(asked(fixed(), &[NAME], false, "").as_deref(), Some(NAME));
    assert_eq!(
        asked(ServerNameFrom::Address, &["127.0.0.1"], false, "").as_deref(),
        Some("-"),
        "addresses are verified, not asked for"
    );
    assert_eq!(asked(ServerNameFrom::Address, &[NAME], false, ""), None);
    assert_eq!(
        asked(ServerNameFrom::Client, &["b.example"], true, "b.example").as_deref(),
        Some("b.example")
    );
    assert_eq!(asked(ServerNameFrom::Client, &["b.example"], true, NAME), None);
    assert_eq!(
        asked(ServerNameFrom::Client, &["127.0.0.1"], false, "").as_deref(),
        Some("-"),
        "who asks for none"
    );
    assert_eq!(
        asked(ServerNameFrom::Server, &["s0"], false, "").as_deref(),
        Some("s0")
    );
}

#[test]
fn a_server_is_offered_the_protocol_that_was_agreed_on_with_the_client() {
    let ca = Ca::new("lab");
    let server_alpn = |settings: &mut ServerSettings| settings.alpn = vec!["h2".into(), "imap".into()];
    let chosen = |alpn: ServerAlpn, fixed_alpn: &[&str], client_alpn: Option<&str>| {
        let addr = tls_server(serving(&ca, &[NAME], server_alpn), |mut stream| {
            let name = stream.conn.alpn_protocol().unwrap_or(b"-").to_vec();
            let _ = stream.write_all(&name);
            end(stream);
        });
        let mut spoken = Spoken::new(&[addr], trusting(&ca, None, fixed_alpn), |_, backend| {
            backend.tls = Some(Settings {
                alpn,
                ..settings(fixed())
            });
        })
        .ended(&ca, |settings| settings.alpn = vec!["imap".into(), "h2".into()]);
        let mut config = (*spoken.client).clone();
        config.alpn_protocols = client_alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        spoken.client = Arc::new(config);
        let mut all = String::new();
        spoken.connect(NAME).read_to_string(&mut all).unwrap();
        let record = spoken.rig.record();
        assert_eq!(record.server_tls.unwrap().alpn.as_deref().unwrap_or("-"), all);
        all
    };
    assert_eq!(chosen(ServerAlpn::Client, &[], Some("h2")), "h2");
    assert_eq!(chosen(ServerAlpn::Client, &[], Some("imap")), "imap");
    assert_eq!(chosen(ServerAlpn::Client, &[], None), "-");
    assert_eq!(chosen(ServerAlpn::Off, &[], Some("h2")), "-");
    let offered = ServerAlpn::Offered(vec!["imap".into()]);
    assert_eq!(chosen(offered, &["imap"], Some("h2")), "imap");
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let ca = Ca::new("lab");
    let config = serving(&ca, &[NAME], |_| ());
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let addr = server(move |mut stream| {
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            header.push(byte[0]);
        }
        assert!(header.starts_with(b"PROXY TCP4 127.0.0.1 "), "{header:?}");
        count.fetch_add(1, Ordering::Relaxed);
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        echo(StreamOwned::new(connection, stream));
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, backend| {
        backend.send_proxy = Some(SendProxy::V1);
    });
    assert_eq!(spoken.ask(b"question"), b"question");
    let record = spoken.rig.record();
    assert_eq!(
        (record.bytes_in, record.bytes_out),
        (8, 8),
        "payload alone is counted"
    );
    let spoken = spoken.ended(&ca, |_| ());
    assert_eq!(ask(&mut spoken.connect(NAME), b"question"), b"question");
    assert_eq!(told.load(Ordering::Relaxed), 2);
}

#[test]
fn a_name_that_is_only_read_reaches_the_server_too() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &["b.example"], |_| ()), |mut stream| {
        let name = stream.conn.server_name().unwrap_or("-").to_owned();
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).unwrap();
        let _ = write!(stream, "{name} {}", hello[0]);
        end(stream);
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, backend| {
        backend.tls = Some(settings(ServerNameFrom::Client));
        // somebody wants to know the name
        let server = backend.servers.values_mut().next().unwrap();
        server.sni = vec!["*.example".parse().unwrap()];
    });
    // the client's own TLS goes through, inside
    let name = "b.example".to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(&spoken.client), name).unwrap();
    let mut socket = spoken.rig.client();
    client.write_tls(&mut socket).unwrap();
    assert_eq!(
        read_all(&mut socket),
        b"b.example 22",
        "22 is what a handshake begins with"
    );
}

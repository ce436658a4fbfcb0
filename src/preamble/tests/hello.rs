//! What is read from ClientHellos, those of real clients among them.

use super::{
    super::{Alpn, MAX_HELLO_BYTES, MAX_HELLO_MESSAGE_BYTES},
    clients::CLIENTS,
    forge::{Forge, block8, block16, protocols, records, server_names},
    *,
};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const SUPPORTED_VERSIONS: u16 = 43;

fn sni(bytes: &[u8]) -> Option<String> {
    hello_of(bytes).sni.map(String::from)
}

fn named(name: &[u8]) -> Option<String> {
    sni(&Forge::with(SERVER_NAME, server_names(&[name])).bytes())
}

fn names(alpn: &Alpn) -> Vec<&[u8]> {
    alpn.iter().collect()
}

#[test]
fn what_real_clients_ask_for_is_read() {
    for client in CLIENTS {
        let hello = hello_of(client.bytes);
        let name = client.name;
        assert_eq!(hello.sni.as_deref(), client.sni, "{name}");
        assert_eq!(names(&hello.alpn), client.alpn, "{name}");
        assert_eq!(hello.highest_version, client.version, "{name}");
        assert_eq!(hello.has_ech, client.has_ech, "{name}");
    }
}

#[test]
fn a_hello_with_a_post_quantum_key_takes_more_than_one_segment() {
    let longest = CLIENTS.iter().map(|client| client.bytes.len()).max();
    assert!(longest > Some(1_460), "{longest:?}");
}

#[test]
fn a_hello_may_come_one_byte_a_segment_and_one_byte_a_record() {
    for client in CLIENTS {
        let (bytes, name) = (client.bytes, client.name);
        let whole = read_hello(bytes);
        assert_eq!(read_hello_in_pieces(bytes, 0..bytes.len()), whole, "{name}");
        let message = &bytes[5..];
        for sizes in [&[1][..], &[1, 2, 3, 50], &[message.len() - 1], &[3, 9_999]] {
            let bytes = records(message, sizes);
            assert_eq!(read_hello(&bytes), whole, "{name}");
            assert_eq!(read_hello_in_pieces(&bytes, 0..bytes.len()), whole, "{name}");
        }
    }
}

#[test]
fn more_is_wanted_until_the_last_byte_and_nothing_after_it_matters() {
    let hello = Forge::with(SERVER_NAME, server_names(&[b"a.example"])).bytes();
    for end in 0..hello.len() {
        assert_eq!(read_hello(&hello[..end]), Progress::More, "{end} bytes");
    }
    // early data
    let more = [&hello, &b"\x17\x03\x03\x00\x01x"[..]].concat();
    assert_eq!(read_hello(&more), read_hello(&hello));
}

#[test]
fn the_answer_stays() {
    let mut reader = HelloReader::default();
    let hello = Forge::default().bytes();
    assert_eq!(reader.read(&hello), reader.read(&hello));
    let mut reader = HelloReader::default();
    assert_eq!(reader.read(b"GET"), Progress::Refused(HelloRefusal::NotTls));
    assert_eq!(reader.read(b"GET /"), Progress::Refused(HelloRefusal::NotTls));
}

#[test]
fn a_hello_of_64_kib_is_read() {
    let padded = |bytes| Forge::with(SERVER_NAME, server_names(&[b"a.example"])).and(PADDING, vec![0; bytes]);
    let full = padded(MAX_HELLO_MESSAGE_BYTES - padded(0).message().len());
    assert_eq!(full.message().len(), MAX_HELLO_MESSAGE_BYTES);
    for sizes in [&[1 << 14][..], &[6], &[100, 7]] {
        let bytes = records(&full.message(), sizes);
        assert!(bytes.len() <= MAX_HELLO_BYTES);
        assert_eq!(sni(&bytes).as_deref(), Some("a.example"));
    }
}

#[test]
fn a_name_is_in_lower_case_and_without_a_dot_at_its_end() {
    assert_eq!(named(b"WWW.Example.COM").as_deref(), Some("www.example.com"));
    assert_eq!(named(b"www.example.com.").as_deref(), Some("www.example.com"));
    assert_eq!(
        named(b"xn--exmple-cua.com").as_deref(),
        Some("xn--exmple-cua.com")
    );
    assert_eq!(named(&[b'a'; 255]).as_deref(), Some(&*"a".repeat(255)));
}

#[test]
fn an_address_is_a_name_that_says_what_it_says() {
    assert_eq!(named(b"192.0.2.1").as_deref(), Some("192.0.2.1"));
    assert_eq!(named(b"2001:DB8::1").as_deref(), Some("2001:db8::1"));
}

#[test]
fn names_that_are_no_hosts_are_left_out() {
    let other = [&[9][..], &block16(b"else")].concat();
    let host = [&[0][..], &block16(b"a.example")].concat();
    let with = |names: &[&[u8]]| sni(&Forge::with(SERVER_NAME, block16(&names.concat())).bytes());
    assert_eq!(with(&[&other]), None);
    assert_eq!(with(&[&other, &host, &other]).as_deref(), Some("a.example"));
}

#[test]
fn a_hello_may_name_no_host_and_have_no_extension() {
    assert_eq!(sni(&Forge::default().bytes()), None);
    let old = Forge {
        legacy_version: 0x0301,
        session_id: Vec::new(),
        extensions: None,
        ..Forge::default()
    };
    let hello = hello_of(&old.bytes());
    assert_eq!((hello.sni, hello.highest_version), (None, 0x0301));
    assert!(hello.alpn.is_empty());
}

#[test]
fn the_protocols_keep_their_order() {
    let bytes = Forge::with(ALPN, protocols(&[b"h2", b"http/1.1", b"\x5a\x5a"])).bytes();
    let alpn = hello_of(&bytes).alpn;
    assert_eq!(names(&alpn), [&b"h2"[..], b"http/1.1", b"\x5a\x5a"]);
    assert!(alpn.offers(b"http/1.1") && !alpn.offers(b"http/1"));
    assert_eq!(format!("{alpn:?}"), r#"["h2", "http/1.1", "ZZ"]"#);
}

#[test]
fn the_highest_version_is_that_of_the_list_and_grease_is_none() {
    let version = |list: &[u8]| {
        let bytes = Forge::with(SUPPORTED_VERSIONS, block8(list)).bytes();
        hello_of(&bytes).highest_version
    };
    assert_eq!(version(&[0x7a, 0x7a, 3, 3, 3, 4, 3, 1]), 0x0304);
    assert_eq!(
        version(&[3, 2]),
        0x0302,
        "not what stands in its place before TLS 1.3"
    );
    assert_eq!(
        version(&[0xfa, 0xfa, 0x7f, 0x1c]),
        0x0303,
        "nothing in it is known"
    );
}

#[test]
fn what_is_kept_has_bounds() {
    assert!(size_of::<HelloReader>() <= 40);
    // as many protocols as there can be, which in boxes of their own would take forty times as much
    let many: Vec<&[u8]> = vec![b"x"; 32_000];
    let hello = hello_of(&Forge::with(ALPN, protocols(&many)).bytes());
    assert_eq!(hello.alpn.iter().count(), many.len());
    assert_eq!(
        size_of::<Alpn>(),
        size_of::<Box<[u8]>>(),
        "one box for all of them"
    );
}

//! What is no ClientHello, or a wrong one.

use super::{
    super::{MAX_HELLO_BYTES, MAX_HELLO_MESSAGE_BYTES},
    forge::{Forge, block8, block16, protocols, record, records, server_names},
    *,
};
use HelloRefusal::{Malformed, NotTls, TooLong};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Why bytes are refused, and after how many of them, if they come one at a time.
fn hello_refusal(bytes: &[u8]) -> (HelloRefusal, usize) {
    let mut reader = HelloReader::default();
    let (why, when) = refusal(bytes, |part| reader.read(part));
    assert_eq!(read_hello(bytes), Progress::Refused(why), "whole");
    (why, when)
}

/// What is wrong with a whole message.
fn fault(forge: &Forge) -> &'static str {
    let bytes = forge.bytes();
    match hello_refusal(&bytes) {
        (Malformed(why), when) => {
            assert_eq!(when, bytes.len(), "{why}");
            why
        }
        (other, _) => panic!("{other}"),
    }
}

fn fault_of_name(extension: Vec<u8>) -> &'static str {
    fault(&Forge::with(SERVER_NAME, extension))
}

#[test]
fn what_is_no_tls_is_known_with_the_byte_that_shows_it() {
    for (bytes, needed) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 1),
        (b"\r\n\r\n\0\r\nQUIT\n", 1),
        // the ClientHello of SSL 2.0
        (b"\x80\x2e\x01\x03\x01\x00\x15", 1),
        (b"\x15\x03\x03\x00\x02\x02\x28", 1),
        (b"\x17\x03\x03\x00\x01\x00", 1),
        (b"\x16\x02\x00\x00\x05", 2),
        (b"\x16\x05\x00\x00\x05", 2),
        // ServerHello, HelloRequest
        (b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", 6),
        (b"\x16\x03\x03\x00\x04\x00\x00\x00\x00", 6),
    ] {
        let shown = bytes.escape_ascii();
        assert_eq!(hello_refusal(bytes), (NotTls, needed), "{shown}");
    }
}

#[test]
fn a_message_of_more_than_64_kib_is_refused_once_it_has_said_so() {
    let bytes = |length: usize| {
        let length = (length as u32).to_be_bytes();
        records(&[&[1], &length[1..], &[0; 40]].concat(), &[44])
    };
    let longest = MAX_HELLO_MESSAGE_BYTES - 4;
    assert_eq!(read_hello(&bytes(longest)), Progress::More);
    assert_eq!(hello_refusal(&bytes(longest + 1)), (TooLong, 9));
    assert_eq!(hello_refusal(&bytes(0xff_ffff)), (TooLong, 9));
}

#[test]
fn records_that_make_a_hello_much_longer_are_refused() {
    let padding = vec![0; 60_000];
    let bytes = records(&Forge::with(21, padding).message(), &[1]);
    assert!(bytes.len() > MAX_HELLO_BYTES);
    let mut reader = HelloReader::default();
    assert_eq!(reader.read(&bytes[..MAX_HELLO_BYTES - 1]), Progress::More);
    assert_eq!(reader.read(&bytes[..MAX_HELLO_BYTES]), Progress::Refused(TooLong));
    assert_eq!(read_hello(&bytes), Progress::Refused(TooLong));
}

#[test]
fn a_record_of_a_hello_is_neither_empty_nor_longer_than_16_kib() {
    let empty = Malformed("a record of it is empty");
    let message = Forge::default().message();
    assert_eq!(hello_refusal(&record(22, b"")), (empty, 5));
    let later = [record(22, &message[..9]), record(22, b"")].concat();
    assert_eq!(hello_refusal(&later), (empty, 19));
    let long = Malformed("a record of it is longer than 16 KiB");
    assert_eq!(hello_refusal(b"\x16\x03\x01\x40\x01"), (long, 5));
    assert_eq!(read_hello(b"\x16\x03\x01\x40\x00"), Progress::More);
}

#[test]
fn nothing_may_come_between_the_records_of_a_hello() {
    let message = Forge::default().message();
    let why = Malformed("another record is in the middle of it");
    // in the middle of its type and length, and after them
    for cut in [1, 3, 4, 20] {
        let first = record(22, &message[..cut]);
        for (between, byte) in [(&b"\x15\x03\x03\x00\x02\x01\x00"[..], 1), (b"\x16\x02", 2)] {
            let bytes = [&first, between].concat();
            assert_eq!(hello_refusal(&bytes), (why, first.len() + byte));
        }
    }
}

#[test]
fn a_hello_ends_with_its_record() {
    let bytes = record(22, &[&Forge::default().message()[..], &[1]].concat());
    let why = Malformed("there is more in its record");
    assert_eq!(hello_refusal(&bytes), (why, bytes.len() - 1));
}

#[test]
fn each_field_keeps_to_its_bounds() {
    let forge = Forge::default();
    let session_id = Forge {
        session_id: vec![0; 33],
        ..forge.clone()
    };
    assert_eq!(fault(&session_id), "its session id is longer than 32 bytes");
    for cipher_suites in [vec![], vec![0x13, 0x01, 0x13]] {
        let wrong = Forge {
            cipher_suites,
            ..forge.clone()
        };
        assert_eq!(fault(&wrong), "its list of cipher suites is not valid");
    }
    let compression = Forge {
        compression_methods: vec![],
        ..forge.clone()
    };
    assert_eq!(fault(&compression), "it has no compression method");
    let rest = Forge {
        rest: vec![0],
        ..forge
    };
    assert_eq!(fault(&rest), "there are bytes after its extensions");
}

#[test]
fn a_message_that_ends_too_early_is_refused_wherever_it_ends() {
    let forge = Forge::with(SERVER_NAME, server_names(&[b"a.example"])).and(ALPN, protocols(&[b"h2"]));
    let message = forge.message();
    let before_extensions = Forge {
        extensions: None,
        ..forge
    };
    let whole_without = before_extensions.message().len();
    for end in 4..message.len() {
        let length = ((end - 4) as u32).to_be_bytes();
        let cut = [&[1], &length[1..], &message[4..end]].concat();
        let read = read_hello(&records(&cut, &[1 << 14]));
        match end == whole_without {
            true => assert!(matches!(read, Progress::Done(_)), "without extensions"),
            false => assert!(
                matches!(read, Progress::Refused(Malformed(_))),
                "at {end}: {read:?}"
            ),
        }
    }
}

#[test]
fn no_two_extensions_are_of_one_type() {
    let why = "it has two extensions of one type";
    for kind in [SERVER_NAME, ALPN, 0x0a0a] {
        let data = match kind {
            SERVER_NAME => server_names(&[b"a.example"]),
            _ => protocols(&[b"h2"]),
        };
        let twice = Forge::with(kind, data.clone()).and(51, vec![]).and(kind, data);
        assert_eq!(fault(&twice), why);
    }
    let grease = Forge::with(0x0a0a, vec![]).and(0xfafa, vec![0]);
    assert!(matches!(read_hello(&grease.bytes()), Progress::Done(_)));
}

#[test]
fn a_name_has_characters_that_a_host_name_may_have() {
    let why = "its host name has characters that no host name has";
    for name in [
        &b"a\0.example"[..],
        b"\0",
        b"a b.example",
        b"a\n.example",
        "exämple.com".as_bytes(),
        b"a\xff",
        b"a\x7f",
    ] {
        assert_eq!(
            fault_of_name(server_names(&[name])),
            why,
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn a_name_has_from_1_to_255_bytes() {
    for name in [&b""[..], b".", b"a..", b".."] {
        assert_eq!(
            fault_of_name(server_names(&[name])),
            "its host name is empty",
            "{}",
            name.escape_ascii()
        );
    }
    assert_eq!(
        fault_of_name(server_names(&[&[b'a'; 256]])),
        "its host name is longer than 255 bytes"
    );
}

#[test]
fn a_list_of_server_names_has_one_host_and_fills_its_extension() {
    assert_eq!(
        fault_of_name(server_names(&[b"a.example", b"a.example"])),
        "it names two hosts"
    );
    let not_valid = "its list of server names is not valid";
    let more = [server_names(&[b"a.example"]), vec![0]].concat();
    for list in [vec![], vec![0], block16(b""), more, b"\0\x09\0".to_vec()] {
        assert_eq!(fault_of_name(list), not_valid);
    }
    let does_not_fit = "a length in it does not fit";
    for list in [&b"\0"[..], b"\0\0", b"\0\0\x09a.exampl"] {
        assert_eq!(fault_of_name(block16(list)), does_not_fit);
    }
}

#[test]
fn a_list_of_protocols_has_one_and_none_is_empty() {
    let more = [protocols(&[b"h2"]), vec![0]].concat();
    for list in [
        vec![],
        vec![0],
        block16(b""),
        block16(b"\x03h2"),
        more,
        protocols(&[b"h2", b"", b"http/1.1"]),
    ] {
        let fault = fault(&Forge::with(ALPN, list));
        assert_eq!(fault, "its list of application protocols is not valid");
    }
}

#[test]
fn a_list_of_versions_has_one_and_is_whole() {
    let more = [block8(&[3, 4]), vec![0]].concat();
    for list in [
        vec![],
        vec![0],
        block8(&[3]),
        block8(&[3, 4, 3]),
        vec![4, 3, 4],
        more,
    ] {
        let fault = fault(&Forge::with(SUPPORTED_VERSIONS, list));
        assert_eq!(fault, "its list of versions is not valid");
    }
}

//! Any bytes as the first ones of a connection whose route depends on its ClientHello.
//!
//! However they come, in pieces and in records, the reader's answer is one. What it takes for a name is safe in a log.

#![no_main]

use convey::preamble::{
    ClientHello, HelloReader, HelloRefusal, MAX_HELLO_BYTES, MAX_HOST_NAME_BYTES, Progress,
};
use libfuzzer_sys::fuzz_target;

type Answer = Progress<ClientHello, HelloRefusal>;

fuzz_target!(|bytes: &[u8]| {
    let whole = HelloReader::default().read(bytes);
    for size in [1, 1 + bytes.len() % 97] {
        assert_eq!(in_pieces(bytes, size), whole, "in pieces of {size} bytes");
    }
    match &whole {
        Progress::More => assert!(bytes.len() < MAX_HELLO_BYTES),
        Progress::Refused(refusal) => assert!(!refusal.to_string().is_empty()),
        Progress::Done(hello) => {
            check(hello, bytes.len());
            for size in [1, 1 + bytes.len() % 97, 1 << 14] {
                let again = HelloReader::default().read(&in_records(bytes, size));
                assert_eq!(again, whole, "in records of {size} bytes");
            }
        }
    }
});

fn in_pieces(bytes: &[u8], size: usize) -> Answer {
    let mut reader = HelloReader::default();
    let mut ends = (0..bytes.len()).step_by(size).chain([bytes.len()]);
    let decided = ends.find_map(|end| match reader.read(&bytes[..end]) {
        Progress::More => None,
        decided => Some(decided),
    });
    decided.unwrap_or(Progress::More)
}

/// The ClientHello that bytes begin with, in records of another size.
fn in_records(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut rest, mut message) = (bytes, Vec::new());
    let length =
        |header: &[u8]| usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    while message.len() < 4 || message.len() < 4 + length(&message[1..4]) {
        let payload = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        message.extend_from_slice(&rest[5..5 + payload]);
        rest = &rest[5 + payload..];
    }
    let mut records = Vec::new();
    for payload in message.chunks(size) {
        records.extend([22, 3, 1]);
        records.extend((payload.len() as u16).to_be_bytes());
        records.extend_from_slice(payload);
    }
    records
}

fn check(hello: &ClientHello, length: usize) {
    if let Some(name) = &hello.sni {
        assert!((1..=MAX_HOST_NAME_BYTES).contains(&name.len()) && !name.ends_with('.'));
        let is_canonical = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
        assert!(name.bytes().all(is_canonical), "{name:?}");
    }
    let protocols = || hello.alpn.iter();
    assert_eq!(hello.alpn.is_empty(), protocols().count() == 0);
    assert!(protocols().all(|protocol| !protocol.is_empty() && hello.alpn.offers(protocol)));
    assert!(protocols().map(|protocol| 1 + protocol.len()).sum::<usize>() <= length);
}

//! Any bytes as the first ones of a connection that has a PROXY header.
//!
//! However many of them there are, what has been decided stays so. A header that is accepted is written again, in both
//! versions, and read as the same.

#![no_main]

use std::net::SocketAddr;

use convey::preamble::{
    Progress,
    proxy::{self, MAX_HEADER_BYTES, ProxyHeader, ProxySource, Tlvs, write_v1, write_v2},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = proxy::read(bytes);
    let decided = (0..bytes.len())
        .map(|end| proxy::read(&bytes[..end]))
        .find(|read| *read != Progress::More);
    assert_eq!(decided.unwrap_or_else(|| whole.clone()), whole);
    match whole {
        Progress::More => assert!(bytes.len() < MAX_HEADER_BYTES),
        Progress::Refused(refusal) => assert!(!refusal.to_string().is_empty()),
        Progress::Done(header) => {
            assert!(header.length <= bytes.len().min(MAX_HEADER_BYTES));
            check(&header);
        }
    }
});

fn header_of(bytes: &[u8]) -> ProxyHeader {
    match proxy::read(bytes) {
        Progress::Done(header) => header,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn check(header: &ProxyHeader) {
    if let ProxySource::Client { client, destination } = header.source {
        assert!(is_canonical(client) && is_canonical(destination), "{header:?}");
    }
    for with_checksum in [false, true] {
        let again = header_of(&write_v2(header.source, &header.tlvs, with_checksum));
        assert_eq!(again.source, header.source);
        assert_eq!(
            again.tlvs,
            match header.source {
                ProxySource::Local => Tlvs::default(),
                _ => header.tlvs.clone(),
            }
        );
    }
    let again = header_of(&write_v1(header.source));
    assert_eq!(
        again.source,
        match header.source {
            ProxySource::Local => ProxySource::Unknown,
            source => source,
        }
    );
}

fn is_canonical(addr: SocketAddr) -> bool {
    addr.ip() == addr.ip().to_canonical()
}

//! Whatever comes and however it is cut: the answer is one, and nothing panics. What is written is what is read.

use std::net::{IpAddr, SocketAddr};

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{
    super::proxy::{Bytes, MAX_HEADER_BYTES, MAX_V1_BYTES, Ssl, Text, Tlvs, write_v1, write_v2},
    super::{MAX_HELLO_BYTES, MAX_HOST_NAME_BYTES},
    clients::CLIENTS,
    forge::{Forge, protocols, records, server_names},
    *,
};

/// ClientHellos with whatever they may have, and some that they may not, in records of any size.
fn hello() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        2 => "[a-zA-Z0-9.-]{0,20}".prop_map(|name| (0, server_names(&[name.as_bytes()]))),
        2 => vec(vec(any::<u8>(), 0..9), 0..5).prop_map(|names| {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            (16, protocols(&names))
        }),
        1 => vec(any::<u8>(), 0..12).prop_map(|data| (43, data)),
        2 => (any::<u16>(), vec(any::<u8>(), 0..200)),
    ];
    let forged = (vec(extension, 0..8), vec(any::<u8>(), 0..2)).prop_map(|(extensions, rest)| {
        let forge = Forge {
            extensions: Some(extensions),
            rest,
            ..Forge::default()
        };
        forge.message()
    });
    let real = (0..CLIENTS.len()).prop_map(|at| CLIENTS[at].bytes[5..].to_vec());
    (prop_oneof![3 => forged, 1 => real], vec(1..600_usize, 1..6))
        .prop_map(|(message, sizes)| records(&message, &sizes))
}

/// Bytes with some of them changed, cut off at an end, or followed by others.
fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), any::<u8>());
    (
        bytes,
        vec(change, 0..4),
        option::weighted(0.2, any::<Index>()),
        vec(any::<u8>(), 0..8),
    )
        .prop_map(|(mut bytes, changes, cut, after)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            match cut {
                Some(cut) => bytes.truncate(cut.index(bytes.len())),
                None => bytes.extend(after),
            }
            bytes
        })
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn source() -> impl Strategy<Value = ProxySource> {
    prop_oneof![
        8 => (addr(), addr()).prop_map(|(client, destination)| ProxySource::client(client, destination)),
        1 => Just(ProxySource::Unknown),
        1 => Just(ProxySource::Local),
    ]
}

fn text() -> impl Strategy<Value = Option<Text<255>>> {
    "\\PC{0,40}".prop_map(|text| Text::new(text.as_bytes()))
}

fn tlvs() -> impl Strategy<Value = Tlvs> {
    let texts = (text(), text(), text(), text(), text());
    let ssl = (any::<[bool; 3]>(), any::<u32>(), texts).prop_map(|(bits, verify, texts)| Ssl {
        is_tls: bits[0],
        certificate_in_connection: bits[1],
        certificate_in_session: bits[2],
        verify,
        version: texts.0,
        common_name: texts.1,
        cipher: texts.2,
        signature_algorithm: texts.3,
        key_algorithm: texts.4,
    });
    (
        text(),
        vec(any::<u8>(), 0..256),
        vec(any::<u8>(), 0..129),
        option::of(ssl),
    )
        .prop_map(|(authority, alpn, unique_id, ssl)| Tlvs {
            authority,
            alpn: Bytes::new(&alpn),
            unique_id: Bytes::new(&unique_id),
            ssl,
        })
}

/// A header of either version, or much like one.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let words = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{0,20}){0,4}( [0-9]{0,6}){0,2}(\r\n|\n|\r)?";
    prop_oneof![
        3 => (source(), tlvs(), any::<bool>()).prop_map(|(source, tlvs, sum)| write_v2(source, &tlvs, sum)),
        1 => source().prop_map(write_v1),
        1 => words.prop_map(String::into_bytes),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..12)
}

/// Ends of the pieces that the cuts make.
fn ends(cuts: &[Index], length: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    ends.sort_unstable();
    ends
}

fn check_hello(bytes: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let whole = read_hello(bytes);
    prop_assert_eq!(&read_hello_in_pieces(bytes, ends(cuts, bytes.len())), &whole);
    prop_assert_eq!(&read_hello_in_pieces(bytes, 0..bytes.len()), &whole);
    prop_assert!(whole != Progress::More || bytes.len() < MAX_HELLO_BYTES);
    if let Progress::Done(hello) = whole {
        let name = hello.sni.unwrap_or_else(|| "none".into());
        prop_assert!((1..=MAX_HOST_NAME_BYTES).contains(&name.len()) && !name.ends_with('.'));
        prop_assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        );
        let offered: usize = hello.alpn.iter().map(|name| 1 + name.len()).sum();
        prop_assert!(offered <= bytes.len() && hello.alpn.iter().all(|name| !name.is_empty()));
    }
    Ok(())
}

fn check_header(bytes: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let whole = proxy::read(bytes);
    for end in ends(cuts, bytes.len()) {
        // what has been decided stays so
        match proxy::read(&bytes[..end]) {
            Progress::More => {}
            decided => prop_assert_eq!(&decided, &whole),
        }
    }
    match whole {
        Progress::More => prop_assert!(bytes.len() < MAX_HEADER_BYTES),
        Progress::Refused(_) => {}
        Progress::Done(header) => {
            prop_assert!(header.length <= bytes.len().min(MAX_HEADER_BYTES));
            prop_assert_eq!(proxy::read(&bytes[..header.length - 1]), Progress::More);
            let again = write_v2(header.source, &header.tlvs, true);
            prop_assert_eq!(header_of(&again).source, header.source);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_hello_is_read_alike_however_it_comes(bytes in hello(), cuts in cuts()) {
        check_hello(&bytes, &cuts)?;
    }

    #[test]
    fn a_damaged_hello_is_judged_alike_however_it_comes(bytes in damaged(hello()), cuts in cuts()) {
        check_hello(&bytes, &cuts)?;
    }

    #[test]
    fn any_bytes_after_the_type_of_a_record_are_judged_alike(
        bytes in vec(any::<u8>(), 0..200),
        known in 0..7_usize,
        cuts in cuts(),
    ) {
        let bytes = [&b"\x16\x03\x01\x00\x50\x01\x00"[..known], &bytes].concat();
        check_hello(&bytes, &cuts)?;
    }

    #[test]
    fn a_header_is_read_alike_however_it_comes(bytes in damaged(header()), cuts in cuts()) {
        check_header(&bytes, &cuts)?;
    }

    #[test]
    fn any_bytes_after_a_signature_are_judged_alike(
        signature in prop::sample::select(vec![&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        bytes in vec(any::<u8>(), 0..300),
        cuts in cuts(),
    ) {
        check_header(&[signature, &bytes].concat(), &cuts)?;
    }

    #[test]
    fn what_is_written_in_version_1_is_what_is_read(source in source(), after in vec(any::<u8>(), 0..9)) {
        let line = write_v1(source);
        prop_assert!(line.len() <= MAX_V1_BYTES);
        let read = header_of(&[&line[..], &after].concat());
        let expected = match source {
            ProxySource::Local => ProxySource::Unknown,
            source => source,
        };
        prop_assert_eq!((read.source, read.length), (expected, line.len()));
    }

    #[test]
    fn what_is_written_in_version_2_is_what_is_read(
        source in source(),
        tlvs in tlvs(),
        sum in any::<bool>(),
        after in vec(any::<u8>(), 0..9),
    ) {
        let bytes = write_v2(source, &tlvs, sum);
        let read = header_of(&[&bytes[..], &after].concat());
        prop_assert_eq!((read.source, read.length), (source, bytes.len()));
        match source {
            ProxySource::Local => prop_assert_eq!(read.tlvs, Tlvs::default()),
            _ => prop_assert_eq!(read.tlvs, tlvs),
        }
    }
}

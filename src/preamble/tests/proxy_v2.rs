//! Version 2 of the PROXY protocol, rule by rule (section 2.2 of its specification).

use super::{
    super::proxy::{Bytes, MAX_HEADER_BYTES, ProxyVersion, Ssl, Text, Tlvs, UNVERIFIED, write_v2},
    forge::block16,
    *,
};
use ProxyRefusal::{Checksum, Malformed, TooLong};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 0x01, 0xbb];
const NOOP: u8 = 0x04;

fn v4() -> ProxySource {
    client("192.0.2.1:8080", "198.51.100.2:443")
}

/// A header of version and command, family and protocol, and what follows.
fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &block16(block)].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &block16(value)].concat()
}

/// A header for a client with IPv4 addresses and these TLVs.
fn with(tlvs: &[&[u8]]) -> Vec<u8> {
    header(0x21, 0x11, &[V4, &tlvs.concat()].concat())
}

fn source(bytes: &[u8]) -> ProxySource {
    let read = header_of(bytes);
    assert_eq!((read.version, read.length), (ProxyVersion::V2, bytes.len()));
    read.source
}

fn fault(bytes: &[u8]) -> &'static str {
    match proxy_refusal(bytes) {
        Malformed(why) => why,
        other => panic!("{}: {other}", bytes.escape_ascii()),
    }
}

#[test]
fn tcp_and_udp_over_ipv4_and_ipv6_say_who_the_client_is() {
    let v6 = [
        &b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"[..],
        b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02",
        b"\0\x07\xff\xff",
    ]
    .concat();
    for family in [0x11, 0x12] {
        assert_eq!(source(&header(0x21, family, V4)), v4());
    }
    for family in [0x21, 0x22] {
        assert_eq!(
            source(&header(0x21, family, &v6)),
            client("[2001:db8::1]:7", "[2001:db8::2]:65535")
        );
    }
}

#[test]
fn an_ipv4_address_that_is_mapped_is_the_ipv4_address() {
    let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1]].concat();
    let block = [&mapped, &mapped, &[0, 1, 0, 2][..]].concat();
    assert_eq!(
        source(&header(0x21, 0x21, &block)),
        client("192.0.2.1:1", "192.0.2.1:2")
    );
}

#[test]
fn a_unix_socket_and_an_unknown_protocol_leave_the_peer_to_speak_for_itself() {
    for family in [0x31, 0x32] {
        assert_eq!(source(&header(0x21, family, &[b'/'; 216])), ProxySource::Unknown);
    }
    for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        for block in [&b""[..], V4, b"\x01", b"\x01\0\xff\0"] {
            assert_eq!(
                source(&header(0x21, family, block)),
                ProxySource::Unknown,
                "{family:#x}"
            );
        }
    }
}

#[test]
fn of_local_family_and_block_are_ignored() {
    let wrong_sum = tlv(0x03, &[0; 4]);
    for (family, block) in [
        (0x00, &b""[..]),
        (0x11, V4),
        (0x11, &V4[..5]),
        (0xff, b"whatever"),
        (0x00, &wrong_sum),
    ] {
        let bytes = header(0x20, family, block);
        assert_eq!(source(&bytes), ProxySource::Local);
        assert_eq!(header_of(&bytes).tlvs, Tlvs::default());
    }
}

#[test]
fn other_versions_commands_families_and_protocols_are_refused_at_once() {
    let refused = |third: &[u8]| refusal(&[SIGNATURE, third].concat(), proxy::read);
    for version in [0x01, 0x11, 0x31, 0xf1] {
        assert_eq!(refused(&[version]), (Malformed("its version is not 2"), 13));
    }
    for command in 0x22..=0x2f {
        assert_eq!(
            refused(&[command]),
            (Malformed("its command is not LOCAL or PROXY"), 13)
        );
    }
    for family in [0x41, 0xf1, 0x03, 0x13, 0x1f] {
        let why = Malformed("its family or its protocol is not one");
        assert_eq!(refused(&[0x21, family]), (why, 14));
    }
}

#[test]
fn a_header_that_is_too_short_for_its_addresses_is_refused() {
    for (family, length) in [
        (0x11, 12),
        (0x12, 12),
        (0x21, 36),
        (0x22, 36),
        (0x31, 216),
        (0x32, 216),
    ] {
        let short = header(0x21, family, &vec![0; length - 1]);
        assert_eq!(fault(&short), "it is too short for its addresses");
        source(&header(0x21, family, &vec![0; length]));
    }
}

#[test]
fn a_header_ends_where_its_length_says() {
    let bytes = header(0x21, 0x11, V4);
    for end in 0..bytes.len() {
        assert_eq!(proxy::read(&bytes[..end]), Progress::More, "{end} bytes");
    }
    assert_eq!(header_of(&[&bytes[..], b"GET /"].concat()).length, bytes.len());
}

#[test]
fn a_header_may_have_8_kib_and_one_that_is_longer_is_refused_once_it_has_said_so() {
    let padding = vec![0; MAX_HEADER_BYTES - 16 - V4.len() - 3];
    assert_eq!(source(&with(&[&tlv(NOOP, &padding)])), v4());
    let long = with(&[&tlv(NOOP, &padding), b"\x04\0\0"]);
    assert_eq!(refusal(&long, proxy::read), (TooLong, 16));
    let longest = [SIGNATURE, b"\x21\x11\xff\xff"].concat();
    assert_eq!(proxy_refusal(&longest), TooLong);
}

#[test]
fn the_values_of_each_type_are_read() {
    let ssl = [
        &b"\x07\0\0\0\0"[..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x22, "Łódź".as_bytes()),
        &tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
        &tlv(0x24, b"RSA-SHA256"),
        &tlv(0x25, b"RSA2048"),
        &tlv(0x99, b"of times to come"),
    ];
    let bytes = with(&[
        &tlv(NOOP, b""),
        &tlv(0x02, b"www.example.com"),
        &tlv(0x01, b"h2"),
        &tlv(0x05, b"\0\x01\xff"),
        &tlv(0x20, &ssl.concat()),
        &tlv(0x30, b"blue"),
        &tlv(0xea, b"\x01vpce-08d2bf15fac5001c9"),
        &tlv(0xff, b""),
    ]);
    let read = header_of(&bytes);
    assert_eq!(read.source, v4());
    assert_eq!(
        read.tlvs,
        Tlvs {
            authority: Text::new(b"www.example.com"),
            alpn: Bytes::new(b"h2"),
            unique_id: Bytes::new(b"\0\x01\xff"),
            ssl: Some(Ssl {
                is_tls: true,
                certificate_in_connection: true,
                certificate_in_session: true,
                verify: 0,
                version: Text::new(b"TLSv1.3"),
                common_name: Text::new("Łódź".as_bytes()),
                cipher: Text::new(b"TLS_AES_128_GCM_SHA256"),
                signature_algorithm: Text::new(b"RSA-SHA256"),
                key_algorithm: Text::new(b"RSA2048"),
            }),
        }
    );
}

#[test]
fn each_bit_of_the_client_s_tls_means_one_thing() {
    let read = |bits| header_of(&with(&[&tlv(0x20, &[bits, 0, 0, 1, 2])])).tlvs.ssl;
    let ssl = |is_tls, certificate_in_connection, certificate_in_session| Ssl {
        is_tls,
        certificate_in_connection,
        certificate_in_session,
        verify: 0x0102,
        ..Ssl::default()
    };
    assert_eq!(read(1), Some(ssl(true, false, false)));
    assert_eq!(read(2), Some(ssl(false, true, false)));
    assert_eq!(read(4), Some(ssl(false, false, true)));
    assert_eq!(read(0xf8), Some(ssl(false, false, false)), "unknown bits");
}

#[test]
fn of_two_values_of_one_type_the_first_counts_and_one_of_nothing_is_none() {
    let authority = |values: &[&[u8]]| {
        let tlvs: Vec<_> = values.iter().map(|value| tlv(0x02, value)).collect();
        header_of(&with(&[&tlvs.concat()])).tlvs.authority
    };
    assert_eq!(authority(&[b"a.example", b"b.example"]), Text::new(b"a.example"));
    assert_eq!(authority(&[b""]), None);
    assert_eq!(authority(&[b"", b"b.example"]), Text::new(b"b.example"));
}

#[test]
fn text_that_would_disturb_a_log_is_made_harmless() {
    let text = |bytes: &[u8]| Text::<255>::new(bytes).map(|text| text.as_str().to_owned());
    assert_eq!(text(b"a\nb\x1b[31m\0").as_deref(), Some("a?b?[31m?"));
    assert_eq!(text(b"L\xf6we").as_deref(), Some("L?we"));
    assert_eq!(text("\u{85}Löwe".as_bytes()).as_deref(), Some("?Löwe"));
    assert_eq!(
        text(&[0xff; 255]),
        Some("?".repeat(255)),
        "never longer than it was"
    );
    assert_eq!((text(b""), text(&[b'a'; 256])), (None, None));
}

#[test]
fn values_that_do_not_fit_are_refused_wherever_they_are() {
    let why = "a value in it has a length that does not fit";
    for tail in [&b"\x04"[..], b"\x04\0", b"\x04\0\x01", b"\xee\xff\xff"] {
        assert_eq!(fault(&with(&[tail])), why);
        assert_eq!(fault(&with(&[&tlv(NOOP, b"xyz"), tail])), why);
        let unix = [&[0; 216], tail].concat();
        assert_eq!(fault(&header(0x21, 0x31, &unix)), why);
        let ssl = [&b"\x01\0\0\0\0"[..], tail].concat();
        assert_eq!(fault(&with(&[&tlv(0x20, &ssl)])), why);
    }
    assert_eq!(
        fault(&with(&[&tlv(0x20, &[1, 0, 0, 0])])),
        "what it says of TLS is too short"
    );
    assert_eq!(
        fault(&with(&[&tlv(0x20, b"")])),
        "what it says of TLS is too short"
    );
}

#[test]
fn values_keep_to_their_lengths() {
    let read = |kind, length| proxy::read(&with(&[&tlv(kind, &vec![b'a'; length])]));
    let tlvs = |kind, length| header_of(&with(&[&tlv(kind, &vec![b'a'; length])])).tlvs;
    assert!(tlvs(0x02, 255).authority.is_some() && tlvs(0x05, 128).unique_id.is_some());
    assert_eq!(
        read(0x02, 256),
        Progress::Refused(Malformed("its host name is longer than 255 bytes"))
    );
    assert_eq!(
        read(0x05, 129),
        Progress::Refused(Malformed("its unique id is longer than 128 bytes"))
    );
    // a copy of a whole ALPN extension, which is allowed
    assert!(tlvs(0x01, 255).alpn.is_some());
    assert_eq!(tlvs(0x01, 256).alpn, None);
}

#[test]
fn a_checksum_is_verified() {
    // computed independently, with Python's integers, from the polynomial of RFC 4960
    let bytes = with(&[&tlv(0x03, &CHECKSUM)]);
    assert_eq!(source(&bytes), v4());
    for at in (0..bytes.len()).filter(|at| (16..28).contains(at) || *at >= 31) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        assert_eq!(proxy_refusal(&wrong), Checksum, "byte {at}");
    }
    // of another length it is none, and two say two things
    for length in [0, 3, 5] {
        assert_eq!(
            fault(&with(&[&tlv(0x03, &vec![0; length])])),
            "its checksum has not 4 bytes"
        );
    }
    let twice = with(&[&tlv(0x03, &CHECKSUM), &tlv(0x03, &CHECKSUM)]);
    assert_eq!(fault(&twice), "it has two checksums");
}

#[test]
fn a_checksum_is_verified_of_unix_and_unknown_too() {
    let sum = tlv(0x03, &[1, 2, 3, 4]);
    let unix = [&[0; 216][..], &sum].concat();
    assert_eq!(proxy_refusal(&header(0x21, 0x31, &unix)), Checksum);
    assert_eq!(proxy_refusal(&header(0x21, 0x00, &sum)), Checksum);
    let right = write_v2(ProxySource::Unknown, &Tlvs::default(), true);
    assert_eq!(right.len(), 16 + 7);
    assert_eq!(source(&right), ProxySource::Unknown);
}

#[test]
fn a_health_check_is_written_as_local_without_anything_else() {
    let tlvs = Tlvs {
        alpn: Bytes::new(b"h2"),
        ..Tlvs::default()
    };
    let written = write_v2(ProxySource::Local, &tlvs, true);
    assert_eq!(written, header(0x20, 0x00, b""));
}

#[test]
fn what_is_written_has_the_form_of_the_specification() {
    assert_eq!(write_v2(v4(), &Tlvs::default(), false), header(0x21, 0x11, V4));
    let tlvs = Tlvs {
        authority: Text::new(b"a.example"),
        alpn: Bytes::new(b"h2"),
        unique_id: Bytes::new(b"1"),
        ssl: Some(Ssl {
            is_tls: true,
            verify: UNVERIFIED,
            version: Text::new(b"TLSv1.3"),
            ..Ssl::default()
        }),
    };
    let ssl = [&b"\x01\0\0\0\x01"[..], &tlv(0x21, b"TLSv1.3")].concat();
    let values = [
        tlv(0x02, b"a.example"),
        tlv(0x01, b"h2"),
        tlv(0x05, b"1"),
        tlv(0x20, &ssl),
    ];
    assert_eq!(write_v2(v4(), &tlvs, false), with(&[&values.concat()]));
    let sum = write_v2(v4(), &Tlvs::default(), true);
    assert_eq!(sum, with(&[&tlv(0x03, &CHECKSUM)]));
}

#[test]
fn addresses_of_two_families_are_written_as_ipv6() {
    let source = client("192.0.2.1:1", "[2001:db8::2]:2");
    let written = write_v2(source, &Tlvs::default(), false);
    assert_eq!((written[13], written.len()), (0x21, 16 + 36));
    assert_eq!(header_of(&written).source, source);
}

#[test]
fn the_longest_header_that_is_written_has_2_kib_at_most() {
    let long = || Text::new(&[b'a'; 255]);
    let tlvs = Tlvs {
        authority: long(),
        alpn: Bytes::new(&[b'a'; 255]),
        unique_id: Bytes::new(&[b'a'; 128]),
        ssl: Some(Ssl {
            version: long(),
            common_name: long(),
            cipher: long(),
            signature_algorithm: long(),
            key_algorithm: long(),
            ..Ssl::default()
        }),
    };
    let written = write_v2(client("[2001:db8::1]:1", "[2001:db8::2]:2"), &tlvs, true);
    assert!((2_000..=2_048).contains(&written.len()), "{}", written.len());
    assert_eq!(header_of(&written).tlvs, tlvs);
}

/// Of the header for [`v4`] with nothing else.
const CHECKSUM: [u8; 4] = [0xdc, 0xa6, 0xb6, 0xbb];

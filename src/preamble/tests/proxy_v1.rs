//! Version 1 of the PROXY protocol, rule by rule (section 2.1 of its specification).

use super::{
    super::proxy::{MAX_V1_BYTES, ProxyVersion, Tlvs, write_v1},
    *,
};
use ProxyRefusal::{Malformed, NotProxy, TooLong};

fn source(line: &str) -> ProxySource {
    let header = header_of(line.as_bytes());
    assert_eq!(
        (header.version, header.length),
        (ProxyVersion::V1, line.len()),
        "{line}"
    );
    assert_eq!(header.tlvs, Tlvs::default());
    header.source
}

fn fault(line: &str) -> &'static str {
    match proxy_refusal(line.as_bytes()) {
        Malformed(why) => why,
        other => panic!("{line}: {other}"),
    }
}

const ADDRESS: &str = "an address in it is not one of its family";
const PORT: &str = "a port in it is not a number from 0 to 65535";
const WORDS: &str = "its line has not six words with one space between them";
const PROTOCOL: &str = "its protocol is not TCP4, TCP6 or UNKNOWN";

#[test]
fn the_specification_s_example_says_who_the_client_is_and_where_its_bytes_begin() {
    let line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    let request = "GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
    let header = header_of(format!("{line}{request}").as_bytes());
    assert_eq!(header.source, client("192.168.0.1:56324", "192.168.0.11:443"));
    assert_eq!(header.length, line.len());
}

#[test]
fn the_longest_lines_of_the_specification_are_read() {
    let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!(line.len(), 56);
    assert_eq!(
        source(line),
        client("255.255.255.255:65535", "255.255.255.255:65535")
    );
    let line = format!("PROXY TCP6 {v6} {v6} 65535 65535\r\n");
    assert_eq!(line.len(), 104);
    let addr = format!("[{v6}]:65535");
    assert_eq!(source(&line), client(&addr, &addr));
    assert_eq!(source("PROXY UNKNOWN\r\n"), ProxySource::Unknown);
    let line = format!("PROXY UNKNOWN {v6} {v6} 65535 65535\r\n");
    assert_eq!(line.len(), MAX_V1_BYTES);
    assert_eq!(source(&line), ProxySource::Unknown);
}

#[test]
fn of_unknown_whatever_comes_before_the_end_of_the_line_is_ignored() {
    for ignored in [
        " ",
        " whatever",
        " a\nb\rc",
        "  TCP4 1.2.3.4",
        " \u{e9}",
        " \r",
        " \n",
    ] {
        assert_eq!(
            source(&format!("PROXY UNKNOWN{ignored}\r\n")),
            ProxySource::Unknown
        );
    }
    assert_eq!(fault("PROXY UNKNOWNS\r\n"), PROTOCOL);
}

#[test]
fn ipv6_addresses_may_be_written_in_every_way_that_there_is() {
    for text in [
        "2001:db8::1",
        "2001:DB8::1",
        "2001:0db8:0000:0000:0000:0000:0000:0001",
        "2001:db8:0:0::1",
    ] {
        assert_eq!(
            source(&format!("PROXY TCP6 {text} :: 0 1\r\n")),
            client("[2001:db8::1]:0", "[::]:1")
        );
    }
}

#[test]
fn an_ipv4_address_that_is_mapped_is_the_ipv4_address() {
    for text in ["::ffff:192.0.2.1", "::ffff:c000:201", "::FFFF:C000:0201"] {
        assert_eq!(
            source(&format!("PROXY TCP6 {text} 2001:db8::1 7 443\r\n")),
            client("192.0.2.1:7", "[2001:db8::1]:443")
        );
    }
}

#[test]
fn an_address_is_of_the_family_that_is_named() {
    for line in [
        "PROXY TCP4 2001:db8::1 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 2001:db8::1 1 2\r\n",
        "PROXY TCP6 2001:db8::1 192.0.2.1 1 2\r\n",
    ] {
        assert_eq!(fault(line), ADDRESS, "{line}");
    }
}

#[test]
fn an_address_is_canonical() {
    for ip in [
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.256",
        "192.0.2.01",
        "192.00.2.1",
        "0xc0.0.2.1",
        "192.0..1",
        "192.0.2.-1",
        "+192.0.2.1",
        "3221225985",
        "192.0.2.1\0",
        "localhost",
        "192.0.2.1:80",
    ] {
        assert_eq!(
            fault(&format!("PROXY TCP4 {ip} 192.0.2.9 1 2\r\n")),
            ADDRESS,
            "{ip}"
        );
        assert_eq!(
            fault(&format!("PROXY TCP4 192.0.2.9 {ip} 1 2\r\n")),
            ADDRESS,
            "{ip}"
        );
    }
    for ip in [
        "2001:db8",
        "1:2:3:4:5:6:7:8:9",
        "2001::db8::1",
        "2001:db8::00001",
        "2001:db8::g",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "2001:db8::1/64",
        ":::",
    ] {
        assert_eq!(fault(&format!("PROXY TCP6 {ip} :: 1 2\r\n")), ADDRESS, "{ip}");
        assert_eq!(fault(&format!("PROXY TCP6 :: {ip} 1 2\r\n")), ADDRESS, "{ip}");
    }
}

#[test]
fn a_port_is_a_number_without_a_zero_before_it() {
    for port in [
        "65536",
        "99999999999",
        "-1",
        "+1",
        "01",
        "00",
        "0x50",
        "http",
        "8\t",
        "٣",
    ] {
        for ports in [format!("{port} 443"), format!("443 {port}")] {
            let line = format!("PROXY TCP4 192.0.2.1 192.0.2.2 {ports}\r\n");
            assert_eq!(fault(&line), PORT, "{line}");
        }
    }
    let line = "PROXY TCP4 192.0.2.1 192.0.2.2 0 65535\r\n";
    assert_eq!(source(line), client("192.0.2.1:0", "192.0.2.2:65535"));
}

#[test]
fn there_is_exactly_one_space_between_words() {
    for line in [
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
        "PROXY TCP4 \r\n",
    ] {
        assert_eq!(fault(line), WORDS, "{line}");
    }
    assert_eq!(
        proxy_refusal(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\xff\r\n"),
        Malformed("its line is not ASCII")
    );
}

#[test]
fn another_protocol_is_refused_with_the_byte_that_shows_it() {
    for (line, byte) in [
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 7),
        ("PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n", 6),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", 7),
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", 10),
        ("PROXY TCP 192.0.2.1 192.0.2.2 1 2\r\n", 10),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", 8),
        ("PROXY\r\n", 6),
        ("PROXYING\r\n", 6),
    ] {
        let (why, when) = refusal(line.as_bytes(), proxy::read);
        assert_eq!((why, when), (Malformed(PROTOCOL), byte), "{line}");
    }
}

#[test]
fn a_line_ends_with_cr_and_lf_and_nothing_less() {
    let line = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2";
    let (why, when) = refusal(format!("{line}\nGET").as_bytes(), proxy::read);
    assert_eq!(
        (why, when),
        (Malformed("its line ends without CR"), line.len() + 1)
    );
    assert_eq!(fault(&format!("{line}\rGET / HTTP/1.1\r\n")), WORDS);
    assert_eq!(fault(&format!("{line}\r\r\n")), PORT);
    for end in 0..line.len() {
        assert_eq!(proxy::read(&line.as_bytes()[..end]), Progress::More);
    }
    assert_eq!(proxy::read(format!("{line}\r").as_bytes()), Progress::More);
}

#[test]
fn a_line_without_an_end_is_refused_at_107_bytes() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    assert_eq!(refusal(long.as_bytes(), proxy::read), (TooLong, MAX_V1_BYTES));
    let one_more = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(one_more.len(), MAX_V1_BYTES + 1);
    assert_eq!(proxy_refusal(one_more.as_bytes()), TooLong);
}

#[test]
fn what_is_no_header_is_known_with_the_byte_that_shows_it() {
    for (bytes, needed) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"\x16\x03\x01\x02\x00\x01", 1),
        (b"POST /", 2),
        (b"PROPFIND / HTTP/1.1\r\n", 4),
        (b"\r\nGET /", 3),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
    ] {
        let shown = bytes.escape_ascii();
        assert_eq!(refusal(bytes, proxy::read), (NotProxy, needed), "{shown}");
    }
    assert_eq!(proxy::read(b""), Progress::More);
}

#[test]
fn the_line_that_is_written_is_the_specification_s() {
    let written = |source| String::from_utf8(write_v1(source)).unwrap();
    assert_eq!(
        written(client("192.168.0.1:56324", "192.168.0.11:443")),
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
    assert_eq!(
        written(client("[2001:db8::1]:1", "[2001:db8::2]:65535")),
        "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
    );
    assert_eq!(
        written(client("[::ffff:192.0.2.1]:1", "192.0.2.2:2")),
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    );
    assert_eq!(written(ProxySource::Local), "PROXY UNKNOWN\r\n");
    assert_eq!(written(ProxySource::Unknown), "PROXY UNKNOWN\r\n");
}

#[test]
fn addresses_of_two_families_are_written_as_ipv6() {
    let source = client("192.0.2.1:1", "[2001:db8::2]:2");
    let line = write_v1(source);
    assert_eq!(line, b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    assert_eq!(header_of(&line).source, source);
}

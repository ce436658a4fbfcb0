//! Whatever is read, something comes of it that is TOML, or an error: no panic, and no directive lost.

use proptest::prelude::*;

use super::*;

/// Pieces of configurations of each kind, and what has no place in any.
const PIECES: [&str; 96] = [
    "virtual_server ",
    "virtual_server_group g {",
    "virtual_server group g {",
    "real_server ",
    "10.0.0.1 ",
    "10.0.0.1-9 80",
    "10.0.0.0/8 80",
    "80 ",
    " {",
    "}",
    "{ ",
    "lb_algo wrr",
    "lb_algo ovf",
    "lb_kind DR",
    "lb_kind TUN",
    "lb_kind NAT",
    "persistence_timeout ",
    "weight ",
    "sorry_server 10.0.0.9 80",
    "HTTP_GET {",
    "url {",
    "path /",
    "status_code 200-",
    "MISC_CHECK {",
    "misc_path \"",
    "UDP_CHECK {",
    "payload 6",
    "delay_loop 1e300",
    "retry 99999999999",
    "quorum 3",
    "$A=",
    "${A}",
    "$A",
    "\\",
    "@a ",
    "~SEQ(",
    "# ",
    "!",
    "'",
    "\"",
    "include x",
    "-A ",
    "-a ",
    "-t 10.0.0.1:80 ",
    "-t [::1]:http ",
    "-f 1 ",
    "-r 10.0.0.2 ",
    "-r 10.0.0.2:8 ",
    "-s wlc ",
    "-p ",
    "-M 255.0.255.0 ",
    "-w ",
    "-g ",
    "-m ",
    "-i ",
    "-C",
    "-D ",
    "--set 1 2 3",
    "--pe sip ",
    "[servers.a]",
    "bind = \"0.0.0.0:80\"",
    "bind = \":",
    "[servers.a.discovery]",
    "kind = \"static\"",
    "kind = \"srv\"",
    "kind = \"lxd\"",
    "kind = \"exec\"",
    "static_list = [\"10.0.0.1:80 weight=2\", \"x\"]",
    "[servers.a.healthcheck]",
    "probe_send = '\\x'",
    "interval = \"1h\"",
    "[servers.a.tls]",
    "[servers.a.backends_tls]",
    "[acme]",
    "[api]\nenabled = true",
    "[metrics]\nenabled = true\nbind = \":0\"",
    "servers:",
    "  - id: a",
    "    addr: {host: 0.0.0.0, port: 80}",
    "    match: [",
    "{pool: {hosts: [{addr: {host: h, port: 1}}]}}",
    "op: {sni: {equals: a}}",
    "tls: {open: true}",
    "udp: {}",
    "]",
    ",",
    ": ",
    "- ",
    "\n",
    "\n",
    "\n",
    "\n  ",
    "\t",
    "\u{1b}",
    "é",
    "\0",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        9 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn something_comes_of_everything(text in text()) {
        for kind in Kind::ALL {
            let file = InputFile::new("input", text.as_bytes());
            if let Ok(imported) = translate(kind, &file, &mut NoFiles) {
                let parsed = imported.text.parse::<toml::Table>();
                prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed, imported.text);
                let Counts { directives, translated, differing, without_equal } = imported.counts;
                prop_assert_eq!(directives, translated + differing + without_equal);
            }
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in Kind::ALL {
            let _either_way = translate(kind, &InputFile::new("input", &bytes), &mut NoFiles);
        }
    }
}

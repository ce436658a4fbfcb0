//! What takes files, and what cannot be read.

use crate::import::{Files, InputFile, Kind, NoFiles, translate};

struct Included;

impl Files for Included {
    fn read(&mut self, pattern: &str) -> Result<Vec<InputFile>, String> {
        let file = |name: &str, text: &str| InputFile::new(name, text.as_bytes());
        match pattern {
            "stream.d/*.conf" => Ok(vec![
                file("stream.d/a.conf", "upstream app { include servers.conf; }\n"),
                file(
                    "stream.d/b.conf",
                    "\nserver { listen 80; frobnicate on; proxy_pass app; }\n",
                ),
            ]),
            "servers.conf" => Ok(vec![file("servers.conf", "server 10.0.0.1:80;")]),
            "endless.conf" => Ok(vec![file("endless.conf", "include endless.conf;")]),
            _ => Err("there is none".to_owned()),
        }
    }
}

#[test]
fn what_is_included_is_translated_and_named_by_its_own_place() {
    let file = InputFile::new(
        "nginx.conf",
        b"stream { include stream.d/*.conf; include gone.conf; }",
    );
    let imported = translate(Kind::Nginx, &file, &mut Included).expect("a configuration");
    assert!(imported.findings.is_empty(), "{:?}", imported.findings);
    assert!(
        imported
            .text
            .contains("servers.server1 = { addr = \"10.0.0.1:80\" }")
    );
    let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "nginx.conf:1: `include gone.conf` has no equal: it was not read: there is none. What it says is missing here",
            "stream.d/b.conf:2: `frobnicate on` has no equal",
        ]
    );
}

#[test]
fn what_is_no_configuration_of_nginx_says_where() {
    for (text, why) in [
        ("", "nginx.conf:1: there is no block"),
        (
            "stream {\n  server {\n",
            "nginx.conf:3: the file ends within a block",
        ),
        ("stream { }\n}", "nginx.conf:2: there is a `}` too many"),
        (
            "stream {\n listen 80\n}",
            "nginx.conf:2: `listen` has no `;` behind it",
        ),
        ("a \"b\n\n", "nginx.conf:1: a quote is not closed"),
        (
            "include endless.conf;",
            "endless.conf:1: more than 10 files include each other",
        ),
    ] {
        let file = InputFile::new("nginx.conf", text.as_bytes());
        let error = translate(Kind::Nginx, &file, &mut Included).expect_err(text);
        assert!(error.to_string().starts_with(why), "{error}");
    }
    let deep = InputFile::new("nginx.conf", "a {".repeat(100_000).as_bytes());
    let error = translate(Kind::Nginx, &deep, &mut NoFiles).expect_err("no end");
    assert!(error.message.contains("blocks in each other"), "{error}");
}

#[test]
fn an_upstream_that_is_used_in_two_ways_is_two_backends() {
    let text = "stream { upstream u { server 10.0.0.1:80; } server { listen 80; proxy_pass u; } \
                server { listen 81; proxy_protocol on; proxy_pass u; } server { listen 82; proxy_pass u; } }";
    let imported = translate(
        Kind::Nginx,
        &InputFile::new("nginx.conf", text.as_bytes()),
        &mut NoFiles,
    )
    .expect("a configuration");
    assert!(imported.findings.is_empty(), "{:?}", imported.findings);
    let used = |backend: &str| {
        imported
            .text
            .matches(&format!("backend = \"{backend}\"\n"))
            .count()
    };
    assert_eq!((used("u"), used("u-2")), (2, 1), "{}", imported.text);
    assert_eq!(imported.text.matches("send_proxy").count(), 1);
}

/// What becomes of the inside of `stream`, which has to load.
fn stream(inside: &str) -> crate::import::Imported {
    let text = format!("stream {{\n{inside}\n}}\n");
    let imported = translate(
        Kind::Nginx,
        &InputFile::new("nginx.conf", text.as_bytes()),
        &mut NoFiles,
    )
    .expect("a configuration");
    let errors: Vec<_> = (imported.findings.iter())
        .filter(|finding| finding.severity == crate::config::Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{}", imported.text);
    imported
}

fn has(imported: &crate::import::Imported, lines: &str) {
    // comments are folded
    let text = imported.text.replace("\n#   ", " ");
    assert!(text.contains(lines), "{lines}\n{text}");
}

#[test]
fn rules_without_real_ip_judge_who_connects_and_open_nothing_to_headers() {
    let peers = |rules: &str| {
        let server = format!("server {{ listen 80 proxy_protocol; {rules} proxy_pass 10.0.0.1:80; }}");
        let imported = stream(&server);
        assert!(!imported.text.contains("rules ="), "{}", imported.text);
        imported
    };
    has(
        &peers("allow 10.0.0.0/8; allow 192.0.2.1; deny all;"),
        "from = [\"10.0.0.0/8\", \"192.0.2.1\"]\n",
    );
    has(
        &peers("deny 10.0.0.1; allow 10.0.0.0/30; deny all;"),
        "from = [\"10.0.0.2/31\", \"10.0.0.0\"]\n",
    );
    has(&peers("deny 128.0.0.0/1;"), "from = [\"0.0.0.0/1\", \"::/0\"]\n");
    has(
        &peers("deny all;"),
        "[frontends.tcp-80.access]\ndefault = \"deny\"\n",
    );
    has(
        &peers("allow 10.0.0.1; deny all;"),
        "`allow 10.0.0.1` differs: without set_real_ip_from it judges who connects",
    );
    has(&peers(""), "from = [\"0.0.0.0/0\", \"::/0\"]\n");
}

#[test]
fn rules_with_real_ip_judge_the_client_that_a_known_header_names() {
    let imported = stream(
        "server { listen 80 proxy_protocol; set_real_ip_from 10.0.0.9; allow 10.1.0.0/16; deny all; proxy_pass 10.0.0.1:80; }\n\
         server { listen 81 proxy_protocol; set_real_ip_from lb.example; proxy_pass 10.0.0.1:80; }",
    );
    has(&imported, "default = \"deny\"\nrules = [\"allow 10.1.0.0/16\"]\n");
    has(&imported, "from = [\"10.0.0.9\"]\n");
    // a name that cannot be read is not everybody
    has(&imported, "from = [\"127.0.0.1\", \"::1\"]\n");
}

#[test]
fn limits_of_a_load_balancer_are_not_taken_for_those_of_its_clients() {
    let imported = stream(
        "limit_conn_zone $remote_addr zone=a:1m; server { listen 80 proxy_protocol; limit_conn a 5; proxy_pass 10.0.0.1:80; }",
    );
    has(&imported, "`limit_conn a 5` differs: without set_real_ip_from");
}

#[test]
fn maps_of_addresses_and_protocols_are_routes_and_others_go_where_the_default_says() {
    let imported = stream(
        "map $remote_addr $by { 192.0.2.1 10.0.0.1:1; ~^10\\. 10.0.0.1:2; default 10.0.0.1:3; }\n\
         map $ssl_preread_alpn_protocols $alpn { ~\\bh2\\b 10.0.0.2:1; acme-tls/1 10.0.0.2:2; h2,http/1.1 10.0.0.2:3; default 10.0.0.2:4; }\n\
         map $ssl_preread_protocol $tls { \"\" 10.0.0.3:22; default 10.0.0.3:443; }\n\
         server { listen 1; proxy_pass $by; }\n\
         server { listen 2; ssl_preread on; proxy_pass $alpn; }\n\
         server { listen 3; ssl_preread on; proxy_pass $tls; }",
    );
    has(&imported, "source = \"192.0.2.1\"\nbackend = \"10.0.0.1:1\"\n");
    has(&imported, "backend = \"10.0.0.1:3\"\n");
    has(
        &imported,
        "`~^10\\. 10.0.0.1:2` has no equal: a route asks for addresses",
    );
    has(&imported, "alpn = \"h2\"\nbackend = \"10.0.0.2:1\"\n");
    has(&imported, "alpn = \"acme-tls/1\"\nbackend = \"10.0.0.2:2\"\n");
    has(&imported, "`h2,http/1.1 10.0.0.2:3` has no equal");
    has(
        &imported,
        "backend = \"10.0.0.2:4\"\nclient_hello_timeout = \"30s\"\nnon_tls = \"backend\"\n",
    );
    has(
        &imported,
        "`map $ssl_preread_protocol $tls` has no equal: routes do not ask for the version of TLS",
    );
    has(&imported, "backend = \"10.0.0.3:443\"\n");
}

#[test]
fn whom_a_map_refuses_does_not_come_in_by_its_default() {
    for map in [
        "map $remote_addr $to { ~^10\\. \"\"; default 10.0.0.1:1; }",
        "map $ssl_preread_protocol $to { TLSv1.3 \"\"; default 10.0.0.1:1; }",
        "map $nothing $else { default 10.0.0.1:1; }",
    ] {
        let imported = stream(&format!("{map}\nserver {{ listen 1; proxy_pass $to; }}"));
        // a backend without servers refuses
        has(&imported, "\nbackend = \"tcp-1\"\n");
        has(
            &imported,
            "[backends.tcp-1]\n# Which servers these connections go to",
        );
    }
    let imported = stream(
        "map $ssl_preread_server_name $to { bad.example blackhole; default 10.0.0.1:1; }\nserver { listen 1; proxy_pass $to; }",
    );
    has(&imported, "sni = \"bad.example\"\nreject = true\n");
}

#[test]
fn routes_by_the_address_of_a_load_balancer_are_not_made_of_its_clients() {
    let imported = stream(
        "map $remote_addr $to { 10.0.0.9 10.0.0.1:1; default 10.0.0.1:2; }\n\
         server { listen 1 proxy_protocol; proxy_pass $to; }",
    );
    assert!(!imported.text.contains("routes]]"), "{}", imported.text);
    has(&imported, "backend = \"10.0.0.1:2\"\n");
    has(
        &imported,
        "`proxy_pass $to` has no equal: without set_real_ip_from",
    );
}

#[test]
fn relative_paths_of_files_get_a_place_and_a_note() {
    let imported = stream(
        "server { listen 1 ssl; ssl_certificate a.pem; ssl_certificate_key keys/a.key; ssl_verify_client on; \
         ssl_client_certificate ca.pem; ssl_crl r.pem; proxy_pass 10.0.0.1:1; proxy_ssl on; proxy_ssl_verify on; \
         proxy_ssl_name a.example; proxy_ssl_trusted_certificate own.pem; }",
    );
    let certificate = "cert = \"/etc/convey/certificates/a.pem\", key = \"/etc/convey/certificates/a.key\"";
    has(&imported, certificate);
    for file in [
        "client_ca = \"/etc/convey/certificates/ca.pem\"",
        "/certificates/r.pem\"",
        "/certificates/own.pem\"",
    ] {
        has(&imported, file);
    }
    let moved = (imported.notes.iter()).filter(|note| note.text == crate::import::paths::MOVED);
    assert_eq!(moved.count(), 5, "{}", imported.text);
}

#[test]
fn datagrams_get_the_header_that_convey_has_for_them() {
    let imported = stream(
        "upstream u { server 10.0.0.1:53; }\nserver { listen 53 udp rcvbuf=1k; listen 53; proxy_protocol on; proxy_pass u; }",
    );
    has(&imported, "send_proxy = \"v2\"");
    has(&imported, "send_proxy = \"v1\"");
    has(
        &imported,
        "`proxy_protocol on` differs: datagrams get a PROXY header of version 2",
    );
    has(&imported, "receive_buffer = 4096");
    has(&imported, "`rcvbuf=1k` differs");
}

#[test]
fn a_range_that_is_too_large_is_what_is_said_of_a_server() {
    let imported = stream(
        "server { listen 1-65535; proxy_pass 10.0.0.1:80; }\nserver { listen 80; listen 1-65535; proxy_pass 10.0.0.1:81; }",
    );
    let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
    let range = "`1-65535` has no equal: a range of more than 4096 ports";
    assert_eq!(
        notes.iter().filter(|note| note.contains(range)).count(),
        2,
        "{notes:?}"
    );
    assert!(
        notes
            .iter()
            .any(|note| note.contains("Convey cannot listen where it does (1-65535)")),
        "{notes:?}"
    );
}

//! What takes files, and what cannot be read.

use std::collections::BTreeMap;

use crate::import::{Files, Imported, InputFile, Kind, NoFiles, translate};

struct Known(BTreeMap<&'static str, &'static str>);

impl Files for Known {
    fn read(&mut self, pattern: &str) -> Result<Vec<InputFile>, String> {
        let text = self.0.get(pattern).ok_or("there is none")?;
        Ok(vec![InputFile::new(pattern, text.as_bytes())])
    }
}

#[track_caller]
fn with_files(text: &str, files: &[(&'static str, &'static str)]) -> Imported {
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    let mut files = Known(files.iter().copied().collect());
    let imported = translate(Kind::HaProxy, &file, &mut files).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        imported.findings.is_empty(),
        "{:?}\n{}",
        imported.findings,
        imported.text
    );
    imported
}

const BACKENDS: &str = "backend be_a\n server s 10.0.0.1:443\nbackend be_b\n server s 10.0.0.2:443\n";

#[test]
fn a_map_of_names_becomes_routes_in_its_order() {
    let imported = with_files(
        &format!(
            "frontend tls\n bind :443\n use_backend be_%[req.ssl_sni,lower,map_end(/names.map,b)]\n default_backend be_a\n{BACKENDS}"
        ),
        &[("/names.map", "# names\n.a.example a\nb.example b\nc.example c\n")],
    );
    let routes = "backend = \"be_b\"\n";
    assert!(
        imported.text.contains(routes),
        "the default of the map: {}",
        imported.text
    );
    let routes = "[[frontends.tls.routes]]\nsni = \"*.a.example\"\nbackend = \"be_a\"\n\n\
                  [[frontends.tls.routes]]\nsni = \"~b\\\\.example$\"\nbackend = \"be_b\"\n";
    assert!(imported.text.contains(routes), "{}", imported.text);
    let [now, note] = imported.notes.as_slice() else {
        panic!("{:?}", imported.notes)
    };
    assert!(now.text.contains("as they are now"), "{now}");
    assert!(note.text.starts_with("1 of the backends"), "{note}");
}

#[test]
fn a_list_of_clients_is_read_by_convey_itself() {
    let imported = with_files(
        &format!(
            "frontend tls\n bind :443\n acl office src -f /etc/office.lst\n tcp-request connection reject unless office\n \
             use_backend be_b if office {{ req.ssl_sni -i b.example }}\n default_backend be_a\n{BACKENDS}"
        ),
        &[],
    );
    for part in [
        "[network_lists]\noffice = \"/etc/office.lst\"\n",
        "default = \"deny\"\nrules = [\"allow file:office\"]\n",
        "sni = \"b.example\"\nsource = \"file:office\"\nbackend = \"be_b\"\n",
    ] {
        assert!(imported.text.contains(part), "{part}\n{}", imported.text);
    }
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
}

#[test]
fn only_names_that_are_allowed_are_routed_when_others_are_rejected() {
    let imported = with_files(
        &format!(
            "frontend tls\n bind :443\n acl ok req.ssl_sni a.example b.example\n tcp-request content reject unless ok\n \
             default_backend be_a\n{BACKENDS}frontend other\n bind :444\n default_backend be_b\n"
        ),
        &[],
    );
    let frontend = imported
        .text
        .split("[frontends.other]")
        .next()
        .unwrap_or_default();
    assert!(!frontend.contains("\nbackend = \"be_a\"\nidle"), "{frontend}");
    assert!(
        frontend.contains("sni = [\"a.example\", \"b.example\"]\nbackend = \"be_a\"\n"),
        "{frontend}"
    );
}

#[test]
fn certificates_of_a_list_are_those_of_the_frontend() {
    let imported = with_files(
        &format!(
            "global\n crt-base /etc/ssl\nfrontend tls\n bind :443 ssl crt-list /certs.lst\n default_backend be_a\n\
             {BACKENDS}frontend other\n bind :444\n default_backend be_b\n"
        ),
        &[("/certs.lst", "# a list\na.pem\n/b.pem [alpn h2] b.example\n")],
    );
    let pairs = "certificates = [{ cert = \"/etc/ssl/a.pem\" }, { cert = \"/b.pem\" }]\n";
    assert!(imported.text.contains(pairs), "{}", imported.text);
    let [now, note] = imported.notes.as_slice() else {
        panic!("{:?}", imported.notes)
    };
    assert!(now.text.contains("as they are now"), "{now}");
    assert!(note.text.contains("options and names"), "{note}");
}

#[test]
fn names_from_a_file_are_said_to_be_those_of_now() {
    let imported = with_files(
        &format!(
            "frontend tls\n bind :443\n acl b req.ssl_sni -i -f /b.lst\n use_backend be_b if b or {{ req.ssl_sni -f /c.lst }}\n \
             default_backend be_a\n{BACKENDS}"
        ),
        &[("/b.lst", "b.example\n"), ("/c.lst", "c.example\n")],
    );
    let texts: Vec<(usize, bool)> = imported
        .notes
        .iter()
        .map(|note| (note.line, note.text.contains("as they are now")))
        .collect();
    assert_eq!(texts, [(3, true), (4, true)], "{:?}", imported.notes);
}

#[test]
fn what_is_no_configuration_of_haproxy_says_where() {
    for (text, why) in [
        ("", "haproxy.cfg:1: there is no section"),
        (
            "# nothing\n\nlisten_addr = 1\n",
            "haproxy.cfg:3: `listen_addr` is before the first section",
        ),
        (
            "global\n daemon\n log \"x\n",
            "haproxy.cfg:3: a quote is not closed",
        ),
        (
            &format!(
                "global\n setenv A xxxx\n{}",
                " setenv A \"${A}${A}\"\n".repeat(40)
            ),
            "haproxy.cfg:24: the variables up to here",
        ),
        (&"\0".repeat(1 << 20), "haproxy.cfg:1: `"),
    ] {
        let file = InputFile::new("haproxy.cfg", text.as_bytes());
        let error = translate(Kind::HaProxy, &file, &mut NoFiles).expect_err(text);
        assert!(error.to_string().starts_with(why), "{error}");
        assert!(error.to_string().len() < 1_000, "{error}");
    }
}

#[test]
fn sixty_thousand_addresses_are_looked_at_once_each() {
    let addresses: Vec<String> = (1..=60_000).map(|port| format!("10.0.0.1:{port}")).collect();
    let text = format!(
        "frontend f\n bind {}\n default_backend be_a\n{BACKENDS}frontend g\n bind :1\n default_backend be_b\n",
        addresses.join(",")
    );
    let imported = translate(
        Kind::HaProxy,
        &InputFile::new("haproxy.cfg", text.as_bytes()),
        &mut NoFiles,
    )
    .expect("a configuration");
    assert_eq!(
        imported.text.matches("\"10.0.0.1:").count(),
        257,
        "256 and a server"
    );
}

#[test]
fn what_multiplies_is_bounded() {
    let defaults = "timeout client 1s\n".repeat(2_000);
    let text = format!("defaults\n{defaults}{}", "backend b\n".repeat(2_000));
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    let error = translate(Kind::HaProxy, &file, &mut NoFiles).expect_err("4 million lines");
    assert!(error.message.contains("inherit more than"), "{error}");
    let words = "x ".repeat(100_000);
    let text = format!("backend b\n server s 10.0.0.1:80 {words}\n");
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    let imported = translate(Kind::HaProxy, &file, &mut NoFiles).expect("a configuration");
    assert!(imported.notes.len() < 100, "{}", imported.notes.len());
}

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

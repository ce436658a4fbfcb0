//! `convey import`: what goes where, and how it ends.

use std::fs;

use super::{Ended, directory, run};

const INPUT: &str = "defaults\n timeout connect 1s\n timeout client 1m\n timeout server 1m\n\
                     listen web\n bind 192.0.2.1:80\n option httplog\n server a 192.0.2.11:8080 check\n";

/// What becomes of a file of this name.
fn import(directory: &tempfile::TempDir, kind: &str, name: &str, text: &str, more: &[&str]) -> Ended {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("an input");
    let path = path.to_str().expect("a name in UTF-8");
    run(&[&["import", kind, path], more].concat())
}

#[test]
fn what_import_prints_is_a_configuration_and_what_differs_is_listed_beside_it() {
    let directory = directory();
    let ended = import(&directory, "haproxy", "haproxy.cfg", INPUT, &[]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        ended
            .err
            .contains("haproxy.cfg:7: `option httplog` has no equal: "),
        "{ended:?}"
    );
    assert!(
        ended.err.ends_with(
            "haproxy.cfg: 8 directives: 7 translated, 0 translated with a difference, 1 without an equal\n"
        ),
        "{ended:?}"
    );
    let printed = directory.path().join("convey.toml");
    fs::write(&printed, &ended.out).expect("a file");
    let checked = run(&["check", printed.to_str().expect("a name in UTF-8")]);
    assert_eq!(
        (checked.status, checked.err.as_str()),
        (Some(0), ""),
        "{checked:?}"
    );
}

#[test]
fn strict_fails_where_something_has_no_equal() {
    let directory = directory();
    let strict = |text: &str| import(&directory, "haproxy", "haproxy.cfg", text, &["--strict"]).status;
    assert_eq!(strict(INPUT), Some(65));
    assert_eq!(strict(&INPUT.replace(" option httplog\n", "")), Some(0));
}

#[test]
fn what_cannot_be_read_or_would_not_run_has_an_exit_status_of_its_own() {
    let directory = directory();
    let ended = import(&directory, "nginx", "nginx.conf", "stream {\n server {\n", &[]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(65), ""), "{ended:?}");
    assert!(
        ended.err.contains("nginx.conf:3: the file ends within a block"),
        "{ended:?}"
    );
    assert_eq!(run(&["import", "haproxy", "/no/such/file"]).status, Some(66));
    assert_eq!(run(&["import", "envoy", "envoy.yaml"]).status, Some(64));
    let relative = INPUT.replace(":80\n", ":80 ssl crt a.pem\n");
    let ended = import(&directory, "haproxy", "haproxy.cfg", &relative, &[]);
    assert_eq!(ended.status, Some(78), "{ended:?}");
    assert!(ended.err.contains("not an absolute path"), "{ended:?}");
    assert!(
        ended.out.contains("[frontends.web]"),
        "it is printed all the same: {ended:?}"
    );
}

#[test]
fn files_that_are_included_are_read_from_beside_the_input() {
    let directory = directory();
    fs::create_dir(directory.path().join("stream.d")).expect("a directory");
    let server = "server { listen 192.0.2.1:80; proxy_pass 192.0.2.11:8080; }\n";
    fs::write(directory.path().join("stream.d/web.conf"), server).expect("a file");
    let ended = import(
        &directory,
        "nginx",
        "nginx.conf",
        "stream { include stream.d/*.conf; }\n",
        &[],
    );
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.out.contains("listen_addr = \"192.0.2.1:80\""), "{ended:?}");
}

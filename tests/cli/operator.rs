//! What an operator asks of the running convey.

use super::{Ended, convey, daemon::FakeDaemon, run};

#[test]
fn an_order_about_a_server_reaches_it_whatever_its_name() {
    let daemon = FakeDaemon::start();
    let ended = run(&["server", "drain", "web", "c d", "--socket", daemon.socket()]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(
        daemon.last_request(),
        "POST /v1/backends/web/servers/c%20d {\"action\":\"drain\"}"
    );
}

#[test]
fn several_servers_are_named_at_once_and_an_unknown_one_changes_nothing() {
    let daemon = FakeDaemon::start();
    let unknown = run(&["server", "drain", "web/a", "a/b", "--socket", daemon.socket()]);
    assert_eq!(
        (unknown.status, unknown.out.as_str()),
        (Some(64), ""),
        "{unknown:?}"
    );
    assert_eq!(unknown.err, "convey: no backend `a` (backends: web)\n");
    let last = run(&["server", "drain", "web/*", "--socket", daemon.socket()]);
    assert_eq!(last.status, Some(64), "{last:?}");
    assert!(last.err.contains("no eligible server left"), "{last:?}");
    assert_eq!(daemon.posted(), Vec::<String>::new());
    let all = run(&["server", "weight", "web/*", "3", "--socket", daemon.socket()]);
    assert_eq!(all.status, Some(0), "{all:?}");
    assert_eq!(all.out.lines().count(), 2, "{all:?}");
    assert!(
        all.out.starts_with("web/a: up") && all.out.contains("\nweb/c d: up"),
        "{all:?}"
    );
    assert_eq!(daemon.posted().len(), 2);
}

#[test]
fn connections_of_an_unknown_server_are_an_error() {
    let daemon = FakeDaemon::start();
    let ended = run(&["connections", "--server", "nope", "--socket", daemon.socket()]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(64), ""), "{ended:?}");
    assert_eq!(
        ended.err,
        "convey: no server `nope` in any backend (servers: a, b)\n"
    );
}

#[test]
fn force_goes_with_the_request() {
    let daemon = FakeDaemon::start();
    run(&["server", "drain", "web/a", "--force", "--socket", daemon.socket()]);
    assert_eq!(
        daemon.last_request(),
        "POST /v1/backends/web/servers/a {\"action\":\"drain\",\"force\":true}"
    );
}

#[test]
fn an_explanation_is_0_with_a_server_and_69_without() {
    let daemon = FakeDaemon::start();
    let explain = |more: &[&str]| -> Ended {
        let mut command = convey();
        command.args(["explain", "tcp"]).args(more);
        let socket = ["--socket", daemon.socket()];
        command.args(socket).output().expect("convey runs").into()
    };
    let served = explain(&["192.0.2.1:40000", "10.0.0.1:80"]);
    assert_eq!(served.status, Some(0), "{served:?}");
    assert!(
        served.out.contains("server    a at 10.1.0.2:80 (up)"),
        "{served:?}"
    );
    let json = explain(&["192.0.2.1:40000", "10.0.0.1:80", "--json"]);
    assert!(json.out.contains(r#""because": "maglev""#), "{json:?}");
    let nobody = explain(&["192.0.2.1:40000", "10.0.0.1:81"]);
    assert_eq!(nobody.status, Some(69), "{nobody:?}");
    assert!(nobody.out.contains("server    none"), "{nobody:?}");
}

#[test]
fn a_token_goes_to_stderr_and_its_line_to_stdout_and_each_is_another() {
    let made = || {
        let ended = run(&["token", "deploy@ci", "--role", "operate"]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended
    };
    let (one, other) = (made(), made());
    let token = one.err.trim_end();
    assert!(token.starts_with("cvy_") && token.len() == 47, "{token}");
    let hash = one
        .out
        .strip_prefix("deploy@ci operate sha256:")
        .expect("name, role and hash");
    assert_eq!(hash.len(), 65, "{hash}");
    assert_ne!((&one.out, &one.err), (&other.out, &other.err));
    for wrong in [
        &["token", "a/b", "--role", "read"][..],
        &["token", "a", "--role", "admin"],
        &["token", "a"],
    ] {
        let ended = run(wrong);
        assert_eq!((ended.status, ended.out.as_str()), (Some(64), ""), "{ended:?}");
    }
}

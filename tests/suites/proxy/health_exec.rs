//! Servers that a command checks.

use std::{fs, io::Write as _, sync::PoisonError};

use convey::base::ServerState;

use crate::{
    Test,
    health_kinds::{check, convey, wait_down, wait_state},
    hooks::{PROCESSES, write_script},
    lab::{Lab, servers::TcpServer},
    site::{backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_command_is_told_the_server_and_decides_by_its_status_and_what_it_prints,
    a_reload_brings_the_command_that_checks,
];

fn a_command_is_told_the_server_and_decides_by_its_status_and_what_it_prints() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new("exec");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let notes = lb.path("notes");
    fs::create_dir(&notes).expect("a directory");
    let answer = notes.join("answer");
    fs::write(&answer, "UP\n").expect("an answer");
    let script = |name, text| write_script(&lb, name, text, &notes).display().to_string();
    // what it prints is how it was called, or what the file says
    let told = script(
        "told",
        "echo \"$# $1 $2 $CONVEY_SERVER_ADDR $CONVEY_SERVER_PORT\"",
    );
    let reads = script("reads", "cat $notes/answer");
    let fails = script("fails", "echo 'not today' >&2; exit 3");
    let hangs = script("hangs", "sleep 1000");
    let exec = |command: &str, more: &str| {
        check(&format!(
            "kind = \"exec\", command = [\"{command}\", \"$host\", \"[$host]:$port;id\"]{more}"
        ))
    };
    let addr = host.addr(9);
    let wanted = format!(", expect = \"2 {0} [{0}]:9;id {0} 9\"", addr.ip());
    let convey = convey(
        &lb,
        &[
            ("told", exec(&told, &wanted), addr),
            ("reads", exec(&reads, ", expect = { regex = '^UP' }"), addr),
            ("fails", exec(&fails, ""), addr),
            ("hangs", exec(&hangs, ""), addr),
        ],
    );
    wait_state(&convey, "told", ServerState::Up);
    wait_state(&convey, "reads", ServerState::Up);
    for (backend, why) in [
        ("fails", "exit status 3: not today"),
        ("hangs", "not done within its timeout"),
    ] {
        assert_eq!(wait_down(&convey, backend, why), why);
    }
    fs::write(&answer, "DOWN for lunch\n").expect("an answer");
    let other = r#"printed "DOWN for lunch\n" instead of a match of "^UP""#;
    assert_eq!(wait_down(&convey, "reads", other), other);
    fs::write(&answer, "UP again\n").expect("an answer");
    wait_state(&convey, "reads", ServerState::Up);
}

fn a_reload_brings_the_command_that_checks() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new("execreload");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let server = TcpServer::start(&host, 9, |mut stream| stream.write_all(b"x"));
    let config = |settings: &str| {
        frontend("web", lb.addr(80), "a", "") + &backend("a", settings, &[("a", server.addr(), "")])
    };
    let convey = lab.convey(&lb, &config(&check("kind = \"tcp\"")));
    wait_state(&convey, "a", ServerState::Up);
    let command = write_script(&lb, "check", "exit 1", &lb.path("notes"));
    let exec = format!(
        "kind = \"exec\", command = [\"{}\", \"$host\"]",
        command.display()
    );
    convey.reload(&config(&check(&exec)));
    assert_eq!(wait_down(&convey, "a", "exit status 1"), "exit status 1");
    convey.reload(&config(&check("kind = \"tcp\"")));
    wait_state(&convey, "a", ServerState::Up);
}

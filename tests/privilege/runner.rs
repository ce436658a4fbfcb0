//! What the runner does for a daemon that was taken over.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use convey::{
    base::CommandId,
    config,
    privilege::{Children, NoPacketModes, Start, What},
    sys::{fdpass, memfd},
};
use serde_json::{Value, json};

use crate::{
    config::source,
    scenario::{dir, drop_privileges, nobody},
};

/// Most commands that run at once.
const AT_ONCE: usize = 32;

fn text(command: &str, timeout: &str) -> String {
    format!("[hooks]\non_change = {command}\ntimeout = \"{timeout}\"\n")
}

fn id(text: &str) -> CommandId {
    let config = config::load(&source(text), config::Options::default())
        .unwrap()
        .config;
    let mut ids = config.commands().into_keys();
    ids.next().unwrap()
}

/// A dropped daemon with its children, of a file that holds this.
fn started(text: &str) -> Children {
    let path = dir().join("convey.toml");
    std::fs::write(&path, text).unwrap();
    let target = nobody();
    let start = Start {
        parse: config::load,
        path: &path,
        source: &source(text),
        options: config::Options::default(),
        target: Some(&target),
        kernel: Box::new(NoPacketModes),
        bound: Default::default(),
        kept: Vec::new(),
        keeps_sockets: false,
        hidden: Vec::new(),
    };
    let children = start.fork().unwrap();
    drop_privileges(Some(&target)).unwrap();
    fdpass::set_timeout(children.runner.as_fd(), Duration::from_secs(120)).unwrap();
    children
}

fn send(runner: &OwnedFd, request: &Value, input: Option<&[u8]>) {
    let input = input.map(|bytes| memfd::sealed(bytes).unwrap());
    let fds: Vec<_> = input.iter().map(AsFd::as_fd).collect();
    fdpass::send(runner.as_fd(), request.to_string().as_bytes(), &fds).unwrap();
}

fn ask(runner: &OwnedFd, number: u64, id: CommandId) {
    let request = json!({ "number": number, "verb": { "run": id.0 } });
    send(runner, &request, Some(b"told\n"));
}

/// The next answer, and what was printed.
fn answer(runner: &OwnedFd) -> (Value, Option<Vec<u8>>) {
    let (bytes, fds) = fdpass::receive(runner.as_fd()).unwrap();
    let printed = fds
        .into_iter()
        .next()
        .map(|fd| memfd::read_sealed(fd, 1 << 20).unwrap());
    (serde_json::from_slice(&bytes).unwrap(), printed)
}

/// A command that is named by its number runs; a number that the broker has not read of is refused.
pub fn only_what_the_file_names() {
    let first = text(r#"["cat"]"#, "10s");
    let Children { broker, runner } = started(&first);
    ask(&runner, 1, id(&first));
    let (told, printed) = answer(&runner);
    assert_eq!(
        told,
        json!({ "number": 1, "outcome": { "ended": { "how": { "exit": 0 }, "errors": "" } } })
    );
    assert_eq!(printed.as_deref(), Some(b"told\n".as_slice()));

    let other = text(r#"["id"]"#, "10s");
    ask(&runner, 2, id(&other));
    let refused = answer(&runner).0.to_string();
    assert!(
        refused.contains("the runner refused") && refused.contains("no such command"),
        "{refused}"
    );

    // the file is as it was, whatever the broker is asked
    broker.read(What::Config).unwrap();
    ask(&runner, 3, id(&other));
    assert!(answer(&runner).0.to_string().contains("refused"));
}

/// A command learns nothing of the service manager, to which it could speak as the service.
pub fn environment() {
    for name in ["NOTIFY_SOCKET", "FDSTORE", "INVOCATION_ID", "LISTEN_FDNAMES"] {
        assert!(std::env::var_os(name).is_some(), "{name}");
    }
    let text = text(r#"["/usr/bin/env"]"#, "10s");
    let Children {
        broker: _broker,
        runner,
    } = started(&text);
    ask(&runner, 1, id(&text));
    let (told, printed) = answer(&runner);
    let printed = String::from_utf8(printed.unwrap()).unwrap();
    let names = printed.lines().filter_map(|line| line.split('=').next());
    let names: std::collections::BTreeSet<_> = names.collect();
    assert_eq!(names, ["HOME", "LANG", "PATH"].into(), "{told}");
}

/// Of many at once some are refused, and none is left when the daemon is gone.
pub fn so_many_at_once() {
    let text = text(r#"["sleep", "600"]"#, "10m");
    let Children {
        broker: _broker,
        runner,
    } = started(&text);
    for number in 1..=AT_ONCE + 3 {
        ask(&runner, number as u64, id(&text));
    }
    for _ in 0..3 {
        let refused = answer(&runner).0.to_string();
        assert!(refused.contains("32 commands run already"), "{refused}");
    }
}

/// What is no request ends the runner.
pub fn junk(request: &str, with_input: bool) {
    let Children {
        broker: _broker,
        runner,
    } = started("[global]\n");
    let input = memfd::sealed(b"").unwrap();
    let fds: &[_] = if with_input { &[input.as_fd()] } else { &[] };
    fdpass::send(runner.as_fd(), request.as_bytes(), fds).unwrap();
    let end = fdpass::receive(runner.as_fd());
    assert!(
        matches!(end, Err(fdpass::RecvError::Closed)),
        "{request}: {end:?}"
    );
}

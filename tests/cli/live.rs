//! The live view on a terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use super::{convey, daemon::FakeDaemon, run, terminal::open_terminal};

#[test]
fn a_terminal_gets_a_live_view_that_q_leaves() {
    let daemon = FakeDaemon::start();
    for command in ["status --watch", "top"] {
        let (ours, theirs) = open_terminal();
        let side = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let sized = Command::new("stty")
            .args(["rows", "24", "cols", "80"])
            .stdin(side())
            .status();
        assert!(sized.expect("stty").success());
        let mut child = convey()
            .args(command.split(' '))
            .args(["--socket", daemon.socket()])
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("convey runs");
        // a child that ends at once then ends the screen
        drop(theirs);
        let mut terminal = File::from(ours);
        let (mut shown, mut some) = (String::new(), [0; 4_096]);
        while !shown.contains("q quit") {
            let length = terminal.read(&mut some).expect("the screen");
            shown.push_str(&String::from_utf8_lossy(&some[..length]));
        }
        assert!(shown.contains("SERVER"), "{shown:?}");
        terminal.write_all(b"q").expect("a key");
        let ended = child.wait().expect("it ends");
        assert!(ended.success(), "{command}: {ended}");
    }
}

#[test]
fn what_is_no_terminal_gets_no_live_view() {
    let daemon = FakeDaemon::start();
    let refused = run(&["top", "--socket", daemon.socket()]);
    assert_eq!(
        (refused.status, refused.out.as_str()),
        (Some(64), ""),
        "{refused:?}"
    );
    assert!(refused.err.contains("convey status --watch"), "{refused:?}");
}

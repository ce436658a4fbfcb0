//! Frontends that listen at unix sockets: the files of these, over starts, reloads and ends.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, PATIENCE, wait_until},
    site::{NO_CHECK, read_line},
    tests,
    unix_listeners::Paths,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    who_may_connect_is_as_the_frontend_says,
    a_stale_socket_is_replaced_and_nothing_else,
    a_file_goes_with_the_daemon_however_that_ends,
    a_reload_adds_removes_and_changes_sockets_while_connections_live,
    a_reload_that_fails_leaves_everything_as_it_was,
    a_client_that_comes_over_a_restart_waits_and_is_served,
    what_changed_over_a_restart_is_so_afterwards,
];

fn rights(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).expect("the socket");
    (metadata.mode() & 0o7777, metadata.gid())
}

/// Whether somebody who is in this group alone gets a greeting.
fn may_connect(paths: &Paths, name: &str, group: &str) -> bool {
    let script = format!(
        "my $s = IO::Socket::UNIX->new(q({})) or exit 1; print scalar <$s>",
        paths.path(name).display()
    );
    let output = paths.lb.try_run(&format!(
        "setpriv --reuid 65533 --regid {group} --clear-groups perl -MIO::Socket::UNIX -e '{script}'"
    ));
    output.stdout == "s\n"
}

fn who_may_connect_is_as_the_frontend_says() {
    const GAMES: u32 = 60;
    let paths = Paths::new("ul-rights");
    let text = paths.frontend("own", "own.sock", "")
        + &paths.frontend("all", "all.sock", "socket_mode = \"0666\"")
        + &paths.frontend("group", "group.sock", "socket_group = \"games\"")
        + &paths.backend(NO_CHECK);
    let convey = paths.convey(&text);
    let (mode, gid) = rights(&paths.path("own.sock"));
    assert_eq!(mode, 0o660);
    assert_ne!(gid, 0, "not root's");
    assert_eq!(rights(&paths.path("all.sock")).0, 0o666);
    assert_eq!(rights(&paths.path("group.sock")), (0o660, GAMES));
    let may =
        |group: &str| ["own.sock", "all.sock", "group.sock"].map(|name| may_connect(&paths, name, group));
    assert_eq!(may("games"), [false, true, true]);
    assert_eq!(may("mail"), [false, true, false]);
    // and changes where it is, for those who come from now on
    let inode = fs::metadata(paths.path("all.sock")).expect("the socket").ino();
    let mut held = paths.greeted("all.sock");
    convey.reload(&text.replace("0666", "0600"));
    wait_until("the mode is another", PATIENCE, || {
        rights(&paths.path("all.sock")).0 == 0o600
    });
    assert_eq!(
        fs::metadata(paths.path("all.sock")).expect("the socket").ino(),
        inode
    );
    assert_eq!(may("games"), [false, false, true]);
    held.write_all(b"still here\n").expect("sent");
    assert_eq!(read_line(&mut held).expect("the echo"), "still here");
}

/// How a start ends that cannot be.
fn refused(paths: &Paths, config: &str) -> String {
    let mut convey = Convey::launch(&paths.lb, config);
    let status = convey.wait_exit(PATIENCE);
    assert!(!status.success(), "{status}");
    convey.stderr()
}

fn a_stale_socket_is_replaced_and_nothing_else() {
    let paths = Paths::new("ul-stale");
    let path = paths.path("web.sock");
    let text = paths.config("web.sock", "");
    // somebody lives there
    let living = bind_for(0o700, &path);
    let said = refused(&paths, &text);
    assert!(
        said.contains("whether somebody listens on it cannot be seen"),
        "{said}"
    );
    fs::remove_file(&path).expect("removed");
    drop(living);
    let living = bind_for(0o666, &path);
    let said = refused(&paths, &text);
    assert!(said.contains("another process listens on it"), "{said}");
    assert!(UnixStream::connect(&path).is_ok());
    // its file alone is in nobody's way
    drop(living);
    drop(paths.convey(&text));
    assert!(path.exists(), "whoever is killed with its broker leaves it");
    let mut convey = paths.convey(&text);
    paths.greeted("web.sock");
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    wait_until("it is gone", PATIENCE, || !path.exists());
    for make in [plain_file, directory, link] {
        make(&path);
        let said = refused(&paths, &text);
        assert!(said.contains("it exists and is not a socket"), "{said}");
        assert!(fs::symlink_metadata(&path).is_ok(), "it was removed");
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|there| there.is_dir());
        let removed = if is_directory {
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.expect("removed");
    }
    let said = refused(&paths, &paths.config("missing/web.sock", ""));
    assert!(said.contains("there is no such directory"), "{said}");
}

/// A listener of root's, whose file has this mode.
fn bind_for(mode: u32, path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bind");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    listener
}

fn plain_file(path: &Path) {
    fs::write(path, "precious").expect("a file");
}

fn directory(path: &Path) {
    fs::create_dir(path).expect("a directory");
}

/// To a socket that is stale.
fn link(path: &Path) {
    let stale = path.with_extension("stale");
    drop(UnixListener::bind(&stale).expect("bind"));
    symlink(stale, path).expect("a link");
}

fn a_file_goes_with_the_daemon_however_that_ends() {
    let paths = Paths::new("ul-end");
    let path = paths.path("web.sock");
    let text = paths.config("web.sock", "");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut convey = paths.convey(&text);
        drop(paths.greeted("web.sock"));
        convey.signal(signal);
        convey.wait_exit(PATIENCE);
        wait_until("the file is gone", PATIENCE, || !path.exists());
    }
    // with the drain's beginning, so that nobody comes any more
    let text = "[global]\nwatch_config = false\nshutdown_timeout = \"1h\"\n".to_owned() + &text;
    let mut convey = paths.convey(&text);
    let mut held = paths.greeted("web.sock");
    convey.signal(Signal::SIGTERM);
    wait_until("the file is gone", PATIENCE, || !path.exists());
    held.write_all(b"still here\n").expect("sent");
    assert_eq!(read_line(&mut held).expect("the echo"), "still here");
    drop(held);
    assert!(convey.wait_exit(PATIENCE).success());
    // what somebody else has put there meanwhile is theirs
    let mut convey = paths.convey(&text);
    fs::remove_file(&path).expect("removed");
    let _theirs = UnixListener::bind(&path).expect("bind");
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    assert!(UnixStream::connect(&path).is_ok());
}

fn a_reload_adds_removes_and_changes_sockets_while_connections_live() {
    let paths = Paths::new("ul-reload");
    let (one, two) = (paths.path("one.sock"), paths.path("two.sock"));
    let config = |names: &[&str]| {
        let frontends = names.iter().zip(["f", "g"]);
        let frontends: String = frontends
            .map(|(name, frontend)| paths.frontend(frontend, name, ""))
            .collect();
        frontends + &paths.backend(NO_CHECK)
    };
    let convey = paths.convey(&config(&["one.sock"]));
    let mut held = paths.greeted("one.sock");
    let mut alive = || {
        held.write_all(b"still here\n").expect("sent");
        assert_eq!(read_line(&mut held).expect("the echo"), "still here");
    };
    let inode = || fs::metadata(&one).map(|metadata| metadata.ino()).ok();
    let first = inode();
    convey.reload(&config(&["one.sock", "two.sock"]));
    paths.greeted("two.sock");
    assert_eq!(inode(), first, "what stays is not touched");
    // another frontend has it now
    convey.reload(&config(&["two.sock", "one.sock"]));
    paths.greeted("one.sock");
    assert_eq!(inode(), first);
    alive();
    convey.reload(&config(&["two.sock"]));
    wait_until("its file is gone", PATIENCE, || !one.exists());
    alive();
    convey.reload(&config(&["one.sock"]));
    paths.greeted("one.sock");
    wait_until("the other file is gone", PATIENCE, || !two.exists());
    assert_eq!(convey.status().frontends["f"].accept_errors, 0);
    alive();
}

fn a_reload_that_fails_leaves_everything_as_it_was() {
    let paths = Paths::new("ul-failed");
    let (old, new) = (paths.path("old.sock"), paths.path("new.sock"));
    let convey = paths.convey(&paths.config("old.sock", ""));
    let inode = fs::metadata(&old).expect("the socket").ino();
    plain_file(&paths.path("taken"));
    let text = paths.frontend("f", "new.sock", "socket_mode = \"0666\"")
        + &paths.frontend("g", "taken", "")
        + &paths.backend(NO_CHECK);
    for (frontend, words) in [
        (String::new(), "it exists and is not a socket"),
        (
            paths.frontend("h", "other.sock", "socket_group = \"no-such\""),
            "there is no group `no-such`",
        ),
    ] {
        convey.write_config(&(text.clone() + &frontend));
        let refused = convey.cli("reload");
        assert!(!refused.status.success());
        assert!(
            refused.stderr.contains(words) || refused.stderr.contains("it exists"),
            "{}",
            refused.stderr
        );
        wait_until("what was made for it is gone", PATIENCE, || !new.exists());
        assert_eq!(fs::metadata(&old).expect("the socket").ino(), inode);
        paths.greeted("old.sock");
    }
    convey.write_config(&paths.config("old.sock", "socket_group = \"no-such\""));
    assert!(convey.cli("reload").status.success(), "the rest is in effect");
    wait_until("it is said", PATIENCE, || {
        convey.stderr().contains("there is no group `no-such`")
    });
    assert_eq!(rights(&old).0, 0o660);
}

/// Convey whose listeners are kept, as systemd does.
fn kept(paths: &Paths, config: &str) -> Convey {
    let mut convey = Convey::launch_with(&paths.lb, config, &["env", Convey::FD_STORE]);
    convey.wait_ready();
    convey
}

fn a_client_that_comes_over_a_restart_waits_and_is_served() {
    let paths = Paths::new("ul-restart");
    let path = paths.path("web.sock");
    let text = paths.config("web.sock", "");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut convey = kept(&paths, &text);
        let inode = fs::metadata(&path).expect("the socket").ino();
        let broker = convey.broker();
        drop(paths.greeted("web.sock"));
        convey.signal(signal);
        convey.wait_exit(PATIENCE);
        wait_until("the broker has ended", PATIENCE, || {
            !Path::new(&format!("/proc/{broker}")).exists()
        });
        let mut waits = paths.connect("web.sock");
        convey.start_again(&text);
        assert_eq!(read_line(&mut waits).expect("the greeting"), "s");
        assert_eq!(
            fs::metadata(&path).expect("the socket").ino(),
            inode,
            "{}",
            convey.stderr()
        );
        let said = format!(
            "inherited listeners from the previous process: unix:{}",
            path.display()
        );
        wait_until(&said, PATIENCE, || convey.stderr().contains(&said));
        drop(convey);
        fs::remove_file(&path).ok();
    }
}

fn what_changed_over_a_restart_is_so_afterwards() {
    let paths = Paths::new("ul-changed");
    let path = paths.path("web.sock");
    let mut convey = kept(&paths, &paths.config("web.sock", ""));
    let stop = |convey: &mut Convey| {
        let broker = convey.broker();
        convey.signal(Signal::SIGTERM);
        assert!(convey.wait_exit(PATIENCE).success());
        wait_until("the broker has ended", PATIENCE, || {
            !Path::new(&format!("/proc/{broker}")).exists()
        });
    };
    stop(&mut convey);
    convey.start_again(&paths.config("web.sock", "socket_mode = \"0666\""));
    assert_eq!(rights(&path).0, 0o666);
    // its file was lost meanwhile
    stop(&mut convey);
    fs::remove_file(&path).expect("removed");
    convey.start_again(&paths.config("web.sock", ""));
    paths.greeted("web.sock");
    wait_until("it is said", PATIENCE, || {
        convey.stderr().contains("its file is gone")
    });
    // and somebody else's is theirs
    stop(&mut convey);
    fs::remove_file(&path).expect("removed");
    let theirs = bind_for(0o666, &path);
    convey.launch_again(&paths.config("web.sock", ""));
    assert!(!convey.wait_exit(PATIENCE).success());
    assert!(
        convey.stderr().contains("another process listens on it"),
        "{}",
        convey.stderr()
    );
    assert!(UnixStream::connect(&path).is_ok());
    drop(theirs);
}

//! Root that is none: in containers without capabilities, and in user namespaces.

use std::fs;

use caps::Capability;
use convey::{
    privilege::resolve_target,
    sys::{capability, ids},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::prctl,
};

use crate::{
    config::NOBODY,
    scenario::{drop_privileges, fork, nobody, nowhere, web},
};

/// `docker run --cap-drop ALL --cap-add NET_BIND_SERVICE`.
pub fn no_capability_to_switch() {
    capability::keep_only(&[Capability::CAP_NET_BIND_SERVICE], &[]).unwrap();
    let error = fork(&nowhere(), "web 127.0.73.40:18080", Some(&nobody())).unwrap_err();
    let text = error.to_string();
    for part in [
        "cannot become user `nobody`",
        "CAP_SETGID",
        "--user 65534:65534",
        "--cap-add",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// What is so already needs no capability.
pub fn nothing_to_give_up() {
    ids::set_groups(&[]).unwrap();
    ids::set_gid(NOBODY).unwrap();
    let no_groups = [Capability::CAP_SETUID, Capability::CAP_NET_BIND_SERVICE];
    capability::keep_only(&no_groups, &[]).unwrap();
    let target = nobody();
    let broker = fork(&nowhere(), "web 127.0.73.41:18080", Some(&target)).unwrap();
    let proof = drop_privileges(Some(&target)).unwrap();
    assert_eq!((proof.uid, proof.gid), (NOBODY, NOBODY));
    broker.bind(&web("127.0.73.41:18080")).unwrap();
}

/// `unshare --user --map-root-user` of an ordinary user: there is nobody else to become.
pub fn alone_in_a_namespace() {
    ids::set_groups(&[]).unwrap();
    ids::set_gid(NOBODY).unwrap();
    ids::set_uid(NOBODY).unwrap();
    // or its files in /proc are root's
    prctl::set_dumpable(true).unwrap();
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1")).unwrap();
    assert!(ids::is_root());
    assert_eq!(resolve_target(None).unwrap(), None);
    let broker = fork(&nowhere(), "web 127.0.73.42:18080", None).unwrap();
    let proof = drop_privileges(None).unwrap();
    assert_eq!(proof.uid, 0);
    broker.bind(&web("127.0.73.42:18080")).unwrap();
}

//! Removes what a killed test run left behind, and nothing else.

use std::{fs, path::Path, process::Command};

use nix::{sys::signal::Signal, unistd::Pid};

/// Deletes the namespaces, with the processes in them, of labs whose test process is gone.
pub fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if owner(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// The test process that made this namespace, if a lab did.
fn owner(namespace: &str) -> Option<u32> {
    let rest = namespace.strip_prefix(super::PREFIX)?.strip_prefix('-')?;
    rest.split('-').next()?.parse().ok()
}

fn remove(namespace: &str) {
    let pids = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    Command::new("ip").args(["netns", "del", namespace]).status().ok();
}

//! Removes what a killed test run left behind, and nothing else.

use std::{fs, path::Path, process::Command};

use nix::{sys::signal::Signal, unistd::Pid};

/// Deletes the namespaces, with the processes in them, and the files of labs whose test process is gone.
pub fn sweep() {
    for namespace in left_in(Path::new("/run/netns")) {
        remove(&namespace);
    }
    let files = std::env::temp_dir();
    for dir in left_in(&files) {
        fs::remove_dir_all(files.join(dir)).ok();
    }
}

/// Names in a directory that labs made and nobody uses any more.
fn left_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
        .collect()
}

/// The test process that gave this name, if a lab did.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(super::PREFIX)?.strip_prefix('-')?;
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

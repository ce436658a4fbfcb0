//! What is wrong, and what somebody needs to help, before a real daemon.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    Test,
    lab::Output,
    site::{FAST_CHECK, NO_CHECK, Site},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    the_doctor_says_what_is_wrong_and_what_to_do_and_its_status_says_how_bad_it_is,
    the_doctor_works_without_a_daemon_and_says_what_it_could_not_look_at,
    the_archive_for_support_has_what_helps_and_no_secret,
];

/// The findings of `convey doctor --json` of a level, each as `AREA: MESSAGE`.
fn findings(output: &Output, level: &str) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("findings").iter();
    let of_level = findings.filter(|finding| finding["level"] == level);
    of_level
        .map(|finding| {
            assert!(
                finding["remedy"]
                    .as_str()
                    .is_some_and(|remedy| !remedy.is_empty()),
                "{finding}"
            );
            format!("{}: {}", finding["area"], finding["message"]).replace('"', "")
        })
        .collect()
}

fn has(found: &[String], beginning: &str) -> bool {
    found.iter().any(|finding| finding.starts_with(beginning))
}

fn the_doctor_says_what_is_wrong_and_what_to_do_and_its_status_says_how_bad_it_is() {
    let site = Site::new("doctor", 2);
    site.lb
        .run("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'");
    let text = site
        .config("", FAST_CHECK)
        .replace(":80\"\nbackend", ":50080\"\nbackend");
    let mut text = text.replacen(":80\" }", ":81\" }", 1);
    text += "[frontends.empty]\nlisten_addr = \"127.0.0.1:8081\"\nbackend = \"none\"\n[backends.none]\n";
    let convey = site.convey(&text);
    convey.wait_status("a is down", |status| status.backends["web"].eligible == 1);
    convey.order("server drain web/a");
    convey.write_config(&(text.clone() + "# edited\n"));
    let found = convey.cli("doctor --json");
    assert_eq!(found.status.code(), Some(69), "{found:?}");
    let errors = findings(&found, "error");
    assert!(
        has(
            &errors,
            "traffic: frontend empty serves nobody: backend none has no servers"
        ),
        "{errors:?}"
    );
    assert!(!has(&errors, "traffic: frontend web"), "{errors:?}");
    let warnings = findings(&found, "warning");
    assert!(
        has(&warnings, "configuration: the file is not what is in effect"),
        "{warnings:?}"
    );
    assert!(
        has(&warnings, "ports: web (50080) listen(s) among"),
        "{warnings:?}"
    );
    let notes = findings(&found, "note");
    assert!(
        has(&notes, "traffic: server web/a has an override: draining"),
        "{notes:?}"
    );
    // in words, with what to do below each
    let told = convey.cli("doctor");
    assert!(
        told.stdout
            .contains("error traffic: frontend empty serves nobody")
            && told.stdout.contains("\n    convey status empty\n"),
        "{}",
        told.stdout
    );
}

fn the_doctor_works_without_a_daemon_and_says_what_it_could_not_look_at() {
    let site = Site::new("doctor-alone", 1);
    let directory = site.lb.path("alone");
    fs::create_dir_all(&directory).expect("a directory");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    mode(&directory, 0o755);
    let file = directory.join("convey.toml");
    let passthrough = site.config("mode = \"passthrough\"", NO_CHECK);
    fs::write(
        &file,
        format!(
            "[admin]\nsocket = \"{}/none.sock\"\n{passthrough}",
            directory.display()
        ),
    )
    .expect("write");
    mode(&file, 0o644);
    // a file that somebody else may run although its directory is closed to them
    let somebody = format!(
        "exec 3<{}; exec setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/3 doctor -c {} --json",
        env!("CARGO_BIN_EXE_convey"),
        file.display()
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &somebody]);
    let found = site.lb.spawn(command).finish(crate::lab::PATIENCE);
    let warnings = findings(&found, "warning");
    assert!(
        has(&warnings, "daemon: it cannot be asked: no running convey found"),
        "{found:?}"
    );
    let report: serde_json::Value = serde_json::from_str(&found.stdout).expect("JSON");
    let unseen = report["not_looked_at"].to_string();
    assert!(unseen.contains("firewall") && unseen.contains("sudo"), "{unseen}");
    assert_eq!(found.status.code(), Some(75), "{found:?}");
}

/// Texts that are in no archive.
const PLANTED: [&str; 9] = [
    "s3cr3t-in-a-file",
    "s3cr3t-of-the-environment",
    "s3cr3t-of-a-comment",
    "s3cr3t-of-a-url",
    "s3cr3t-of-the-log",
    "c3VwZXIgc2VjcmV0IGtleQ",
    "s3cr3t-of-the-unit",
    "cvy_s3cr3tcvys3cr3tcvy",
    "9e107d9d372bb6826bd81d3542a419d6e4d909c290d0fb1ca068ffaddf22cbd0",
];

/// Programs that print secrets.
fn programs(directory: &Path) {
    let program = |name: &str, prints: &str| {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{prints}\nEND\n")).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    fs::create_dir_all(directory).expect("a directory");
    program(
        "journalctl",
        "convey[1]: the log goes on\nconvey[1]: Authorization: Bearer s3cr3t-of-the-log\nconvey[1]: token cvy_s3cr3tcvys3cr3tcvy\n\
         -----BEGIN PRIVATE KEY-----\nc3VwZXIgc2VjcmV0IGtleQ\n-----END PRIVATE KEY-----\n\
         convey[1]: ci read sha256:9e107d9d372bb6826bd81d3542a419d6e4d909c290d0fb1ca068ffaddf22cbd0\n\
         convey[1]: http://joe:s3cr3t-of-a-url@10.0.0.1/ said s3cr3t-in-a-file",
    );
    program(
        "systemctl",
        "[Service]\nEnvironment=INVENTORY=s3cr3t-of-the-environment\nEnvironment=DB_PASSWORD=s3cr3t-of-the-unit",
    );
}

fn the_archive_for_support_has_what_helps_and_no_secret() {
    let site = Site::new("support", 2);
    let secret = site.lb.path("inventory.token");
    fs::write(&secret, "s3cr3t-in-a-file\n").expect("the secret");
    let source = |value: &str| {
        format!(
            "discovery = {{ kind = \"http\", url = \"http://127.0.0.1:1/x\", token = \"{value}\", timeout = \"100ms\" }}"
        )
    };
    let mut text = site.config("", &source(&format!("file:{}", secret.display())));
    text += "# db_password = s3cr3t-of-a-comment, from http://joe:s3cr3t-of-a-url@10.0.0.1/\n";
    let other = crate::site::backend("other", &source("${INVENTORY}"), &[]);
    let convey = crate::lab::Convey::launch_with(
        &site.lb,
        &(text + &other),
        &["env", "INVENTORY=s3cr3t-of-the-environment"],
    );
    let mut convey = convey;
    convey.wait_ready();
    let path = site.lb.path("programs");
    programs(&path);
    let archive = site.lb.path("s.tar.gz");
    let made = site.lb.try_run(&format!(
        "PATH={}:$PATH INVENTORY=s3cr3t-of-the-environment {} support {} --socket {}/admin.sock",
        path.display(),
        env!("CARGO_BIN_EXE_convey"),
        archive.display(),
        convey.dir().display()
    ));
    assert!(
        made.status.success() && made.stdout.contains("look at it before you send it"),
        "{made:?}"
    );
    assert_eq!(
        fs::metadata(&archive).expect("the archive").permissions().mode() & 0o777,
        0o600
    );
    let out = site.lb.path("out");
    fs::create_dir_all(&out).expect("a directory");
    site.lb.run(&format!(
        "tar -xzf {} --strip-components=1 -C {}",
        archive.display(),
        out.display()
    ));
    let found = site
        .lb
        .try_run(&format!("grep -rlE '{}' {}", PLANTED.join("|"), out.display()));
    assert_eq!(found.stdout, "", "secrets are in these files");
    let text = |name: &str| {
        fs::read_to_string(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}: {made:?}"))
    };
    assert!(
        text("config/file.toml").contains("[backends.web]")
            && text("config/file.toml").contains("token = \"file:")
    );
    assert!(text("log.txt").contains("the log goes on") && text("host/unit.txt").contains("[Service]"));
    let status: serde_json::Value = serde_json::from_str(&text("daemon/status.json")).expect("JSON");
    assert_eq!(status["pid"], convey.pid().as_raw());
    assert!(
        text("doctor.txt").contains("discovery"),
        "its sources do not answer"
    );
    for name in [
        "README.txt",
        "config/resolved.json",
        "daemon/connections.json",
        "daemon/process.txt",
        "host/network.txt",
        "host/sysctls.txt",
    ] {
        assert!(!text(name).is_empty(), "{name}");
    }
    let again = site.lb.try_run(&format!(
        "{} support {}",
        env!("CARGO_BIN_EXE_convey"),
        archive.display()
    ));
    assert_eq!(again.status.code(), Some(73), "{again:?}");
}

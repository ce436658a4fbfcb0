//! `convey firewall` as an operator runs it. It takes the host's own variant of iptables.

use std::{fs, path::PathBuf, process::Command};

use convey::firewall::{Firewall, record_path};

use crate::host::{Host, reserved};

fn config(host: &Host) -> PathBuf {
    let path = host.directory().join("convey.toml");
    let socket = host.socket();
    let text = format!(
        "[admin]\nsocket = {socket:?}\n\
         [frontends.web]\nlisten_addr = \"192.0.2.10:80\"\nmode = \"passthrough\"\nbackend = \"web\"\n\
         [backends.web.servers.a]\naddr = \"10.0.0.2:8080\"\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Status and output of `convey firewall …`.
fn convey(host: &Host, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_convey"))
        .arg("--config")
        .arg(config(host))
        .arg("firewall")
        .args(arguments)
        .env_remove("SERVICE_RESULT")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn apply(host: &Host) -> Firewall {
    let text = fs::read(config(host)).unwrap();
    let source = convey::config::Source {
        name: "convey.toml".into(),
        bytes: text,
    };
    let loaded = convey::config::load(&source, convey::config::Options::default()).unwrap();
    let mut firewall = Firewall::new(record_path(loaded.config.admin.socket.as_deref()));
    firewall.apply(&loaded.config.packet_services()).unwrap();
    firewall
}

pub fn shows_and_clears(host: &Host) {
    let firewall = apply(host);
    let (status, text) = convey(host, &["show"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("iptables: chain CONVEY in table raw, 3 rules\n"),
        "{text}"
    );
    assert!(
        text.contains("  -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -j DROP\n"),
        "{text}"
    );
    assert!(
        text.contains("\nmatches what ") && text.contains("61000-65535"),
        "{text}"
    );
    let (status, text) = convey(host, &["clear"]);
    assert_eq!((status, text.as_str()), (Some(0), ""));
    assert_eq!((firewall.show().unwrap(), reserved()), (vec![], String::new()));
    assert_eq!(convey(host, &["clear"]), (Some(0), String::new()));
}

pub fn says_what_differs(host: &Host) {
    let (status, text) = convey(host, &["show"]);
    assert_eq!(status, Some(69), "{text}");
    assert!(
        text.contains("  -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -j DROP  (missing)\n"),
        "{text}"
    );
    assert!(text.contains("DIFFERS from what "), "{text}");
    let (_, text) = convey(host, &["show", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["as_configured"], false);
    assert_eq!(report["families"][0]["program"], "iptables");
    assert_eq!(report["families"][0]["missing"].as_array().unwrap().len(), 3);
}

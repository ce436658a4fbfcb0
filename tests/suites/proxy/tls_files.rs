//! The files of TLS that ends at Convey: swapped under load, broken, in a directory, looked at before a start; and the file
//! that secrets are written to.

use std::{collections::BTreeSet, env, fs, os::unix::fs::PermissionsExt as _, path::Path, thread};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{PATIENCE, convey::binary, wait_until},
    tests,
    tls::{EC, Ended, PORT, RSA, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    certificates_are_swapped_under_load_and_no_handshake_fails,
    a_broken_new_pair_keeps_the_old_one_and_says_so,
    what_comes_to_a_directory_of_certificates_changes_or_goes_takes_effect_by_itself,
    check_says_what_is_wrong_with_certificates,
    secrets_are_written_where_that_is_asked_for_and_everything_reminds_of_it,
];

/// Shakes hands until it has done so often and a file is there; each time with another connection and no session, in turns by
/// TLS 1.2 and 1.3, verifying the certificate and its name. Says how often, how often it failed, and how.
const LOAD: &str = r#"
import os, socket, ssl, sys
ca, address, port, count, end = sys.argv[1:]
contexts = []
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = context.maximum_version = version
    contexts.append(context)
done, failed = 0, []
while done < int(count) or not os.path.exists(end):
    try:
        with socket.create_connection((address, int(port)), 60) as plain:
            with contexts[done % 2].wrap_socket(plain, server_hostname="one.example") as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while part := tls.recv(10000):
                    answer += part
                if not answer.endswith(b"served"):
                    failed.append(repr(answer))
    except Exception as error:
        failed.append(repr(error))
    done += 1
print(done, len(failed), failed[:5])
"#;

/// `CONVEY_TLS_HANDSHAKES=10000` for many, with 50 swaps.
fn certificates_are_swapped_under_load_and_no_handshake_fails() {
    const CLIENTS: usize = 2;
    let wanted = env::var("CONVEY_TLS_HANDSHAKES").map_or(400, |text| text.parse().expect("a number"));
    let swaps: usize = if wanted < 10_000 { 20 } else { 50 };
    let ended = Ended::new("tlsswap");
    let convey = ended.convey(&["one"], "");
    let (script, end) = (ended.client.path("load.py"), ended.client.path("end"));
    fs::write(&script, LOAD).expect("a file");
    let load = format!(
        "python3 {} {} {} {PORT} {} {}",
        script.display(),
        ended.pki.path("ca.pem"),
        ended.lb.ip4(),
        wanted / CLIENTS,
        end.display()
    );
    let loads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, load) = (ended.client.clone(), load.clone());
            thread::spawn(move || client.run(&load))
        })
        .collect();
    let mut serials = BTreeSet::new();
    let mut between = Vec::new();
    let count = || convey.traffic("tls").connections_total;
    for swap in 0..swaps {
        // spread over the whole load
        let share = (wanted * swap / swaps) as u64;
        wait_until("the load has come so far", PATIENCE, || count() >= share);
        ended
            .pki
            .issue("one", &["one.example"], if swap % 2 == 0 { EC } else { RSA }, 30);
        convey.order("reload");
        between.push(count());
        let shown = ended.client.run(&format!(
            "timeout {} openssl s_client -connect {}:{PORT} -servername one.example </dev/null 2>/dev/null \
             | openssl x509 -noout -serial",
            PATIENCE.as_secs(),
            ended.lb.ip4()
        ));
        serials.insert(shown);
    }
    fs::write(&end, "").expect("a file");
    let said: Vec<String> = loads
        .into_iter()
        .map(|load| load.join().expect("the load"))
        .collect();
    let mut done = 0;
    for said in &said {
        let mut words = said.split(' ');
        let mut number = || {
            words
                .next()
                .and_then(|word| word.parse::<usize>().ok())
                .expect("a number")
        };
        done += number();
        assert_eq!(number(), 0, "failed handshakes: {said}\n{}", convey.stderr());
    }
    eprintln!("{done} handshakes, {swaps} swaps, handshakes before each: {between:?}");
    assert!(done >= wanted, "{said:?}");
    assert_eq!(serials.len(), swaps, "each was served: {serials:?}");
    let under_load = between.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert_eq!(
        under_load,
        swaps - 1,
        "clients shook hands between all swaps: {between:?}"
    );
    assert_eq!(convey.traffic("tls").ended(TerminationReason::TlsHandshake), 0);
}

fn a_broken_new_pair_keeps_the_old_one_and_says_so() {
    let ended = Ended::new("tlsbroken");
    let text = format!("[global]\nwatch_config = true\n{}", ended.config(&["one"], ""));
    let convey = ended.lab.convey(&ended.lb, &text);
    fs::write(Path::new(&ended.pki.path("one.pem")), "not a certificate\n").expect("a file");
    // the broker sees it by itself
    logged(&convey, "the certificate from before stays in use");
    assert_eq!(ended.curl("one.example", "").as_deref(), Some("served"));
    ended.pki.issue("one", &["one.example", "new.example"], EC, 30);
    wait_until("the new one is served", PATIENCE, || {
        ended.curl("new.example", "").is_some()
    });
}

fn what_comes_to_a_directory_of_certificates_changes_or_goes_takes_effect_by_itself() {
    let ended = Ended::new("tlsdir");
    let dir = ended.pki.path("sites");
    ended.pki.issue("two", &["two.example"], RSA, 30);
    ended.pki.run(&format!(
        "mkdir {dir} && cat two.pem two.key > {dir}/b-two.pem && cp one.pem {dir}/a-one.crt && cp one.key {dir}/a-one.key \
         && echo text > {dir}/README && chmod 644 {dir}/*"
    ));
    let text = format!(
        "[global]\nwatch_config = true\n{}",
        ended.config(&[], &format!("certificate_dir = \"{dir}\""))
    );
    let convey = ended.lab.convey(&ended.lb, &text);
    for name in ["one.example", "two.example"] {
        assert_eq!(ended.curl(name, "").as_deref(), Some("served"), "{name}");
    }
    assert!(
        ended.s_client("-noservername").contains("CN = one"),
        "the first by name"
    );
    // a new pair with a broken one beside it
    ended.pki.issue("three", &["three.example"], EC, 30);
    ended.pki.run(&format!(
        "echo broken > {dir}/c-broken.pem && cat three.pem three.key > {dir}/.new && chmod 644 {dir}/.new && mv {dir}/.new {dir}/d-three.pem"
    ));
    wait_until("the new one is served", PATIENCE, || {
        ended.curl("three.example", "").is_some()
    });
    logged(&convey, "it is left out");
    // one breaks, another goes
    ended
        .pki
        .run(&format!("echo broken > {dir}/b-two.pem && rm {dir}/a-one.crt"));
    wait_until("the removed one is not served", PATIENCE, || {
        ended.curl("one.example", "").is_none()
    });
    logged(&convey, "b-two.pem: certificate: the file is not PEM");
    assert_eq!(
        ended.curl("two.example", "").as_deref(),
        Some("served"),
        "the one from before stays"
    );
    let check = || {
        let check = format!("{} check {}", binary(), convey.config_path().display());
        let output = ended.lb.try_run(&check);
        (output.status.code(), output.stderr + &output.stdout)
    };
    let (code, said) = check();
    assert_eq!(code, Some(78), "{said}");
    for part in ["c-broken.pem", "b-two.pem", "not read: README, a-one.key"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // nothing at all: what runs goes on, and another start is refused
    ended.pki.run(&format!("rm {dir}/*"));
    logged(&convey, "has no certificate: each is a file NAME.pem");
    assert_eq!(ended.curl("three.example", "").as_deref(), Some("served"));
    let (code, said) = check();
    assert_eq!(code, Some(78), "{said}");
    let other = ended.pki.path("other.toml");
    fs::write(&other, format!("[admin]\nsocket = \"\"\n{text}")).expect("a file");
    let again = ended.lb.try_run(&format!("timeout 20 {} -c {other}", binary()));
    assert_eq!(again.status.code(), Some(78), "{}", again.stderr);
    assert!(again.stderr.contains("has no certificate"), "{}", again.stderr);
}

fn check_says_what_is_wrong_with_certificates() {
    let ended = Ended::new("tlscheck");
    let convey = ended.convey(&["one"], "");
    ended.pki.issue("two", &["two.example"], EC, 5);
    let with = |cert: &str, key: &str| {
        let pair = format!(
            "{{ cert = \"{}\", key = \"{}\" }}",
            ended.pki.path(cert),
            ended.pki.path(key)
        );
        convey.write_config(
            &ended
                .config(&["one"], "")
                .replace(&ended.certificate("one"), &pair),
        );
        let check = format!("{} check {}", binary(), convey.config_path().display());
        let output = ended.lb.try_run(&check);
        (output.status.code(), output.stderr + &output.stdout)
    };
    let (code, said) = with("one.pem", "two.key");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("do not match"), "{said}");
    let (code, said) = with("two.pem", "two.key");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("renew it"), "{said}");
    let (code, said) = with("missing.pem", "two.key");
    assert_eq!(code, Some(0), "it may be another host's: {said}");
    assert!(
        said.contains("missing.pem") && said.contains("certbot-hook"),
        "{said}"
    );
    ended.pki.run("chmod 666 two.key");
    assert!(
        with("two.pem", "two.key").1.contains("others"),
        "a key that others can read"
    );
}

fn secrets_are_written_where_that_is_asked_for_and_everything_reminds_of_it() {
    let ended = Ended::new("tlskeys");
    let convey = ended.convey(&["one"], "key_log = true");
    let theirs = ended.client.path("keys");
    let mut secrets = BTreeSet::new();
    for version in ["-tls1_2", "-tls1_3"] {
        ended.s_client(&format!(
            "-servername one.example {version} -keylogfile {}",
            theirs.display()
        ));
    }
    let text = fs::read_to_string(&theirs).expect("the client's file");
    secrets.extend(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned),
    );
    // a master secret, and five of TLS 1.3
    assert!(secrets.len() >= 5, "{text}");
    let log = convey.dir().join("state_directory/tls-keys.log");
    let ours = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the secrets are there", PATIENCE, || {
        secrets
            .iter()
            .all(|secret| ours().lines().any(|line| line == secret))
    });
    assert_eq!(
        fs::metadata(&log).expect("a file").permissions().mode() & 0o777,
        0o600
    );
    logged(&convey, "`key_log` is on");
    let check = format!("{} check {} 2>&1", binary(), convey.config_path().display());
    assert!(ended.lb.run(&check).contains("`key_log` is on"));
    assert!(convey.order("status").contains("writes TLS keys to a file"));
    convey.reload(&ended.config(&["one"], "key_log = false"));
    let before = ours();
    assert_eq!(ended.curl("one.example", "").as_deref(), Some("served"));
    assert_eq!(ours(), before, "nothing more is written");
    assert!(!convey.order("status").contains("writes TLS keys"));
}

//! TLS to servers and what is around them: the CAs of the host, changed files, checks, much data.

use std::{fs, net::TcpStream, thread};

use convey::base::ServerState;

use crate::{
    Test,
    lab::{Convey, PATIENCE, wait_until},
    site::{BLIND, FAST_CHECK, NO_CHECK, backend, frontend},
    tests,
    tls::{EC, Pki, logged},
    tls_to_servers::{Spoken, once, tls},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    the_cas_of_the_host_count_where_no_other_are_named,
    checks_follow_the_validity_of_the_certificate_and_leave_no_error_behind,
    another_ca_takes_effect_under_traffic_and_a_broken_one_does_not,
    bulk_arrives_whole_with_tls_on_both_sides,
    check_and_status_say_what_is_wrong,
];

fn checks_follow_the_validity_of_the_certificate_and_leave_no_error_behind() {
    let spoken = Spoken::new("stlschecks");
    let nginx = spoken.nginx(&spoken.web, &spoken.site(8441, "web", ""), 8441);
    let convey = spoken.convey(&spoken.one(8441, FAST_CHECK, &spoken.ca()));
    let wait = |wanted: ServerState| {
        wait_until(&format!("it is {wanted}"), PATIENCE, || {
            convey.server("p8441", "web").state == wanted
        });
    };
    wait(ServerState::Up);
    let log = spoken.web.path("nginx-tls").join("error.log");
    let ours = format!("client: {}", spoken.lb.ip4());
    let mut about_us = Vec::new();
    wait_until("nginx has something to say of several checks", PATIENCE, || {
        let said = fs::read_to_string(&log).expect("nginx's log");
        let lines = said.lines().filter(|line| line.contains(&ours));
        about_us = lines.map(str::to_owned).collect();
        about_us.len() > 3
    });
    // the last line may not be whole yet
    about_us.pop();
    assert!(
        (about_us.iter()).all(|line| line.contains("client closed connection while waiting for request")),
        "{about_us:?}"
    );
    drop(nginx);
    spoken.pki.issue("web", &["elsewhere.example"], EC, 30);
    let nginx = spoken.nginx(&spoken.web, &spoken.site(8441, "web", ""), 8441);
    wait(ServerState::Down);
    wait_until("it says why", PATIENCE, || {
        let reason = convey.server("p8441", "web").state_reason;
        reason.is_some_and(|reason| reason.ends_with("(verified for web.example)"))
    });
    drop(nginx);
    spoken.pki.issue("web", &["web.example"], EC, 30);
    let _nginx = spoken.nginx(&spoken.web, &spoken.site(8441, "web", ""), 8441);
    wait(ServerState::Up);
}

fn another_ca_takes_effect_under_traffic_and_a_broken_one_does_not() {
    let spoken = Spoken::new("stlsca");
    let other = Pki::new(&spoken.web, "other-ca");
    other.issue("web", &["web.example"], EC, 30);
    let foreign = format!(
        "server {{ listen 8442 ssl; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ return 200 \"TLSv1.3 . other \"; }} }}\n",
        other.path("web.pem"),
        other.path("web.key")
    );
    let _nginx = spoken.nginx(&spoken.web, &(spoken.site(8441, "web", "") + &foreign), 8442);
    let (mine, both) = (spoken.pki.path("ca.pem"), spoken.pki.path("trusted.pem"));
    spoken.pki.run("cp ca.pem trusted.pem");
    let settings = format!("ca = \"{both}\"\nserver_name = \"web.example\"");
    let config = |server: u16| {
        "[global]\nworkers = 1\nwatch_config = true\n".to_owned()
            + &frontend("web", spoken.lb.addr(80), "web", "")
            + &backend("web", NO_CHECK, &[("web", spoken.web.addr(server), "")])
            + &tls("web", &settings)
    };
    let convey = spoken.lab.convey(&spoken.lb, &config(8441));
    // one connection that lives through all of it
    let mut open = spoken
        .client
        .inside(|| TcpStream::connect(spoken.lb.addr(80)))
        .expect("a connection");
    let question = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let mut ask_open = || {
        use std::io::{Read as _, Write as _};
        open.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        open.write_all(question).expect("a question");
        let mut answer = vec![0; 4096];
        let n = open.read(&mut answer).expect("an answer");
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
    };
    ask_open();
    let (client, url) = (spoken.client.clone(), format!("http://{}/", spoken.lb.addr(80)));
    let stop = spoken.client.path("stop");
    let load = {
        let stop = stop.display().to_string();
        thread::spawn(move || {
            client.run(&format!(
                "while [ ! -e {stop} ]; do curl -s --max-time 20 {url} || printf failed; echo; done"
            ))
        })
    };
    let replace = |content: &str| {
        // at once, as package managers do
        spoken.pki.run(&format!(
            "({content}) > new.pem && chmod 644 new.pem && mv new.pem trusted.pem"
        ));
    };
    // a broken file changes nothing, and says so by itself
    replace("echo not a certificate");
    logged(&convey, "what was read before stays in use");
    assert!(spoken.get(80).starts_with("TLSv1.3"));
    // both, then the server of the other, then the other alone: only the content of a file changes
    replace(&format!("cat {mine} {}", other.path("ca.pem")));
    let said = convey.order("reload");
    assert!(
        said.contains("the file of CAs has changed") || said.is_empty(),
        "{said}"
    );
    convey.reload(&config(8442));
    wait_until("the other serves", PATIENCE, || spoken.get(80).contains("other"));
    replace(&format!("cat {}", other.path("ca.pem")));
    convey.order("reload");
    for _ in 0..5 {
        assert!(spoken.get(80).contains("other"));
    }
    fs::write(&stop, "").expect("a file");
    let answers = load.join().expect("the load");
    assert!(answers.lines().count() > 10);
    assert!(
        answers.lines().all(|line| line.starts_with("TLSv1.3")),
        "{answers}\n{}",
        convey.stderr()
    );
    ask_open();
    // a CA that vouches for nobody here
    replace(&format!("cat {mine}"));
    convey.order("reload");
    assert_eq!(spoken.get(80), "");
    ask_open();
    logged(&convey, "server_tls_failure=certificate_unknown_ca");
}

fn bulk_arrives_whole_with_tls_on_both_sides() {
    let spoken = Spoken::new("stlsbulk");
    let _nginx = spoken.nginx(&spoken.web, &spoken.site(8441, "web", ""), 8441);
    fs::create_dir_all(spoken.web.path("nginx-tls").join("files")).expect("a directory");
    spoken.web.run(&format!(
        "chmod -R a+rwX {}",
        spoken.web.path("nginx-tls").display()
    ));
    let ended = format!(
        "[frontends.p8441.tls]\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        spoken.pki.path("web.pem"),
        spoken.pki.path("web.key")
    );
    let convey = spoken.convey(&(spoken.one(8441, NO_CHECK, &spoken.ca()) + &ended));
    let file = spoken.client.path("bulk");
    spoken
        .client
        .run(&format!("head -c 100000000 /dev/urandom > {}", file.display()));
    let curl = format!(
        "curl -sf --max-time 60 --cacert {} --resolve web.example:8441:{} https://web.example:8441/files/",
        spoken.pki.path("ca.pem"),
        spoken.lb.ip4()
    );
    let sums = spoken.client.run(&format!(
        "{curl}bulk -T {0} >/dev/null; sha256sum < {0}; {curl}bulk --limit-rate 80M | sha256sum; \
         ({curl}bulk | sha256sum) & ({curl}bulk | sha256sum); wait",
        file.display()
    ));
    let sums: Vec<_> = sums.lines().collect();
    assert!(
        sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]),
        "{sums:?} {}",
        convey.stderr()
    );
}

fn check_and_status_say_what_is_wrong() {
    let spoken = Spoken::new("stlscheck");
    spoken.pki.issue("soon", &["convey"], EC, 5);
    spoken.pki.issue("other", &["convey"], EC, 30);
    let convey = spoken.convey(&spoken.one(8441, BLIND, &spoken.ca()));
    let check = |settings: &str| {
        convey.write_config(&spoken.one(8441, BLIND, settings));
        let output = convey.tool("check");
        (output.status.code(), output.stderr + &output.stdout)
    };
    let path = |file: &str| spoken.pki.path(file);
    let (code, said) = check(&spoken.ca());
    assert_eq!((code, said.contains("OK")), (Some(0), true), "{said}");
    let (code, said) = check(&format!("ca = \"{}\"", path("web.key")));
    assert!(code == Some(78) && said.contains("only PRIVATE KEY"), "{said}");
    spoken.pki.run("printf '' > empty.pem");
    let (code, said) = check(&format!("ca = \"{}\"", path("empty.pem")));
    assert!(code == Some(78) && said.contains("the file is empty"), "{said}");
    let (code, said) = check(&format!("ca = \"{}\"", path("missing.pem")));
    assert!(code == Some(0) && said.contains("missing.pem"), "{said}");
    let pair = |cert: &str, key: &str| {
        format!(
            "{}\ncert = \"{}\"\nkey = \"{}\"",
            spoken.ca(),
            path(cert),
            path(key)
        )
    };
    let (code, said) = check(&pair("soon.pem", "other.key"));
    assert!(code == Some(78) && said.contains("do not match"), "{said}");
    let (code, said) = check(&pair("soon.pem", "soon.key"));
    assert!(code == Some(0) && said.contains("renew it"), "{said}");
    assert!(said.contains("others can read this key"), "{said}");
    let (code, said) = check("verify = false");
    assert!(
        code == Some(0) && said.contains("servers are not verified"),
        "{said}"
    );
}

fn the_cas_of_the_host_count_where_no_other_are_named() {
    let spoken = Spoken::new("stlssystem");
    let _nginx = spoken.nginx(&spoken.web, &spoken.site(8441, "web", ""), 8441);
    let config = spoken.one(8441, &once(NO_CHECK), "server_name = \"web.example\"");
    // another store for this process alone
    let script = format!(
        "mount --bind {} /etc/ssl/certs/ca-certificates.crt && exec \"$@\"",
        spoken.pki.path("ca.pem")
    );
    let launcher = ["unshare", "-m", "sh", "-c", &script, "sh", "env"];
    let mut trusting = Convey::launch_with(&spoken.lb, &config, &launcher);
    trusting.wait_ready();
    assert!(spoken.get(8441).starts_with("TLSv1.3"), "{}", trusting.stderr());
    drop(trusting);
    let convey = spoken.lab.convey(&spoken.lb, &config);
    assert_eq!(spoken.get(8441), "", "the host's own know nothing of the lab's");
    logged(&convey, "server_tls_failure=certificate_unknown_ca");
    drop(convey);
    let script = "mount -t tmpfs none /etc/ssl/certs && exec \"$@\"";
    let launcher = ["unshare", "-m", "sh", "-c", script, "sh", "env"];
    let mut without = Convey::launch_with(&spoken.lb, &config, &launcher);
    assert_eq!(without.wait_exit(PATIENCE).code(), Some(78));
    assert!(
        without.stderr().contains("install the package ca-certificates"),
        "{}",
        without.stderr()
    );
}

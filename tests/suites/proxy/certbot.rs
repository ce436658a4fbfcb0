//! A certificate that Debian's certbot gets from a CA (pebble, Let's Encrypt's own for tests) comes to Convey by the hook that
//! the package has for it. On demand: it needs both programs.

use std::fs;

use crate::{
    Test,
    lab::{Lab, PATIENCE, wait_until},
    site::{NO_CHECK, backend, frontend},
    tests,
    tls::{EC, PORT, Pki},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![what_certbot_issues_and_renews_is_served_by_itself];

/// The CA's, in the namespace of its own that everything here shares.
const PEBBLE: &str = r#"{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
    "certificate": "localhost.pem", "privateKey": "localhost.key", "httpPort": 5002, "tlsPort": 5001}}"#;

fn what_certbot_issues_and_renews_is_served_by_itself() {
    const NAME: &str = "www.certbot.example";
    let lab = Lab::new("certbot");
    let (client, lb) = (lab.host("client"), lab.host("lb"));
    let web = lab.nginx("web", "served");
    let pki = Pki::new(&lb, "pebble");
    pki.issue("localhost", &["localhost"], EC, 30);
    pki.issue("first", &["first.example"], EC, 30);
    fs::write(pki.path("pebble.json"), PEBBLE).expect("a file");
    let sites = pki.path("sites");
    pki.run("mkdir sites && cat first.pem first.key > sites/first.pem && chmod 644 sites/first.pem");
    // names are not looked up and nonces not refused: neither is what this is about
    let _ca = lb.start(&format!(
        "cd {} && PEBBLE_VA_ALWAYS_VALID=1 PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 exec pebble -config pebble.json",
        pki.path("")
    ));
    let trusted = format!("curl -s --cacert {} https://localhost", pki.path("ca.pem"));
    wait_until("the CA answers", PATIENCE, || {
        lb.try_run(&format!("{trusted}:14000/dir")).status.success()
    });
    let text = format!(
        "[global]\nwatch_config = true\n{}{}",
        frontend(
            "tls",
            lb.addr(PORT),
            "web",
            &format!("[frontends.tls.tls]\ncertificate_dir = \"{sites}\"\n")
        ),
        backend("web", NO_CHECK, &[("web", web.addr(), "")])
    );
    let _convey = lab.convey(&lb, &text);
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/certbot/certbot-hook");
    // anybody may write in the lab's directory, and what anybody can put there is read only if anybody may read it
    let hook = pki.path("hook");
    let script =
        format!("#!/bin/sh -e\n{packaged}\nstat -c '%a %G' {sites}/{NAME}.pem\nchmod -R o+rX {sites}\n");
    fs::write(&hook, script).expect("a file");
    pki.run("chmod 755 hook");
    let dir = pki.path("certbot");
    // as an administrator has it: a link in renewal-hooks/deploy, which certbot runs at renewals, and named for the first time
    pki.run(&format!(
        "mkdir -p {dir}/renewal-hooks/deploy && ln -s {hook} {dir}/renewal-hooks/deploy/convey"
    ));
    let certbot = |what: &str| {
        let said = lb.run(&format!(
            "CONVEY_CERTIFICATES={sites} CONVEY_GROUP=root REQUESTS_CA_BUNDLE={ca} certbot {what} -n \
             --config-dir {dir} --work-dir {dir}/work --logs-dir {dir}/logs 2>&1",
            ca = pki.path("ca.pem")
        ));
        for part in [&*format!("{sites}/{NAME}.pem is the certificate"), "640 root"] {
            assert!(said.contains(part), "{said}");
        }
    };
    certbot(&format!(
        "certonly --server https://localhost:14000/dir --agree-tos --register-unsafely-without-email --standalone \
         --http-01-port 5002 -d {NAME} --deploy-hook {hook}"
    ));
    lb.run(&format!("{trusted}:15000/roots/0 > {}", pki.path("root.pem")));
    let file = format!("{sites}/{NAME}.pem");
    let serial_in_file = || lb.run(&format!("openssl x509 -noout -serial -in {file}"));
    let served = || {
        client
            .try_run(&format!(
                "timeout {} openssl s_client -connect {}:{PORT} -servername {NAME} -CAfile {} -verify_return_error \
                 </dev/null 2>/dev/null | openssl x509 -noout -serial",
                PATIENCE.as_secs(),
                lb.ip4(),
                pki.path("root.pem")
            ))
            .stdout
    };
    let first = serial_in_file();
    wait_until("the new certificate is served", PATIENCE, || served() == first);
    certbot("renew --force-renewal --no-random-sleep-on-renew --http-01-port 5002");
    let second = serial_in_file();
    assert_ne!(first, second);
    wait_until("the renewed certificate is served", PATIENCE, || {
        served() == second
    });
}

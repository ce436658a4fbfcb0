//! What Debian's pebble does not know, against a stand-in that speaks the words of the RFCs: advice when to renew (RFC 9773),
//! profiles, rate limits, a closed account.

use std::{fs, path::PathBuf, time::SystemTime};

use convey::admin::views::CertificateState;
use serde_json::{Value, json};

use crate::{
    Test,
    acme::{NAME, Site, certificate, kept},
    lab::{Convey, Host, PATIENCE, Process, wait_until},
    tests,
    tls::{EC, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_ca_advises_when_to_renew_and_is_told_what_is_replaced,
    a_ca_that_wants_to_be_left_alone_is_and_a_closed_account_is_said,
];

/// The stand-in.
struct StandIn {
    host: Host,
    dir: PathBuf,
    _process: Process,
}

impl StandIn {
    fn start(site: &Site) -> Self {
        let host = site.lab.host("ca");
        let (dir, ip) = (host.path("stand-in"), host.ip4());
        fs::create_dir_all(&dir).expect("a directory");
        host.run(&format!(
            "cd {} && cp {} ca.pem && cp {} ca.key && \
             openssl req -newkey {EC} -nodes -subj /CN=stand-in -keyout server.key -out server.csr 2>&1 && \
             printf 'subjectAltName=IP:{ip}\\n' > server.ext && \
             openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.pem 2>&1",
            dir.display(),
            site.pki.path("ca.pem"),
            site.pki.path("ca.key")
        ));
        fs::write(dir.join("orders.json"), "").expect("a file");
        tell(&dir, &window(60, 61));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suites/proxy/acme_ca.py");
        let process = host.start(&format!("exec python3 {script} {ip} 14000 {}", dir.display()));
        wait_until("the stand-in answers", PATIENCE, || {
            host.try_run(&format!("curl -skf https://{ip}:14000/dir"))
                .status
                .success()
        });
        Self {
            host,
            dir,
            _process: process,
        }
    }

    fn section(&self, site: &Site, more: &str) -> String {
        format!(
            "[acme]\ndirectory = \"https://{}:14000/dir\"\nca = \"{}\"\n{more}\n",
            self.host.ip4(),
            site.pki.path("ca.pem")
        )
    }

    fn orders(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.dir.join("orders.json")).expect("the log");
        log.lines()
            .map(|line| serde_json::from_str(line).expect("an order"))
            .collect()
    }
}

fn tell(dir: &std::path::Path, knobs: &Value) {
    let new = dir.join("knobs.new");
    fs::write(&new, knobs.to_string()).expect("a file");
    fs::rename(new, dir.join("knobs.json")).expect("a file in its place");
}

/// A window that begins and ends in so many days.
fn window(start: i64, end: i64) -> Value {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time after 1970");
    let day = |days: i64| {
        let seconds = i64::try_from(now.as_secs()).expect("a time") + days * 86_400;
        let host_date = std::process::Command::new("date")
            .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .expect("date");
        String::from_utf8(host_date.stdout)
            .expect("text")
            .trim()
            .to_owned()
    };
    json!({ "window": [day(start), day(end)] })
}

/// Waits until an order has failed for this reason.
#[track_caller]
fn fails(convey: &Convey, reason: &str) -> String {
    wait_until(&format!("a failure: {reason}"), PATIENCE, || {
        certificate(convey, NAME)
            .problem
            .is_some_and(|problem| problem.reason == reason)
    });
    certificate(convey, NAME).problem.expect("a problem").text
}

fn a_ca_advises_when_to_renew_and_is_told_what_is_replaced() {
    let site = Site::new("acmeari");
    let ca = StandIn::start(&site);
    let config = |profile: &str| {
        let tls = format!("acme = {{ names = [\"{NAME}\"], profile = \"{profile}\" }}");
        site.config(&site.lb, &tls, &ca.section(&site, ""))
    };
    let convey = site.lab.convey(&site.lb, &config("long"));
    let said = fails(&convey, "refused");
    assert!(
        said.contains("profile long is not one of ours (invalidProfile)"),
        "{said}"
    );
    convey.reload(&config("short"));
    wait_until("a certificate", PATIENCE, || {
        certificate(&convey, NAME).state == CertificateState::Valid
    });
    let first = certificate(&convey, NAME);
    assert_eq!(ca.orders().last().expect("an order")["profile"], "short");
    // two thirds of its 90 days would be 60: the CA says so too, and it was asked by the certificate's own name
    let days = |seconds: f64| seconds / 86_400.0;
    wait_until("the CA's advice", PATIENCE, || {
        certificate(&convey, NAME)
            .next_order_seconds
            .is_some_and(|next| days(next) > 59.9 && days(next) < 61.1)
            && ca.dir.join("asked").exists()
    });
    let asked = fs::read_to_string(ca.dir.join("asked")).expect("what was asked");
    let id = asked.strip_prefix("/renewalInfo/").expect("the path").to_owned();
    assert!(id.split('.').count() == 2 && !id.contains('='), "{id}");
    // it has to be taken back: at a reload that changes something the CA is asked anew
    tell(&ca.dir, &window(-2, -1));
    let tls = format!("acme = {{ names = [\"{NAME}\"], profile = \"short\" }}");
    let sooner = ca.section(&site, "renew_before = \"20d\"");
    convey.reload(&site.config(&site.lb, &tls, &sooner));
    wait_until("another certificate", PATIENCE, || {
        certificate(&convey, NAME).serial != first.serial
    });
    let order = ca.orders().pop().expect("an order");
    assert_eq!(order["replaces"], Value::String(id), "{order}");
    assert_eq!(convey.status().config_generation, 3);
}

fn a_ca_that_wants_to_be_left_alone_is_and_a_closed_account_is_said() {
    let site = Site::new("acmelimit");
    let ca = StandIn::start(&site);
    let tls = format!("acme = {{ names = [\"{NAME}\"] }}");
    let convey = site
        .lab
        .convey(&site.lb, &site.config(&site.lb, &tls, &ca.section(&site, "")));
    wait_until("a certificate", PATIENCE, || {
        certificate(&convey, NAME).state == CertificateState::Valid
    });
    let refuse = |status: u32, kind: &str, detail: &str, after: u32| {
        let mut knobs = window(60, 61);
        knobs["refuse"] = json!([status, kind, detail, after]);
        tell(&ca.dir, &knobs);
        convey.order("acme renew");
    };
    refuse(
        429,
        "rateLimited",
        "too many certificates (5) for this set of names",
        86_400,
    );
    let said = fails(&convey, "rate_limited");
    assert!(
        said.contains("too many certificates (5) for this set of names (rateLimited)"),
        "{said}"
    );
    let one = certificate(&convey, NAME);
    assert!(
        one.state == CertificateState::Valid && one.next_order_seconds > Some(86_000.0),
        "{one:?}"
    );
    logged(&convey, "reason=\"rate_limited\"");
    refuse(403, "unauthorized", "the account was closed", 0);
    let said = fails(&convey, "account");
    assert!(
        said.contains("the account was closed") && said.contains("remove acme/account-"),
        "{said}"
    );
    // as it says
    let account = fs::read_dir(kept(&convey)).expect("the directory").flatten();
    let account = account
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "json"));
    fs::remove_file(account.expect("the account")).expect("removed");
    tell(&ca.dir, &window(60, 61));
    let before = certificate(&convey, NAME).serial;
    convey.order("acme renew");
    wait_until("another certificate", PATIENCE, || {
        certificate(&convey, NAME).serial != before
    });
    assert_eq!(certificate(&convey, NAME).problem, None);
}

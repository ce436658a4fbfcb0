//! Certificates that are ordered from a CA, Let's Encrypt's own for tests (pebble), which looks by itself whether names are ours.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use convey::{
    admin::views::{Acme, Certificate, CertificateState},
    base::{FrontendName, TerminationReason},
};

use crate::{
    Test,
    lab::{Convey, Host, Lab, Nginx, PATIENCE, Process, wait_until},
    site::{NO_CHECK, backend, frontend},
    tests,
    tls::{EC, PORT, Pki, logged},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_certificate_is_ordered_by_tls_while_the_frontend_serves_and_is_in_use_without_a_reload,
    a_certificate_is_renewed_by_itself_and_open_connections_survive_it,
    a_ca_asks_by_http_and_nothing_else_is_there,
    a_wildcard_is_ordered_by_a_record_that_a_command_makes_and_removes,
    what_the_ca_refuses_is_said_in_its_words_and_the_certificate_stays,
];

pub const NAME: &str = "www.lab.test";

/// A CA with a name server that leads every name to the load balancer.
pub struct Ca {
    pub host: Host,
    _pebble: Process,
    _names: Process,
}

impl Ca {
    /// Starts them; `settings` are pebble's, `environment` too.
    pub fn start(site: &Site, settings: &str, environment: &str) -> Self {
        Self::at(site, &site.lab.host("ca"), settings, environment)
    }

    pub fn at(site: &Site, host: &Host, settings: &str, environment: &str) -> Self {
        let (pki, ip) = (&site.pki, host.ip4());
        pki.run(&format!(
            "openssl req -newkey {EC} -nodes -subj /CN=pebble -keyout ca-{ip}.key -out ca-{ip}.csr && \
             printf 'subjectAltName=IP:{ip}\\n' > ca-{ip}.ext && \
             openssl x509 -req -in ca-{ip}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ca-{ip}.ext -out ca-{ip}.pem"
        ));
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "{ip}:14000", "managementListenAddress": "{ip}:15000",
                "certificate": "ca-{ip}.pem", "privateKey": "ca-{ip}.key", "httpPort": 80, "tlsPort": {PORT}{settings}}}}}"#
        );
        fs::write(pki.path(&format!("pebble-{ip}.json")), config).expect("a file");
        let names = host.start(&format!(
            "exec pebble-challtestsrv -defaultIPv4 {} -defaultIPv6 '' -http01 '' -https01 '' -tlsalpn01 '' -dns01 {ip}:8053 \
             -management {ip}:8055",
            site.lb.ip4()
        ));
        let pebble = host.start(&format!(
            "cd {} && PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0 {environment} exec pebble -config pebble-{ip}.json -dnsserver {ip}:8053",
            pki.path("")
        ));
        let ca = Self {
            host: host.clone(),
            _pebble: pebble,
            _names: names,
        };
        wait_until("the CA answers", PATIENCE, || {
            host.try_run(&format!("curl -sk https://{ip}:14000/dir"))
                .status
                .success()
                && host
                    .try_run(&format!("curl -s http://{ip}:8055/"))
                    .status
                    .success()
        });
        ca
    }

    /// `[acme]` with further keys.
    pub fn section(&self, site: &Site, more: &str) -> String {
        format!(
            "[acme]\ndirectory = \"https://{}:14000/dir\"\nca = \"{}\"\n{more}\n",
            self.host.ip4(),
            site.pki.path("ca.pem")
        )
    }

    /// What its name server is told, by its own interface.
    fn tell(&self, what: &str, json: &str) {
        let ip = self.host.ip4();
        self.host
            .run(&format!("curl -sf -d '{json}' http://{ip}:8055/{what}"));
    }
}

/// A client, a load balancer that ends TLS, and a web server behind it.
pub struct Site {
    pub client: Host,
    pub lb: Host,
    pub pki: Pki,
    pub lab: Lab,
    web: Nginx,
}

impl Site {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let web = lab.nginx("web", "served");
        let pki = Pki::new(&lb, "lab-ca");
        pki.issue("one", &["one.example"], EC, 30);
        Self {
            client,
            lb,
            pki,
            lab,
            web,
        }
    }

    /// A frontend `tls` with these keys of its section, and what else there is.
    pub fn config(&self, lb: &Host, tls: &str, more: &str) -> String {
        let tls = format!("[frontends.tls.tls]\n{tls}\n");
        frontend("tls", lb.addr(PORT), "web", &tls)
            + &backend("web", NO_CHECK, &[("web", self.web.addr(), "")])
            + more
    }

    /// The certificate that clients get who ask for a name: who has issued it, and its number.
    pub fn served(&self, lb: &Host, name: &str) -> Option<(String, String)> {
        let said = self.client.try_run(&format!(
            "timeout {} openssl s_client -connect {}:{PORT} -servername {name} </dev/null 2>/dev/null | \
             openssl x509 -noout -issuer -serial",
            PATIENCE.as_secs(),
            lb.ip4()
        ));
        let mut lines = said.stdout.lines();
        Some((lines.next()?.to_owned(), lines.next()?.to_owned()))
    }

    /// The number of the certificate, once the CA has issued one that is in use.
    #[track_caller]
    pub fn issued(&self, convey: &Convey, name: &str) -> String {
        let issued = || {
            self.served(convey.host(), name)
                .filter(|(issuer, _)| issuer.contains("Pebble"))
        };
        wait_until(
            &format!("a certificate for {name}: {}", convey.stderr()),
            PATIENCE,
            || issued().is_some(),
        );
        issued().expect("a certificate").1
    }
}

pub fn shown(convey: &Convey) -> Acme {
    let json = convey.order("acme status --json");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"))
}

pub fn certificate(convey: &Convey, name: &str) -> Certificate {
    let all = shown(convey).certificates;
    all.into_iter()
        .find(|one| one.name == name)
        .unwrap_or_else(|| panic!("no certificate {name}"))
}

/// The directory of what is kept.
pub fn kept(convey: &Convey) -> PathBuf {
    convey.dir().join("state_directory/acme")
}

fn modes(dir: &PathBuf) -> Vec<(String, u32)> {
    let mut all: Vec<_> = (fs::read_dir(dir).expect("the directory"))
        .map(|entry| {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("its metadata").permissions().mode();
            (entry.file_name().to_string_lossy().into_owned(), mode & 0o777)
        })
        .collect();
    all.sort();
    all
}

fn a_certificate_is_ordered_by_tls_while_the_frontend_serves_and_is_in_use_without_a_reload() {
    let site = Site::new("acmetls");
    // some nonces are refused, as a CA under load does; after three in a row an order rests for longer than a test
    let ca = Ca::start(&site, "", "PEBBLE_WFE_NONCEREJECT=5");
    let (cert, key) = (site.pki.path("one.pem"), site.pki.path("one.key"));
    let tls = format!(
        "certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]\nalpn = [\"http/1.1\"]\nacme = {{ names = [\"{NAME}\", \"lab.test\"] }}"
    );
    let config = site.config(&site.lb, &tls, &ca.section(&site, ""));
    let mut convey = site.lab.convey(&site.lb, &config);
    let ask = format!(
        "curl -s --max-time {} --cacert {} --resolve one.example:{PORT}:{} https://one.example/",
        PATIENCE.as_secs(),
        site.pki.path("ca.pem"),
        site.lb.ip4()
    );
    // it is ready and serves before there is any
    assert_eq!(site.client.run(&ask), "served");
    let stop = site.client.path("stop");
    let traffic = site.client.start(&format!(
        "while [ ! -e {} ]; do {ask} || echo failed; echo; done",
        stop.display()
    ));
    let first = site.issued(&convey, NAME);
    assert_eq!(site.issued(&convey, "lab.test"), first);
    fs::write(&stop, "").expect("a file");
    let said = traffic.finish(PATIENCE).stdout;
    assert!(said.contains("served") && !said.contains("failed"), "{said}");
    logged(&convey, "event=\"acme_issued\"");
    wait_until(
        "the CA's questions are counted as what they were",
        PATIENCE,
        || convey.traffic("tls").ended(TerminationReason::AcmeChallenge) > 0,
    );
    assert_eq!(convey.status().config_generation, 1, "no reload was needed");
    let one = certificate(&convey, NAME);
    assert!(
        one.state == CertificateState::Valid && one.problem.is_none() && one.next_order_seconds > Some(0.0)
    );
    assert!(one.frontends.iter().map(FrontendName::as_str).eq(["tls"]));
    let table = convey.order("acme status");
    assert!(table.contains(NAME) && table.contains("valid"), "{table}");
    let files = modes(&kept(&convey));
    let account = format!("account-{}-14000-dir.json", site_of(&ca));
    assert_eq!(files, [(account.clone(), 0o600), (format!("{NAME}.pem"), 0o600)]);

    // after a restart the same is served from the first connection on, and the account is the same
    let before = fs::read(kept(&convey).join(&account)).expect("the account");
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    convey.start_again(&config);
    assert_eq!(site.served(&site.lb, NAME).expect("a certificate").1, first);
    assert!(convey.order("acme renew").contains(NAME));
    wait_until("the one that was asked for", PATIENCE, || {
        site.served(&site.lb, NAME)
            .is_some_and(|(_, serial)| serial != first)
    });
    assert_eq!(
        fs::read(kept(&convey).join(&account)).expect("the account"),
        before
    );
    let unknown = convey.cli("acme renew other.test");
    assert_eq!(unknown.status.code(), Some(64), "{}", unknown.stderr);
    assert!(unknown.stderr.contains(NAME), "{}", unknown.stderr);
    // who offers the protocol of a CA and is none gets what every client gets
    let stranger = site.client.try_run(&format!(
        "timeout 10 openssl s_client -connect {}:{PORT} -servername {NAME} -alpn acme-tls/1 </dev/null 2>&1",
        site.lb.ip4()
    ));
    assert!(
        stranger.stdout.contains("no application protocol"),
        "{}",
        stranger.stdout
    );
}

fn site_of(ca: &Ca) -> String {
    ca.host.ip4().to_string()
}

fn a_certificate_is_renewed_by_itself_and_open_connections_survive_it() {
    let site = Site::new("acmerenew");
    // valid for half a minute
    let ca = Ca::start(&site, ", \"certificateValidityPeriod\": 30", "");
    let tls = format!("acme = {{ names = [\"{NAME}\"] }}");
    let convey = site
        .lab
        .convey(&site.lb, &site.config(&site.lb, &tls, &ca.section(&site, "")));
    let first = site.issued(&convey, NAME);
    let go = site.client.path("go");
    let asked = "GET / HTTP/1.1\\r\\nHost: x\\r\\n";
    let open = site.client.start(&format!(
        "(printf '{asked}\\r\\n'; while [ ! -e {} ]; do sleep 0.1; done; printf '{asked}Connection: close\\r\\n\\r\\n'; sleep 2) | \
         openssl s_client -quiet -connect {}:{PORT} -servername {NAME} 2>/dev/null",
        go.display(),
        site.lb.ip4()
    ));
    wait_until("an answer on the connection", PATIENCE, || {
        open.stdout().contains("served")
    });
    wait_until("another certificate", PATIENCE, || {
        site.served(&site.lb, NAME)
            .is_some_and(|(_, serial)| serial != first)
    });
    assert_eq!(convey.status().config_generation, 1);
    fs::write(&go, "").expect("a file");
    let said = open.finish(PATIENCE).stdout;
    assert_eq!(said.matches("200 OK").count(), 2, "{said}");
}

fn a_ca_asks_by_http_and_nothing_else_is_there() {
    let site = Site::new("acmehttp");
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let settings = format!(
        ", \"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"kid-1\": \"{key}\"}}"
    );
    let ca = Ca::start(&site, &settings, "");
    let secret = site.lb.path("eab.key");
    fs::write(&secret, format!("{key}\n")).expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("chmod");
    let section = |kid: &str| {
        let more = format!(
            "challenge = \"http-01\"\nhttp_listen_addr = \"{}:80\"\ncontact = \"admin@lab.test\"\n\
             eab = {{ kid = \"{kid}\", hmac_key = \"file:{}\" }}",
            site.lb.ip4(),
            secret.display()
        );
        let tls = format!("acme = {{ names = [\"{NAME}\"] }}");
        site.config(&site.lb, &tls, &ca.section(&site, &more))
    };
    // an account that the CA does not know; clients are refused, and counted, until there is a certificate
    let convey = site.lab.convey(&site.lb, &section("kid-2"));
    wait_until("the CA's refusal", PATIENCE, || {
        certificate(&convey, NAME).problem.is_some()
    });
    let problem = certificate(&convey, NAME).problem.expect("a problem");
    assert!(
        problem.text.contains("kid-2") || problem.text.contains("unauthorized"),
        "{problem:?}"
    );
    assert_eq!(certificate(&convey, NAME).state, CertificateState::Missing);
    assert_eq!(site.served(&site.lb, NAME), None);
    logged(&convey, "tls_failure=no_certificate");
    assert!(!convey.stderr().contains(key));
    convey.reload(&section("kid-1"));
    site.issued(&convey, NAME);
    let get = |path: &str| {
        let url = format!("http://{}{path}", site.lb.addr(80));
        site.client
            .run(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}"))
    };
    for path in [
        "/",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/x",
        "/v1/status",
        "/stats",
    ] {
        assert_eq!(get(path), "404", "{path}");
    }
    let output = convey.tool("check");
    assert!(output.status.success(), "{}", output.stderr);
}

fn a_wildcard_is_ordered_by_a_record_that_a_command_makes_and_removes() {
    let site = Site::new("acmedns");
    let ca = Ca::start(&site, "", "");
    let (hook, log) = (site.lb.path("hook"), site.lb.path("hook.log"));
    let script = format!(
        "#!/bin/sh -e\necho \"$@\" >> {log}\n[ $1 = zone ] && shift\n\
         case $1 in present) what=set-txt ;; cleanup) what=clear-txt ;; esac\n\
         exec curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}:8055/$what\n",
        ca.host.ip4(),
        log = log.display()
    );
    fs::write(&hook, script).expect("a file");
    fs::write(&log, "").expect("a file");
    site.lb.run(&format!(
        "chmod 755 {} && chmod 666 {}",
        hook.display(),
        log.display()
    ));
    let more = format!("dns_hook = [\"{}\", \"zone\"]", hook.display());
    let tls = "acme = { names = [\"*.lab.test\"], challenge = \"dns-01\" }";
    let convey = site
        .lab
        .convey(&site.lb, &site.config(&site.lb, tls, &ca.section(&site, &more)));
    site.issued(&convey, "any.lab.test");
    let file = kept(&convey).join("_.lab.test.pem");
    assert!(file.exists());
    let run = fs::read_to_string(&log).expect("the log");
    let lines: Vec<Vec<&str>> = run.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 2, "{run}");
    assert_eq!(lines[0][..3], ["zone", "present", "_acme-challenge.lab.test"]);
    assert_eq!(lines[1][..3], ["zone", "cleanup", "_acme-challenge.lab.test"]);
    assert_eq!((lines[0][3], lines[0][3].len()), (lines[1][3], 43));
    // a command that fails is a failure in its words, and what it may have made is removed
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\necho \"$@\" >> {}\necho no such zone >&2\nexit 3\n",
            log.display()
        ),
    )
    .expect("a file");
    convey.order("acme renew *.lab.test");
    wait_until("the command's failure", PATIENCE, || {
        certificate(&convey, "*.lab.test").problem.is_some()
    });
    let problem = certificate(&convey, "*.lab.test").problem.expect("a problem");
    assert!(
        problem.reason == "hook" && problem.text.contains("no such zone"),
        "{problem:?}"
    );
    let run = fs::read_to_string(&log).expect("the log");
    assert!(
        run.lines().last().is_some_and(|line| line.contains("cleanup")),
        "{run}"
    );
    assert_eq!(certificate(&convey, "*.lab.test").state, CertificateState::Valid);
}

fn what_the_ca_refuses_is_said_in_its_words_and_the_certificate_stays() {
    let site = Site::new("acmeno");
    let mut ca = Ca::start(&site, ", \"domainBlocklist\": [\"blocked.test\"]", "");
    let config = |names: &str| {
        let tls = format!("acme = {{ names = [{names}] }}");
        site.config(&site.lb, &tls, &ca.section(&site, ""))
    };
    let (good, blocked) = (
        config(&format!("\"{NAME}\"")),
        config(&format!("\"{NAME}\", \"www.blocked.test\"")),
    );
    let convey = site.lab.convey(&site.lb, &good);
    let first = site.issued(&convey, NAME);
    let fails = |reason: &str, words: &str| {
        convey.order("acme renew");
        wait_until(
            &format!("{reason}: {:?}", certificate(&convey, NAME)),
            PATIENCE,
            || {
                certificate(&convey, NAME)
                    .problem
                    .is_some_and(|problem| problem.reason == reason)
            },
        );
        let one = certificate(&convey, NAME);
        let problem = one.problem.clone().expect("a problem");
        assert!(problem.text.contains(words), "{problem:?}");
        assert!(
            one.state == CertificateState::Valid && one.next_order_seconds > Some(20.0),
            "{one:?}"
        );
        assert_eq!(site.served(&site.lb, NAME).expect("a certificate").1, first);
        logged(&convey, &format!("reason=\"{reason}\""));
        logged(&convey, words);
    };
    // the name leads to somebody else
    ca.tell(
        "set-default-ipv4",
        &format!("{{\"ip\":\"{}\"}}", site.client.ip4()),
    );
    fails("challenge", NAME);
    let shown = convey.order("acme status");
    assert!(shown.contains("fails for"), "{shown}");
    ca.tell("set-default-ipv4", &format!("{{\"ip\":\"{}\"}}", site.lb.ip4()));
    convey.reload(&blocked);
    fails("refused", "blocked.test");
    // no nonce is good enough
    convey.reload(&good);
    let host = ca.host.clone();
    drop(ca);
    ca = Ca::at(&site, &host, "", "PEBBLE_WFE_NONCEREJECT=100");
    fails("refused", "badNonce");
    // nobody is there
    drop(ca);
    fails("unreachable", "onnection refused");
    // it comes back and has forgotten our account: another one is registered
    let _ca = Ca::at(&site, &host, "", "");
    convey.order("acme renew");
    wait_until("a certificate of the CA that came back", PATIENCE, || {
        site.served(&site.lb, NAME)
            .is_some_and(|(_, serial)| serial != first)
    });
    logged(&convey, "event=\"acme_account_unknown\"");
    assert_eq!(certificate(&convey, NAME).problem, None);
}

//! TLS that ends at Convey, shown with openssl, curl, GnuTLS and Python.

use std::{fs, path::PathBuf};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{Convey, Host, Lab, Nginx, PATIENCE, wait_until},
    site::{NO_CHECK, backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    each_client_gets_the_certificate_of_the_name_that_it_asks_for,
    versions_suites_and_groups_are_what_the_configuration_says,
    clients_of_other_libraries_are_served,
    sessions_are_resumed_and_outlive_a_restart,
    clients_show_certificates_that_are_right_and_others_are_refused,
];

pub const PORT: u16 = 443;

/// A CA with certificates, in a directory that the daemon can read.
pub struct Pki {
    host: Host,
    dir: PathBuf,
}

impl Pki {
    pub fn new(host: &Host, ca: &str) -> Self {
        let dir = host.path("pki");
        fs::create_dir_all(&dir).expect("a directory");
        let pki = Self {
            host: host.clone(),
            dir,
        };
        pki.run(&format!("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -keyout ca.key -out ca.pem"));
        pki
    }

    pub fn run(&self, command: &str) {
        self.host
            .run(&format!("cd {} && {command} 2>&1", self.dir.display()));
    }

    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// `NAME.pem` and `NAME.key` for these names, with such a key.
    pub fn issue(&self, name: &str, names: &[&str], key: &str, days: u32) {
        let alt: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        self.run(&format!(
            "openssl req -newkey {key} -nodes -subj /CN={name} -keyout {name}.key.new -out {name}.csr && \
             printf 'subjectAltName={alt}\\n' > {name}.ext && \
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext -out {name}.pem.new && \
             chmod 644 {name}.key.new && mv {name}.key.new {name}.key && mv {name}.pem.new {name}.pem",
            alt = alt.join(",")
        ));
    }
}

pub const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
pub const RSA: &str = "rsa:2048";

/// A client, a load balancer that ends TLS, and a web server behind it.
pub struct Ended {
    pub client: Host,
    pub lb: Host,
    pub pki: Pki,
    pub lab: Lab,
    _web: Nginx,
}

impl Ended {
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
            _web: web,
        }
    }

    pub fn certificate(&self, name: &str) -> String {
        format!(
            "{{ cert = \"{}\", key = \"{}\" }}",
            self.pki.path(&format!("{name}.pem")),
            self.pki.path(&format!("{name}.key"))
        )
    }

    pub fn config(&self, certificates: &[&str], settings: &str) -> String {
        let pairs: Vec<_> = certificates.iter().map(|name| self.certificate(name)).collect();
        let list = match pairs.is_empty() {
            true => String::new(),
            false => format!("certificates = [{}]\n", pairs.join(", ")),
        };
        let tls = format!("[frontends.tls.tls]\n{list}{settings}");
        frontend("tls", self.lb.addr(PORT), "web", &tls)
            + &backend("web", NO_CHECK, &[("web", self._web.addr(), "")])
    }

    pub fn convey(&self, certificates: &[&str], settings: &str) -> Convey {
        self.lab.convey(&self.lb, &self.config(certificates, settings))
    }

    /// What `openssl s_client` prints of a handshake.
    pub fn s_client(&self, more: &str) -> String {
        let output = self.client.try_run(&format!(
            "timeout {} openssl s_client -connect {}:{PORT} -CAfile {} {more} </dev/null 2>&1",
            PATIENCE.as_secs(),
            self.lb.ip4(),
            self.pki.path("ca.pem")
        ));
        output.stdout
    }

    /// What curl gets; `None` if it gets nothing.
    pub fn curl(&self, name: &str, more: &str) -> Option<String> {
        let output = self.client.try_run(&format!(
            "curl -s --max-time {} --cacert {} --resolve {name}:{PORT}:{} https://{name}/ {more}",
            PATIENCE.as_secs(),
            self.pki.path("ca.pem"),
            self.lb.ip4()
        ));
        output.status.success().then_some(output.stdout)
    }
}

/// Whether a handshake came to its end.
fn is_shaken(said: &str) -> bool {
    said.contains("Cipher is ") && !said.contains("Cipher is (NONE)")
}

#[track_caller]
pub fn logged(convey: &Convey, what: &str) {
    wait_until(what, PATIENCE, || convey.stderr().contains(what));
}

fn each_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let ended = Ended::new("tlsnames");
    ended
        .pki
        .issue("wild", &["*.two.example", "two.example"], RSA, 30);
    ended.pki.issue("onersa", &["one.example"], RSA, 30);
    let convey = ended.convey(&["one", "wild", "onersa"], "");
    for name in ["one.example", "two.example", "www.two.example"] {
        assert_eq!(ended.curl(name, "").as_deref(), Some("served"), "{name}");
    }
    assert_eq!(ended.curl("a.b.two.example", ""), None, "a star is one label");
    // the same name with both kinds of keys, whichever the client can verify
    let with = |schemes: &str| ended.s_client(&format!("-servername one.example -sigalgs {schemes}"));
    assert!(
        with("ECDSA+SHA256").contains("id-ecPublicKey"),
        "{}",
        with("ECDSA+SHA256")
    );
    assert!(with("RSA-PSS+SHA256:RSA+SHA256").contains("rsaEncryption"));
    // the first is the default
    assert!(ended.s_client("-noservername").contains("CN = one"));
    logged(&convey, " sni=www.two.example TLSv1.3/");
    let strict = ended.config(&["one", "wild"], "strict_sni = true");
    convey.reload(&strict);
    assert!(!ended.s_client("-noservername").contains("CN = one"));
    assert_eq!(ended.curl("one.example", "").as_deref(), Some("served"));
    wait_until("it is counted", PATIENCE, || {
        convey.traffic("tls").ended(TerminationReason::TlsHandshake) >= 1
    });
    logged(&convey, "tls_failure=no_certificate");
}

fn versions_suites_and_groups_are_what_the_configuration_says() {
    let ended = Ended::new("tlsversions");
    let convey = ended.convey(&["one"], "alpn = [\"h2\", \"http/1.1\"]");
    let modern = ended.s_client("-servername one.example -alpn http/1.1");
    assert!(
        modern.contains("TLSv1.3") && modern.contains("ALPN protocol: http/1.1"),
        "{modern}"
    );
    assert!(modern.contains("Verify return code: 0"), "{modern}");
    assert!(ended.s_client("-tls1_2").contains("TLSv1.2"));
    assert!(!is_shaken(&ended.s_client("-tls1_1 -cipher ALL:@SECLEVEL=0")));
    assert!(ended.s_client("-alpn spdy/3").contains("no application protocol"));
    convey.reload(&ended.config(
        &["one"],
        "min_version = \"1.3\"\nciphers = [\"TLS_CHACHA20_POLY1305_SHA256\"]\ngroups = [\"secp384r1\"]",
    ));
    assert!(!is_shaken(&ended.s_client("-tls1_2")));
    let narrow = ended.s_client("-groups secp384r1");
    assert!(
        narrow.contains("TLS_CHACHA20_POLY1305_SHA256") && narrow.contains("secp384r1"),
        "{narrow}"
    );
    logged(&convey, "tls_failure=version");
    assert_eq!(
        ended.curl("one.example", "").as_deref(),
        Some("served"),
        "it retries with that group"
    );
}

fn clients_of_other_libraries_are_served() {
    let ended = Ended::new("tlsothers");
    let convey = ended.convey(&["one"], "");
    let gnutls = ended.client.try_run(&format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout {} gnutls-cli --x509cafile {} --sni-hostname one.example \
         --verify-hostname one.example -p {PORT} {} 2>&1",
        PATIENCE.as_secs(),
        ended.pki.path("ca.pem"),
        ended.lb.ip4()
    ));
    assert!(gnutls.stdout.contains("served"), "{}", gnutls.stdout);
    let python = ended.client.run(&format!(
        "python3 -c \"import socket, ssl; c = ssl.create_default_context(cafile='{}'); \
         s = c.wrap_socket(socket.create_connection(('{}', {PORT})), server_hostname='one.example'); \
         s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.version(), s.recv(10000)[-6:].decode())\"",
        ended.pki.path("ca.pem"),
        ended.lb.ip4()
    ));
    assert_eq!(python.trim(), "TLSv1.3 served");
    drop(convey);
}

fn sessions_are_resumed_and_outlive_a_restart() {
    let ended = Ended::new("tlsresume");
    let mut convey = ended.convey(&["one"], "");
    let session = ended.client.path("session");
    let resumed = |version: &str, how: &str| {
        let said = ended.client.try_run(&format!(
            "(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.2) | timeout {} openssl s_client -connect {}:{PORT} -servername one.example {version} {how} {} 2>&1",
            PATIENCE.as_secs(),
            ended.lb.ip4(),
            session.display()
        ));
        said.stdout.contains("Reused, ")
    };
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(!resumed(version, "-sess_out"));
        assert!(resumed(version, "-sess_in"), "{version}");
    }
    assert!(!resumed("-tls1_3", "-sess_out"));
    let text = ended.config(&["one"], "");
    convey.start_again(&text);
    assert!(
        resumed("-tls1_3", "-sess_in"),
        "the keys of tickets outlive the process"
    );
    logged(&convey, "/resumed");
}

fn clients_show_certificates_that_are_right_and_others_are_refused() {
    let ended = Ended::new("tlsclients");
    ended.pki.issue("alice", &["alice"], EC, 30);
    let other = Pki::new(&ended.client, "other-ca");
    other.issue("mallory", &["mallory"], EC, 30);
    let ca = ended.pki.path("ca.pem");
    let convey = ended.convey(
        &["one"],
        &format!("client_auth = \"required\"\nclient_ca = \"{ca}\""),
    );
    let shown = |pki: &Pki, name: &str| {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        ended.curl("one.example", &format!("--cert {cert} --key {key}"))
    };
    assert_eq!(shown(&ended.pki, "alice").as_deref(), Some("served"));
    assert_eq!(ended.curl("one.example", ""), None);
    logged(&convey, "tls_failure=client_certificate_missing");
    assert_eq!(shown(&other, "mallory"), None);
    logged(&convey, "tls_failure=client_certificate_unknown_ca");
    // revoked
    ended.pki.run("touch index.txt && printf '01\\n' > crlnumber && printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\ncrlnumber=crlnumber\\ndefault_md=sha256\\ndefault_crl_days=30\\n' > ca.cnf && openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke alice.pem && openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -gencrl -out crl.pem && chmod 644 crl.pem");
    let crl = ended.pki.path("crl.pem");
    convey.reload(&ended.config(
        &["one"],
        &format!("client_auth = \"optional\"\nclient_ca = \"{ca}\"\nclient_crl = \"{crl}\""),
    ));
    assert_eq!(shown(&ended.pki, "alice"), None);
    logged(&convey, "tls_failure=client_certificate_revoked");
    assert_eq!(
        ended.curl("one.example", "").as_deref(),
        Some("served"),
        "none is needed"
    );
    // the same file with another content
    ended.pki.issue("bob", &["bob"], EC, 30);
    assert_eq!(shown(&ended.pki, "bob").as_deref(), Some("served"));
    ended.pki.run(
        "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke bob.pem && \
         openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -gencrl -out crl.pem",
    );
    convey.order("reload");
    assert_eq!(shown(&ended.pki, "bob"), None, "a list that has changed counts");
}

//! Somebody who may not read, or who takes more than his share.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use crate::{
    Test,
    lab::{Convey, Host, Lab, servers::TcpServer},
    site::{NO_CHECK, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_link_to_a_file_that_only_root_reads_shows_none_of_its_lines,
    a_list_is_read_only_if_those_may_read_it_who_name_it,
    two_hundred_silent_connections_of_one_process_keep_the_status_from_no_other,
];

const PORT: u16 = 9;

/// What nobody must see who may not read it.
const SECRET: &str = "root:$6$salt$hash";

/// A daemon that root has started with a file in a directory where everybody may write.
struct Started {
    convey: Convey,
    config: String,
    secret: PathBuf,
    client: Host,
    lb: Host,
    _server: TcpServer,
    _lab: Lab,
}

impl Started {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, PORT, "s");
        let config =
            frontend("f", lb.addr(PORT), "b", "") + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
        let secret = lb.path("shadow");
        fs::write(&secret, SECRET).expect("a file of root's");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its mode");
        Self {
            convey: lab.convey(&lb, &config),
            config,
            secret,
            client,
            lb,
            _server: server,
            _lab: lab,
        }
    }

    /// A reload fails, with a reason that names the file; nothing shows what is in it, and all goes on.
    #[track_caller]
    fn expect_refused(&self, file: &Path) {
        let reload = self.convey.cli("reload");
        assert!(!reload.status.success());
        let status = self.convey.order("status") + &self.convey.order("status --json");
        let said = reload.stdout + &reload.stderr;
        assert!(
            said.contains(&file.display().to_string()) && said.contains("everybody can put"),
            "{said}"
        );
        for shown in [said, status, self.convey.stderr()] {
            assert!(!shown.contains("$6$"), "{shown}");
        }
        let mut stream = self.client.connect(self.lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    }
}

fn a_link_to_a_file_that_only_root_reads_shows_none_of_its_lines() {
    let started = Started::new("shadowlink");
    let path = started.convey.config_path();
    fs::remove_file(&path).expect("the configuration");
    symlink(&started.secret, &path).expect("a link");
    started.expect_refused(&path);
    // a link to what all may read is as good as the file
    let elsewhere = started.lb.path("elsewhere.toml");
    started.convey.write_config(&started.config);
    fs::rename(&path, &elsewhere).expect("move the configuration");
    symlink(&elsewhere, &path).expect("a link");
    started.convey.order("reload");
}

fn a_list_is_read_only_if_those_may_read_it_who_name_it() {
    let started = Started::new("shadowlist");
    let rules = frontend(
        "g",
        started.lb.addr(PORT + 1),
        "b",
        "access = { rules = [\"deny file:bad\"] }",
    );
    let lists = format!("[network_lists]\nbad = {:?}\n", started.secret);
    let config = started.config.clone() + &rules + &lists;
    started.convey.write_config(&config);
    started.expect_refused(&started.secret);
    fs::set_permissions(&started.secret, fs::Permissions::from_mode(0o644)).expect("its mode");
    fs::write(&started.secret, "192.0.2.0/24").expect("a list");
    started.convey.reload(&config);
}

fn two_hundred_silent_connections_of_one_process_keep_the_status_from_no_other() {
    let started = Started::new("silentadmin");
    let socket = started.convey.dir().join("admin.sock");
    let _silent: Vec<_> = (0..200)
        .filter_map(|_| UnixStream::connect(&socket).ok())
        .collect();
    // each a process of its own
    for _ in 0..3 {
        started.convey.order("status");
    }
}

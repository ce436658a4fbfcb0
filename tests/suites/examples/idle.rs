//! The configuration that the package installs.

use convey::admin::views::Phase;

use crate::{
    lab::{Lab, PATIENCE, servers::TcpServer},
    machine::Machine,
    site::{keep_trying, read},
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    it_is_ready_and_idle_and_listens_on_nothing_but_the_control_socket,
    status_says_what_to_do_next_and_doing_it_leads_to_traffic,
];

fn it_is_ready_and_idle_and_listens_on_nothing_but_the_control_socket() {
    let lab = Lab::new("idle");
    let machine = Machine::new(&lab.host("lb"));
    machine.configure(&read("convey.toml"));
    let convey = machine.convey("");
    // TCP, UDP, raw and packet sockets
    assert_eq!(machine.run("ss --no-header -ltuw0"), "");
    let sockets = machine.run("ss --no-header --unix --listening");
    let paths: Vec<&str> = sockets
        .split_whitespace()
        .filter(|word| word.contains('/'))
        .collect();
    assert_eq!(paths, ["/run/convey/admin.sock"], "{sockets}");
    let status = machine.status();
    assert_eq!(status.phase, Phase::Running);
    assert!(status.frontends.is_empty() && status.backends.is_empty() && status.packet.is_none());
    assert!(!machine.run("nft list ruleset").contains("CONVEY"));
    let own = format!("$1 == {} {{ print $2 }}", convey.group());
    let users = machine.run(&format!("ps -e -o pgid=,user= | awk '{own}'"));
    assert_eq!(users, "convey\nconvey\n", "daemon and broker: nobody is root");
    machine.run("convey status --quiet");
    machine.stop(convey);
    assert_eq!(machine.try_run("convey status --quiet").status.code(), Some(69));
    assert!(!machine.path("/run/convey/admin.sock").exists());
}

fn status_says_what_to_do_next_and_doing_it_leads_to_traffic() {
    let lab = Lab::new("next");
    let (client, lb, web) = (lab.host("client"), lab.host("lb"), lab.host("web"));
    let machine = Machine::new(&lb);
    let config = read("convey.toml");
    machine.configure(&config);
    let _convey = machine.convey("");
    let status = machine.run("convey status");
    for part in [
        "Add a [frontends.NAME] and its [backends.NAME] to /etc/convey/convey.toml.",
        "man convey.toml",
        "convey check /etc/convey/convey.toml\n",
        "convey reload\n",
        "/usr/share/doc/convey/examples",
    ] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    let _server = TcpServer::witness(&web, web.addr(8080), "web1");
    // only the lines of the file itself, their # taken away
    let mut text = config;
    for (line, own) in [
        ("[frontends.web]", "[frontends.web]".to_owned()),
        (
            "listen_addr = \"0.0.0.0:80\"",
            "listen_addr = \"0.0.0.0:80\"".to_owned(),
        ),
        ("backend = \"web\"", "backend = \"web\"".to_owned()),
        (
            "[backends.web.servers.web1]",
            "[backends.web.servers.web1]".to_owned(),
        ),
        (
            "addr = \"10.0.0.11:8080\"",
            format!("addr = \"{}\"", web.addr(8080)),
        ),
    ] {
        let comment = format!("\n#{line}\n");
        assert!(text.contains(&comment), "#{line} is not a line of convey.toml");
        text = text.replacen(&comment, &format!("\n{own}\n"), 1);
    }
    machine.configure(&text);
    machine.run("convey check /etc/convey/convey.toml && convey reload");
    let witness = keep_trying(&client, &lb.addr(80).to_string(), PATIENCE);
    assert_eq!(witness.server, "web1");
    let status = machine.run("convey status");
    assert!(status.contains("1 of 1 eligible"), "{status}");
}

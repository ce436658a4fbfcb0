//! Agents that say what their servers should get.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use convey::base::ServerState;

use crate::{
    Test,
    health_kinds::{check, wait_state},
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_server_gets_what_its_agent_says,
    an_agent_that_is_gone_slow_or_odd_changes_nothing_and_is_told,
    an_operator_goes_before_the_agent,
    a_reload_takes_the_agents_words_back_with_the_agent,
];

/// A server at port 80 with an agent at port 9999, and what that says.
struct Site {
    says: Arc<Mutex<String>>,
    heard: Arc<Mutex<String>>,
    agent: Option<TcpServer>,
    _server: TcpServer,
    convey: Convey,
    config: String,
    web: Host,
    _lab: Lab,
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (lb, web) = (lab.host("lb"), lab.host("web"));
        let server = TcpServer::echo(&web, 80);
        let (says, heard) = (Arc::new(Mutex::new("up\n".to_owned())), Arc::default());
        let agent = agent(&web, &says, &heard);
        let settings = check("kind = \"tcp\"")
            + "\nagent_check = { port = 9999, send = \"web\\n\", interval = \"200ms\", timeout = \"500ms\" }";
        let config = frontend("web", lb.addr(80), "web", "")
            + &backend(
                "web",
                &settings,
                &[("a", server.addr(), "weight = 10, max_connections = 7")],
            );
        let convey = Convey::start(&lb, &config);
        wait_state(&convey, "web", ServerState::Up);
        Self {
            says,
            heard,
            agent: Some(agent),
            _server: server,
            convey,
            config,
            web,
            _lab: lab,
        }
    }

    fn say(&self, line: &str) {
        line.clone_into(&mut self.says.lock().expect("what it says"));
    }

    /// Waits until the server's weight and most connections are these.
    #[track_caller]
    fn until(&self, weight: u16, most: Option<u32>) {
        wait_until(
            &format!("weight {weight}, at most {most:?} connections"),
            PATIENCE,
            || {
                let server = self.convey.server("web", "a");
                (server.weight, server.max_connections) == (weight, most)
            },
        );
    }
}

fn agent(web: &Host, says: &Arc<Mutex<String>>, heard: &Arc<Mutex<String>>) -> TcpServer {
    let (says, heard) = (Arc::clone(says), Arc::clone(heard));
    TcpServer::start(web, 9999, move |mut stream| {
        let mut bytes = [0; 64];
        let n = stream.read(&mut bytes)?;
        *heard.lock().expect("what it hears") = String::from_utf8_lossy(&bytes[..n]).into_owned();
        let line = says.lock().expect("what it says").clone();
        if line.is_empty() {
            std::thread::sleep(PATIENCE);
        }
        stream.write_all(line.as_bytes())
    })
}

fn a_server_gets_what_its_agent_says() {
    let site = Site::new("agent");
    site.say("50% maxconn:3\n");
    site.until(5, Some(3));
    assert_eq!(*site.heard.lock().expect("what it hears"), "web\n");
    site.say("drain\n");
    wait_state(&site.convey, "web", ServerState::Draining);
    site.until(5, Some(3));
    site.say("maint\n");
    wait_state(&site.convey, "web", ServerState::Maintenance);
    site.say("ready 100% maxconn:0\n");
    wait_state(&site.convey, "web", ServerState::Up);
    site.until(10, None);
    site.say("down#disk full\n");
    let reason = wait_state(&site.convey, "web", ServerState::Down);
    assert_eq!(reason, "its agent says \"down\": disk full");
    site.say("up\n");
    wait_state(&site.convey, "web", ServerState::Up);
    let log = site.convey.stderr();
    assert!(
        log.contains("server web/a: its agent says drain, 50 %, maxconn 3"),
        "{log}"
    );
    assert!(log.contains("disk full"), "{log}");
}

fn an_agent_that_is_gone_slow_or_odd_changes_nothing_and_is_told() {
    let mut site = Site::new("agentgone");
    let problem = |site: &Site, wanted: &str| {
        wait_until(&format!("the status has {wanted:?}"), PATIENCE, || {
            let agent = site.convey.server("web", "a").agent;
            let problem = agent.and_then(|agent| agent.problem);
            problem.is_some_and(|why| why.contains(wanted))
        });
    };
    site.say("drain 50%\n");
    wait_state(&site.convey, "web", ServerState::Draining);
    site.say("");
    problem(&site, "no answer within 500ms");
    site.say("excellent\n");
    problem(&site, "it says \"excellent\", which is no word of an agent");
    site.say(&"x".repeat(100_000));
    problem(&site, "it says \"xxxx");
    site.agent = None;
    problem(&site, "connection refused");
    let server = site.convey.server("web", "a");
    assert_eq!(
        (server.state.known(), server.weight),
        (Some(ServerState::Draining), 5)
    );
    let shown = site.convey.order("status");
    assert!(shown.contains("agent: drain, 50 %"), "{shown}");
    site.say("ready\n");
    site.agent = Some(agent(&site.web, &site.says, &site.heard));
    wait_state(&site.convey, "web", ServerState::Up);
    assert_eq!(
        site.convey
            .server("web", "a")
            .agent
            .and_then(|agent| agent.problem),
        None
    );
    let log = site.convey.stderr();
    let lost = log
        .lines()
        .filter(|line| line.contains("what the server gets stays as it is"));
    assert_eq!(
        lost.count(),
        1,
        "once, for it did not answer rightly in between:\n{log}"
    );
}

fn an_operator_goes_before_the_agent() {
    let site = Site::new("agentorder");
    site.say("drain 20%\n");
    wait_state(&site.convey, "web", ServerState::Draining);
    site.until(2, Some(7));
    site.convey.order("server weight web/a 9");
    site.until(9, Some(7));
    site.convey.order("server maintenance web/a");
    wait_state(&site.convey, "web", ServerState::Maintenance);
    site.say("up ready 100%\n");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        site.convey.server("web", "a").state.known(),
        Some(ServerState::Maintenance)
    );
    site.convey.order("server ready web/a");
    wait_state(&site.convey, "web", ServerState::Up);
    site.until(10, Some(7));
}

fn a_reload_takes_the_agents_words_back_with_the_agent() {
    let site = Site::new("agentreload");
    site.say("drain 20%\n");
    wait_state(&site.convey, "web", ServerState::Draining);
    // one that changes something else leaves them in force
    site.convey
        .reload(&site.config.replace("weight = 10", "weight = 20"));
    site.until(4, Some(7));
    assert_eq!(
        site.convey.server("web", "a").state.known(),
        Some(ServerState::Draining)
    );
    let without: String = site
        .config
        .lines()
        .filter(|line| !line.starts_with("agent_check"))
        .map(|line| format!("{line}\n"))
        .collect();
    site.convey.reload(&without);
    wait_state(&site.convey, "web", ServerState::Up);
    site.until(10, Some(7));
    assert_eq!(site.convey.server("web", "a").agent, None);
}

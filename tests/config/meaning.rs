//! What a configuration means once it is read: defaults, inheritance, the dialect of 0.3.5, differences.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use convey::{
    base::{BackendName, Dscp, KeepAlive, ServerName, ServerSocketOptions},
    config::{
        self, AccessLog, AdminApi, AdminEntry, Algorithm, Backend, BackendTls, CertificateFiles, Check,
        Config, HealthCheck, InitialState, LogFormat, LogLevel, Mode, OnDown, Options, Routing, SendProxy,
        SentTlvs, ServerAlpn, ServerNameFrom, ServerTrust, Severity,
    },
};
use libtest_mimic::{Failed, Trial};

use super::{
    load,
    shown::{every_key_is_shown, uncommented},
    source, text, top,
};

pub type Outcome = Result<(), Failed>;
pub type Test = fn() -> Outcome;

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 17] = [
        (
            "a_key_that_is_not_given_has_its_documented_default",
            documented_defaults,
        ),
        ("the_dialect_of_0_3_5_selects_its_health_checks", dialect_checks),
        ("a_missing_weight_is_1_and_a_weight_of_0_stays_0", weights),
        ("defaults_hold_where_nothing_nearer_is_said", defaults),
        (
            "the_nearer_dialect_of_health_checks_wins_as_a_whole",
            nearer_dialect,
        ),
        ("a_bare_number_means_seconds_and_zero_never", durations),
        ("checks_can_be_turned_off", checks_off),
        (
            "an_ejection_longer_than_the_default_limit_lifts_it",
            long_ejection,
        ),
        ("a_file_of_100_mb_is_refused_by_its_size", too_large),
        ("a_megabyte_of_junk_is_answered_soon_and_shortly", junk),
        ("findings_come_in_the_order_of_the_file", order),
        ("a_diff_names_what_changed_with_both_values", diff),
        ("a_diff_says_what_needs_a_restart", restart),
        ("a_diff_does_not_show_a_secret", secret),
        ("findings_for_programs_have_place_and_path", json),
        (
            "every_setting_in_the_comments_of_the_default_file_is_real",
            commented_settings,
        ),
        (
            "the_full_example_and_the_default_file_show_every_key",
            every_key_is_shown,
        ),
    ];
    all.into_iter()
        .map(|(name, test)| Trial::test(name, test).with_kind("meaning"))
        .collect()
}

pub fn config_of(toml: &str) -> Result<Config, Failed> {
    Ok(load(&text(toml))?.config)
}

pub fn backend_of(toml: &str) -> Result<Backend, Failed> {
    let config = config_of(toml)?;
    config
        .backends
        .into_values()
        .next()
        .map(Arc::unwrap_or_clone)
        .ok_or_else(|| "no backend".into())
}

/// Fails with both sides unless they are equal.
#[allow(
    clippy::needless_pass_by_value,
    reason = "expected values are written in place"
)]
pub fn same<T: PartialEq + std::fmt::Debug>(actual: T, expected: T) -> Outcome {
    if actual == expected {
        Ok(())
    } else {
        Err(format!("got {actual:?}\nnot {expected:?}").into())
    }
}

pub fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MAX)
}

pub const SECOND: Duration = Duration::from_secs(1);

fn documented_defaults() -> Outcome {
    let config = config_of(
        "[frontends.f]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\n[backends.b.servers.s]\naddr = \"10.0.0.1:80\"\n",
    )?;
    same(config.global.log_level, LogLevel::Info)?;
    same(config.global.log_format, LogFormat::Text)?;
    same(config.global.watch_config, true)?;
    same(config.global.user, None)?;
    same(config.global.workers, None)?;
    same(config.global.access_log_per_second, number(1_000))?;
    same(config.global.shutdown_timeout, 30 * SECOND)?;
    same(config.admin.socket, Some("/run/convey/admin.sock".into()))?;
    same(config.stats, None)?;
    let frontend = config.frontends.values().next().ok_or("no frontend")?;
    same(frontend.mode, Mode::Proxy)?;
    same(frontend.max_connections, None)?;
    same(frontend.idle_timeout, Some(600 * SECOND))?;
    same((frontend.fin_timeout, frontend.max_lifetime), (None, None))?;
    same(frontend.tcp_user_timeout, None)?;
    let keepalive = Some(KeepAlive {
        idle: 120 * SECOND,
        interval: 20 * SECOND,
        count: number(6),
    });
    same(frontend.client_keepalive, keepalive)?;
    same((frontend.source, frontend.client_socket), Default::default())?;
    same(frontend.access_log, AccessLog::All)?;
    same(frontend.routing.clone(), Routing::default())?;
    same(
        (frontend.proxy_protocol.clone(), frontend.tls.clone()),
        (None, None),
    )?;
    let backend = config.backends.values().next().ok_or("no backend")?;
    same(backend.balance, Algorithm::RoundRobin)?;
    same(backend.connect_timeout, 5 * SECOND)?;
    same(backend.queue_timeout, 5 * SECOND)?;
    same((backend.retries, backend.max_queue), (2, 1_024))?;
    same(backend.server_keepalive, keepalive)?;
    same((backend.source_addr, backend.server_socket), Default::default())?;
    same(backend.on_down, OnDown::Keep)?;
    same(backend.slow_start, Duration::ZERO)?;
    same((backend.fallback.clone(), backend.send_proxy), (None, None))?;
    same(backend.tls.clone(), None)?;
    let check = HealthCheck {
        check: Check::Tcp,
        port: None,
        source_addr: None,
        tls: None,
        interval: 2 * SECOND,
        timeout: SECOND,
        rise: number(2),
        fall: number(3),
        fast_interval: SECOND,
        send_proxy: false,
        share: false,
        initial: InitialState::Check,
    };
    same(backend.health_check.clone(), Some(check))?;
    let passive = backend.passive_check.as_ref().ok_or("no passive check")?;
    same(passive.max_failures, number(3))?;
    same(passive.ejection_time, 10 * SECOND)?;
    same(passive.max_ejection_time, 300 * SECOND)?;
    let server = backend.servers.values().next().ok_or("no server")?;
    same(
        (server.weight, server.priority, server.max_connections),
        (1, 1, None),
    )
}

fn as_in_0_3_5(interval: Duration) -> HealthCheck {
    HealthCheck {
        check: Check::Tcp,
        port: None,
        source_addr: None,
        tls: None,
        interval,
        timeout: 3 * SECOND,
        rise: number(1),
        fall: number(1),
        fast_interval: interval,
        send_proxy: false,
        share: false,
        initial: InitialState::Up,
    }
}

fn dialect_checks() -> Outcome {
    let config = load(&source(&top().join("configs/convey-0.3.5-pools.toml"))?)?.config;
    let check = |name: &str| {
        config
            .backends
            .get(name)
            .and_then(|backend| backend.health_check.clone())
    };
    same(check("web"), Some(as_in_0_3_5(10 * SECOND)))?;
    same(check("api"), Some(as_in_0_3_5(5 * SECOND)))?;
    same(
        config.stats.map(|stats| stats.listen.to_string()),
        Some("127.0.0.1:7000".into()),
    )?;
    let packet = config.packet;
    same(packet.connection_tracker_capacity, Some(1_000))?;
    same(packet.workers, Some(number(4)))?;
    same(packet.stats_update_frequency, Some(5 * SECOND))
}

fn weights() -> Outcome {
    let config = load(&source(&top().join("configs/convey-0.3.5-pools.toml"))?)?.config;
    let weight = |backend: &str, server: &str| {
        config
            .backends
            .get(backend)?
            .servers
            .get(server)
            .map(|server| server.weight)
    };
    same(weight("web", "web1"), Some(3))?;
    same(weight("web", "web2"), Some(0))?;
    same(weight("api", "api1"), Some(1))
}

fn defaults() -> Outcome {
    let config = config_of(
        "[defaults]\nidle_timeout = \"1h\"\naccess_log = false\nretries = 7\n[defaults.health_check]\ninterval = \"9s\"\nrise = 5\n\
         [frontends.a]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\naccess_log = true\n\
         [backends.b]\nretries = 1\n[backends.b.health_check]\nrise = 6\n[backends.b.servers.s]\naddr = \"10.0.0.1:80\"\n",
    )?;
    let frontend = config.frontends.get("a").ok_or("no frontend")?;
    same(
        (frontend.idle_timeout, frontend.access_log),
        (Some(3_600 * SECOND), AccessLog::All),
    )?;
    let backend = config.backends.get("b").ok_or("no backend")?;
    same(backend.retries, 1)?;
    let check = backend.health_check.as_ref().ok_or("no check")?;
    same((check.interval, check.rise), (9 * SECOND, number(6)))
}

fn nearer_dialect() -> Outcome {
    let short =
        "[backends.b]\nhealth_check_interval = 4\n[defaults.health_check]\nrise = 9\ninterval = \"1s\"\n";
    same(backend_of(short)?.health_check, Some(as_in_0_3_5(4 * SECOND)))?;
    let long = "[defaults]\nhealth_check_interval = 4\n[backends.b.health_check]\nrise = 9\n";
    let check = backend_of(long)?.health_check.ok_or("no check")?;
    same(
        (check.interval, check.rise, check.initial),
        (2 * SECOND, number(9), InitialState::Check),
    )?;
    let inherited = "[defaults]\nhealth_check_interval = 4\n[backends.b]\n";
    same(backend_of(inherited)?.health_check, Some(as_in_0_3_5(4 * SECOND)))
}

fn durations() -> Outcome {
    let config = config_of(
        "[global]\nshutdown_timeout = \"1h30m\"\n[frontends.f]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\n\
         idle_timeout = 0\nfin_timeout = \"0s\"\ntcp_user_timeout = 90\n[backends.b]\nconnect_timeout = \"250ms\"\n",
    )?;
    same(config.global.shutdown_timeout, 5_400 * SECOND)?;
    let frontend = config.frontends.get("f").ok_or("no frontend")?;
    same((frontend.idle_timeout, frontend.fin_timeout), (None, None))?;
    same(frontend.tcp_user_timeout, Some(90 * SECOND))?;
    same(
        config.backends.get("b").map(|backend| backend.connect_timeout),
        Some(Duration::from_millis(250)),
    )
}

fn checks_off() -> Outcome {
    let backend =
        backend_of("[backends.b]\nhealth_check = { enabled = false }\npassive_check.enabled = false\n")?;
    same((backend.health_check, backend.passive_check), (None, None))?;
    let again =
        backend_of("[defaults]\nhealth_check.enabled = false\n[backends.b]\nhealth_check.enabled = true\n")?;
    same(again.health_check.is_some(), true)
}

fn long_ejection() -> Outcome {
    let backend = backend_of("[backends.b]\npassive_check.ejection_time = \"1h\"\n")?;
    same(
        backend.passive_check.map(|check| check.max_ejection_time),
        Some(3_600 * SECOND),
    )
}

fn too_large() -> Outcome {
    let mut large = text("");
    large.bytes = vec![b'#'; 100_000_000];
    let found = config::load(&large, Options::default()).err().ok_or("it loads")?;
    same(
        config::render(&found, &large, false),
        "error: the file is 100000000 bytes; the limit is 4194304\n --> convey.toml\n  \
         = help: is this really a configuration of Convey?\n"
            .to_owned(),
    )
}

fn junk() -> Outcome {
    let lines = [
        "=\n",
        "a\n",
        "[",
        "\"\n",
        "a = [\n",
        "{",
        "[a]\n",
        "a = 1\n",
        "[[a]]\n",
        "a.b=1\n",
        "'''",
        "\u{feff}",
        "é = é\n",
    ];
    for (line, size) in lines
        .into_iter()
        .flat_map(|line| [(line, 50_000), (line, 300_000)])
    {
        let junk = text(&line.repeat(size / line.len()));
        let found = config::load(&junk, Options::default()).err().ok_or("it loads")?;
        let shown = config::render(&found, &junk, true);
        if found.is_empty() || found.len() > 101 || shown.len() > 200_000 {
            return Err(format!("{} findings, {} bytes for {line:?}", found.len(), shown.len()).into());
        }
    }
    Ok(())
}

fn order() -> Outcome {
    for path in super::files("tests/config/bad")? {
        let found = config::load(&source(&path)?, Options::default())
            .err()
            .ok_or("it loads")?;
        let places: Vec<_> = found
            .iter()
            .map(|d| (d.line, d.column))
            .filter(|(line, _)| *line > 0)
            .collect();
        if !places.is_sorted() {
            return Err(format!("{}: {places:?}", path.display()).into());
        }
    }
    Ok(())
}

const BEFORE: &str = "[global]\nworkers = 2\n[stats]\nport = 7000\n[frontends.web]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"app\"\n\
     max_connections = 10\n[frontends.old]\nlisten_addr = \"0.0.0.0:81\"\nbackend = \"app\"\n[backends.app.health_check]\nfall = 3\n\
     [backends.app.servers]\na = { addr = \"10.0.0.1:80\" }\nb = { addr = \"10.0.0.2:80\" }\n";
const AFTER: &str = "[global]\nworkers = \"auto\"\nlog_level = \"debug\"\n[admin]\nsocket = \"\"\n[frontends.web]\n\
     listen_addr = [\"0.0.0.0:80\", \"[::]:80\"]\nbackend = \"app\"\n[frontends.new]\nlisten_addr = \"0.0.0.0:82\"\nbackend = \"app\"\n\
     [backends.app]\npassive_check.enabled = false\n[backends.app.health_check]\nfall = 5\n\
     [backends.app.servers]\na = { addr = \"10.0.0.1:80\", weight = 3 }\nc = { addr = \"10.0.0.3:80\" }\n";

fn diff() -> Outcome {
    let diff = config::diff(&config_of(BEFORE)?, &config_of(AFTER)?);
    same(
        diff.changes.join("\n"),
        "global: log_level info -> debug\n\
         global: workers 2 -> auto\n\
         admin: socket /run/convey/admin.sock -> \"\"\n\
         stats: removed\n\
         frontend new: added\n\
         frontend old: removed\n\
         frontend web: listen_addr 0.0.0.0:80 -> [\"0.0.0.0:80\", \"[::]:80\"]\n\
         frontend web: max_connections 10 -> no limit\n\
         backend app: health_check.fall 3 -> 5\n\
         backend app: passive_check.enabled true -> false\n\
         backend app: server a: weight 1 -> 3\n\
         backend app: server b: removed\n\
         backend app: server c: added"
            .to_owned(),
    )?;
    same(
        config::diff(&config_of(AFTER)?, &config_of(AFTER)?),
        config::Diff::default(),
    )
}

fn restart() -> Outcome {
    let restart = |old: &str, new: &str| {
        Ok::<_, Failed>(config::diff(&config_of(old)?, &config_of(new)?).needs_restart)
    };
    same(
        restart(BEFORE, AFTER)?,
        vec!["global.workers".to_owned(), "admin.socket".to_owned()],
    )?;
    same(
        restart("[global]\n", "[global]\nuser = \"www\"\n")?,
        vec!["global.user".to_owned()],
    )?;
    same(
        restart("[global]\n", "[global]\nstate_dir = \"/srv/convey\"\n")?,
        vec!["global.state_dir".to_owned()],
    )?;
    same(
        restart("[global]\n", "[global]\nlog_level = \"warn\"\n")?,
        Vec::new(),
    )
}

fn secret() -> Outcome {
    let seed = |seed: &str| config_of(&format!("[global]\nhash_seed = \"{seed}\"\n"));
    let (none, one, other) = (config_of("[global]\n")?, seed("hunter2")?, seed("swordfish")?);
    let effect = "the next connection or flow of a client may use another server; existing ones keep theirs";
    for (old, new, change) in [
        (&none, &one, "the published hash -> a secret one"),
        (&one, &other, "changed"),
        (&other, &none, "a secret one -> the published hash"),
    ] {
        let found = config::diff(old, new);
        same(
            found.changes,
            vec![format!("global: hash_seed {change}: {effect}")],
        )?;
        same(found.needs_restart, Vec::new())?;
    }
    same(format!("{one:?}").contains("hunter2"), false)?;
    same(config::print(&one).contains("hash_seed = \"hunter2\""), true)
}

fn json() -> Outcome {
    let source = text("[frontends.\"a b\"]\nlisten_addr = \"x\"\nbackend = \"b\"\n[backends.b]\n");
    let found = config::load(&source, Options::default())
        .err()
        .ok_or("it loads")?;
    same(
        found.iter().map(|d| d.severity).collect::<Vec<_>>(),
        vec![Severity::Error],
    )?;
    same(
        serde_json::to_value(&found)?,
        serde_json::json!([{
            "severity": "error",
            "file": "convey.toml",
            "line": 2,
            "column": 15,
            "path": "frontends.\"a b\".listen_addr",
            "message": "`x` has no port",
            "help": "write IP:port, such as \"0.0.0.0:80\" or \"[::]:80\"",
        }]),
    )
}

fn commented_settings() -> Outcome {
    let all = load(&text(&uncommented()?))?;
    let web = all.config.backends.get("web").ok_or("no backend")?;
    // What the comments call defaults are the defaults.
    let plain = backend_of(
        "[backends.web.sticky]\n[backends.web.servers.web1]\naddr = \"10.0.0.11:8080\"\nmax_connections = 500\n\
         [backends.web.discovery]\nkind = \"file\"\npath = \"/etc/convey/web.servers\"\nservers_within = \"10.0.0.0/24\"\n",
    )?;
    let mut server_socket = ServerSocketOptions::default();
    (server_socket.common.mark, server_socket.common.dscp) = (Some(number(7)), Dscp::named("af21"));
    let mut expected = Backend {
        source_addr: Some("10.0.0.2".parse()?),
        server_socket,
        fallback: Some(BackendName::new("sorry")?),
        send_proxy: Some(SendProxy::V2(SentTlvs {
            authority: true,
            crc32c: true,
            ..SentTlvs::default()
        })),
        tls: Some(BackendTls {
            trust: ServerTrust::Ca("/etc/convey/certificates/ca.pem".into()),
            server_name: ServerNameFrom::Address,
            identity: Some(CertificateFiles {
                cert: "/etc/convey/certificates/convey.pem".into(),
                key: Some("/etc/convey/certificates/convey.key".into()),
                ocsp: None,
            }),
            alpn: ServerAlpn::Client,
        }),
        ..plain
    };
    for server in expected.servers.values_mut() {
        server.sni = vec!["www.example.com".parse()?];
    }
    same(&**web, &expected)?;
    let shipped = load(&source(&top().join("configs/convey.toml"))?)?;
    same(all.config.global.user.as_deref(), Some("convey"))?;
    let global = config::Global {
        user: None,
        state_dir: None,
        ticket_keys_file: None,
        hash_seed: None,
        ..all.config.global
    };
    same(global, shipped.config.global)?;
    let api = all.config.admin.api.ok_or("no listen_addr in [admin]")?;
    same(
        &api,
        &AdminApi {
            listen: "127.0.0.1:7001".parse()?,
            tls: api.tls.clone(),
            entry: AdminEntry::Tokens("/etc/convey/tokens".into()),
            allowed_hosts: vec!["lb1.example.com".parse()?],
            allowed_origins: vec!["https://dashboard.example.com".parse()?],
        },
    )?;
    same(all.config.admin.allow_config_writes, false)?;
    same(shipped.config.admin.api, None)?;
    same(shipped.config.admin.allow_config_writes, false)?;
    same(web.name.clone(), BackendName::new("web")?)?;
    same(web.servers.contains_key(&ServerName::new("web1")?), true)
}

//! A small dialect of configuration, so that these tests depend on nothing but the broker.

use std::{collections::BTreeMap, time::Duration};

use convey::{
    base::{BackendName, FrontendName, ListenAddr},
    config::{
        Admin, Config, Diagnostic, Frontend, Global, Loaded, LogFormat, LogLevel, Mode, Options, Severity,
        Source,
    },
};

/// User and group id of `nobody` and `nogroup` on Debian.
pub const NOBODY: u32 = 65_534;
/// A port that only CAP_NET_BIND_SERVICE binds.
pub const LOW_PORT: u16 = 81;

/// The bytes of a configuration.
pub fn source(text: &str) -> Source {
    Source {
        name: "test.conf".into(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// Each line is `NAME ADDRESS`: a frontend and what it listens on.
pub fn parse(source: &Source, _: Options) -> Result<Loaded, Vec<Diagnostic>> {
    let text = String::from_utf8_lossy(&source.bytes);
    let frontends = text.lines().map(frontend).collect::<Option<BTreeMap<_, _>>>();
    let frontends = frontends.ok_or_else(|| vec![diagnostic(&source.name)])?;
    let global = Global {
        log_level: LogLevel::Info,
        log_format: LogFormat::Text,
        watch_config: false,
        user: None,
        workers: None,
        shutdown_timeout: Duration::from_secs(1),
    };
    let config = Config {
        global,
        admin: Admin { socket: None },
        stats: None,
        passthrough: None,
        frontends,
        backends: BTreeMap::new(),
    };
    Ok(Loaded {
        config,
        warnings: Vec::new(),
    })
}

fn frontend(line: &str) -> Option<(FrontendName, Frontend)> {
    let (name, addr) = line.split_once(' ')?;
    let name = FrontendName::new(name).ok()?;
    let frontend = Frontend {
        name: name.clone(),
        listen: vec![ListenAddr(addr.parse().ok()?)],
        mode: Mode::Proxy,
        backend: BackendName::new("pool").ok()?,
        max_connections: None,
        idle_timeout: None,
        fin_timeout: None,
        tcp_user_timeout: Some(Duration::from_secs(7)),
        access_log: true,
    };
    Some((name, frontend))
}

fn diagnostic(file: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: file.into(),
        line: 0,
        column: 0,
        span: 0..0,
        path: String::new(),
        message: "not `NAME ADDRESS`".into(),
        help: None,
    }
}

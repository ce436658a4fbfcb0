//! Settings of checks.

use super::{Setting, Settings, set, some, string, text, time};
use crate::config::{
    checks::{AgentCheck, Check, ExecCheck, Expected, HttpCheck, Probe, ProbeBytes, TlsCheck, to_hex},
    model::{HealthCheck, PassiveCheck},
};

/// `[backends.NAME.health_check]`.
pub fn health_check(check: Option<&HealthCheck>) -> Settings {
    let Some(HealthCheck {
        check,
        port,
        source_addr,
        // a section of its own
        tls: _,
        interval,
        timeout,
        rise,
        fall,
        fast_interval,
        send_proxy,
        share,
        initial,
    }) = check
    else {
        return vec![("enabled", set(false))];
    };
    let mut settings = vec![("enabled", set(true)), ("kind", text(check.kind().label()))];
    kind(check, &mut settings);
    settings.extend([
        ("port", port.map_or(Setting::Unset("the server's"), set)),
        (
            "source_addr",
            source_addr.map_or(Setting::Unset("the backend's"), |addr| text(&addr.to_string())),
        ),
        ("interval", time(*interval)),
        ("timeout", time(*timeout)),
        ("rise", set(*rise)),
        ("fall", set(*fall)),
        ("fast_interval", time(*fast_interval)),
        ("send_proxy", set(*send_proxy)),
        ("share", set(*share)),
        ("initial", text(initial.label())),
    ]);
    settings
}

/// `[backends.NAME.agent_check]`.
pub fn agent_check(agent: &AgentCheck) -> Settings {
    let AgentCheck {
        port,
        send,
        interval,
        timeout,
    } = agent;
    vec![
        ("port", set(*port)),
        ("send", send.as_ref().map_or(Setting::Unset("nothing"), bytes)),
        ("interval", time(*interval)),
        ("timeout", time(*timeout)),
    ]
}

/// The keys that belong to a kind.
fn kind(check: &Check, out: &mut Settings) {
    match check {
        Check::Tcp | Check::Redis | Check::Mysql | Check::Smtp | Check::Ntp => {}
        Check::Tls(TlsCheck { min_days_left }) => out.push(("min_days_left", set(*min_days_left))),
        Check::Probe(Probe {
            protocol,
            send,
            expect,
        }) => {
            out.push(("protocol", text(protocol.label())));
            let nothing = || Setting::Unset("nothing");
            out.push(("send", send.as_ref().map_or_else(nothing, bytes)));
            out.push(("expect", expected(expect.as_ref())));
        }
        Check::Http(HttpCheck {
            method,
            path,
            host,
            status,
            expect,
        }) => out.extend([
            ("method", text(method.label())),
            ("path", text(path)),
            (
                "host",
                (host.as_deref()).map_or(Setting::Unset("the server's address"), text),
            ),
            ("status", some(status, "none")),
            ("expect", expected(expect.as_ref())),
        ]),
        Check::Exec(ExecCheck { command, expect }) => out.extend([
            ("command", super::commands::words(&command.line)),
            ("expect", expected(expect.as_ref())),
        ]),
        Check::Postgresql { user } => out.push(("user", text(user))),
        Check::Dns { name } => {
            let name = name.as_deref().map_or(Setting::Unset("none in particular"), text);
            out.push(("name", name));
        }
    }
}

fn expected(expect: Option<&Expected>) -> Setting {
    match expect {
        Some(Expected::Begins(begin)) => bytes(begin),
        Some(Expected::Matches(regex)) => {
            Setting::Value(format!("{{ regex = {} }}", string(regex.pattern())))
        }
        None => Setting::Unset("nothing"),
    }
}

fn bytes(bytes: &ProbeBytes) -> Setting {
    match bytes {
        ProbeBytes::Text(as_text) => text(as_text),
        ProbeBytes::Hex(bytes) => Setting::Value(format!("{{ hex = {} }}", string(&to_hex(bytes)))),
    }
}

/// `[backends.NAME.passive_check]`.
pub fn passive_check(check: Option<&PassiveCheck>) -> Settings {
    let Some(PassiveCheck {
        max_failures,
        ejection_time,
        max_ejection_time,
    }) = check
    else {
        return vec![("enabled", set(false))];
    };
    vec![
        ("enabled", set(true)),
        ("max_failures", set(*max_failures)),
        ("ejection_time", time(*ejection_time)),
        ("max_ejection_time", time(*max_ejection_time)),
    ]
}

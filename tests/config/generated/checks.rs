//! Any check.

use std::num::NonZeroU16;

use convey::{
    base::Protocol,
    config::{
        AgentCheck, BackendTls, Check, ExecCheck, Expected, HealthCheck, HttpCheck, HttpMethod, InitialState,
        PassiveCheck, Probe, ProbeBytes, ProbeRegex, StatusRange, TlsCheck,
    },
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    configs::{DAY, count, millis},
    process::command,
    tls::backend_tls,
};

fn probe_bytes() -> impl Strategy<Value = ProbeBytes> {
    prop_oneof![
        ".{1,20}".prop_map(ProbeBytes::Text),
        vec(any::<u8>(), 1..20).prop_map(ProbeBytes::Hex),
    ]
}

fn probe() -> impl Strategy<Value = Probe> {
    let regex = prop::sample::select(vec!["^220 ", "\\d+ \"OK\"", "[\\x00-\\x1f]é"]);
    let expect = prop_oneof![
        probe_bytes().prop_map(Expected::Begins),
        regex.prop_filter_map("a pattern", |pattern| {
            Some(Expected::Matches(ProbeRegex::new(pattern).ok()?))
        }),
    ];
    (any::<bool>(), option::of(probe_bytes()), option::of(expect)).prop_filter_map(
        "something to do",
        |(is_udp, send, expect)| {
            let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
            let is_complete = send.is_some() || (!is_udp && expect.is_some());
            is_complete.then_some(Probe {
                protocol,
                send,
                expect,
            })
        },
    )
}

fn http() -> impl Strategy<Value = HttpCheck> {
    let method = prop::sample::select(vec![HttpMethod::Get, HttpMethod::Head, HttpMethod::Options]);
    let status = vec((100..=599_u16, 100..=599_u16), 1..4).prop_map(|ends| {
        (ends.into_iter())
            .filter_map(|(one, other)| StatusRange::new(one.min(other), one.max(other)))
            .collect()
    });
    let host = option::of("[a-z0-9.:-]{1,20}");
    (
        method,
        "/[a-z0-9?&%=]{0,20}",
        host,
        status,
        option::of(probe_bytes()),
    )
        .prop_map(|(method, path, host, status, expect)| HttpCheck {
            method,
            path: path.into(),
            host: host.map(Into::into),
            status,
            expect: expect
                .filter(|_| method != HttpMethod::Head)
                .map(Expected::Begins),
        })
}

fn exec() -> impl Strategy<Value = ExecCheck> {
    (command(), option::of(probe_bytes())).prop_map(|(command, expect)| ExecCheck {
        command,
        expect: expect.map(Expected::Begins),
    })
}

/// A command has the check's time-out, and goes without a header. What says nothing over TLS has none, and what is nothing but
/// TLS has some.
fn settled((mut check, tls): (HealthCheck, Option<BackendTls>)) -> Option<HealthCheck> {
    check.tls = tls.filter(|_| check.check.may_be_over_tls());
    if matches!(check.check, Check::Tls(_)) && check.tls.is_none() {
        return None;
    }
    if let Check::Exec(exec) = &mut check.check {
        exec.command.timeout = check.timeout;
        check.send_proxy = false;
    }
    Some(check)
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        Just(Check::Tcp),
        (0..=3_650_u32).prop_map(|min_days_left| Check::Tls(TlsCheck { min_days_left })),
        http().prop_map(Check::Http).boxed(),
        exec().prop_map(Check::Exec).boxed(),
        probe().prop_map(Check::Probe).boxed(),
        Just(Check::Redis),
        "[a-z\"é]{1,30}".prop_map(|user| Check::Postgresql { user }),
        Just(Check::Mysql),
        Just(Check::Smtp),
        option::of("[a-z]{1,63}([.][a-z0-9_-]{1,9}){0,3}").prop_map(|name| Check::Dns { name }),
        Just(Check::Ntp),
    ]
}

/// Any active check. Which header it begins with is the backend's, and none of version 1 goes by UDP.
pub fn health_check() -> impl Strategy<Value = HealthCheck> {
    let initial = prop::sample::select(vec![InitialState::Up, InitialState::Down, InitialState::Check]);
    (
        (
            check().boxed(),
            any::<u16>(),
            any::<bool>(),
            backend_tls().boxed(),
        ),
        millis(1, DAY),
        millis(1, DAY / 24),
        count(1_000),
        count(1_000),
        millis(1, DAY),
        any::<bool>(),
        initial,
    )
        .prop_map(
            |(
                (check, port, share, tls),
                interval,
                timeout,
                rise,
                fall,
                fast_interval,
                send_proxy,
                initial,
            )| {
                let check = HealthCheck {
                    send_proxy: send_proxy && check.protocol() == Protocol::Tcp,
                    check,
                    port: NonZeroU16::new(port),
                    source_addr: None,
                    tls: None,
                    share,
                    interval,
                    timeout,
                    rise,
                    fall,
                    fast_interval,
                    initial,
                };
                (check, tls)
            },
        )
        .prop_filter_map("a check that can be written", settled)
}

/// Any agents.
pub fn agent_check() -> impl Strategy<Value = Option<AgentCheck>> {
    let agent = (
        count(65_535),
        option::of(probe_bytes()),
        millis(1, DAY),
        millis(1, DAY / 24),
    );
    option::of(
        agent.prop_filter_map("a port", |(port, send, interval, timeout)| {
            Some(AgentCheck {
                port: u16::try_from(port.get()).ok().and_then(NonZeroU16::new)?,
                send,
                interval,
                timeout,
            })
        }),
    )
}

/// Any passive check.
pub fn passive_check() -> impl Strategy<Value = PassiveCheck> {
    (count(1_000), millis(1, DAY), millis(1, DAY)).prop_map(|(max_failures, one, other)| PassiveCheck {
        max_failures,
        ejection_time: one.min(other),
        max_ejection_time: one.max(other),
    })
}

//! Any setting of what is done about peers, and of what is logged of them.

use std::{path::PathBuf, time::Duration};

use convey::{
    base::{Dscp, KeepAlive, ServerSocketOptions, SocketOptions, Zone},
    config::{AccessLog, ConnectionLog, Facility, SyslogServer},
};
use proptest::{option, prelude::*};

use crate::meaning::number;

/// What no key says.
pub fn default_keepalive() -> KeepAlive {
    KeepAlive {
        idle: Duration::from_secs(120),
        interval: Duration::from_secs(20),
        count: number(6),
    }
}

/// TCP keep-alive, or none.
pub fn keepalive() -> impl Strategy<Value = Option<KeepAlive>> {
    let seconds = || (1..=9 * 3_600_u64).prop_map(Duration::from_secs);
    let some = (seconds(), seconds(), 1..=127_u32).prop_map(|(idle, interval, count)| KeepAlive {
        idle,
        interval,
        count: number(count),
    });
    option::of(some)
}

/// Options of sockets, or none.
pub fn socket() -> impl Strategy<Value = SocketOptions> {
    let buffer = || option::of((4_096..1_u32 << 30).prop_map(number));
    let mark = option::of((1..=u32::MAX).prop_map(number));
    let dscp = (0..=Dscp::MAX).prop_map(|dscp| Dscp::new(dscp).filter(|dscp| *dscp != Dscp::BEST_EFFORT));
    (mark, dscp, buffer(), buffer()).prop_map(|(mark, dscp, receive_buffer, send_buffer)| SocketOptions {
        mark,
        dscp,
        receive_buffer,
        send_buffer,
    })
}

/// Those towards servers.
pub fn server_socket() -> impl Strategy<Value = ServerSocketOptions> {
    (socket(), option::of("[a-z]{1,9}[0-9]{0,3}")).prop_map(|(common, interface)| ServerSocketOptions {
        common,
        interface: interface.and_then(|name| Zone::new(&name)),
    })
}

/// Which connections are logged, and where: nothing without effect.
pub fn logs() -> BoxedStrategy<(AccessLog, ConnectionLog)> {
    let file = option::of("/[a-z]{1,8}/[a-z]{1,8}[.]log").prop_map(|path| path.map(PathBuf::from));
    let syslog = prop::sample::select(vec![
        "udp://192.0.2.9:514",
        "tcp://logs.example.com:601",
        "tcp://[2001:db8::9]:514",
        "unix:/dev/log",
    ]);
    let syslog = option::of(syslog.prop_map(|text| text.parse::<SyslogServer>().expect("a server")));
    let facility = prop::sample::select(vec![Facility::Daemon, Facility::User, Facility::Local7]);
    let all = (access_log(), 1..=u32::MAX, access_log(), file, syslog, facility);
    all.prop_map(|(which, sample, journal, file, syslog, facility)| {
        let default = ConnectionLog::default();
        let log = match which {
            AccessLog::Off => default,
            _ => ConnectionLog {
                sample: match which {
                    AccessLog::Errors => default.sample,
                    _ => number(sample),
                },
                journal,
                // lines of one file have one form
                format: default.format,
                facility: syslog.as_ref().map_or(default.facility, |_| facility),
                file,
                syslog,
            },
        };
        (which, log)
    })
    .boxed()
}

/// Which connections are logged.
fn access_log() -> impl Strategy<Value = AccessLog> {
    prop_oneof![
        Just(AccessLog::All),
        Just(AccessLog::Errors),
        Just(AccessLog::Off)
    ]
}

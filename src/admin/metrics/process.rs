//! The process, its configuration and its log.

use super::family::{Family, Scope::Process, Value};
use crate::sys::rlimit;

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::info(Process, "convey_build", "The version of Convey", |_, put| {
        put(&[("version", env!("CARGO_PKG_VERSION"))], Value::Info);
    }),
    Family::gauge(
        Process,
        "process_start_time",
        "When the process started, in seconds since 1970",
        |scrape, put| put(&[], Value::Number(scrape.begun())),
    )
    .in_unit("seconds"),
    Family::counter(
        Process,
        "process_cpu",
        "CPU time of all threads of the daemon",
        |scrape, put| {
            if let Some(usage) = &scrape.usage {
                put(&[], Value::Number(usage.cpu.as_secs_f64()));
            }
        },
    )
    .in_unit("seconds"),
    Family::counter(
        Process,
        "convey_thread_cpu",
        "CPU time of the daemon's threads by their names",
        |scrape, put| {
            for (thread, cpu) in scrape.usage.iter().flat_map(|usage| &usage.threads) {
                put(&[("thread", thread)], Value::Number(cpu.as_secs_f64()));
            }
        },
    )
    .in_unit("seconds"),
    Family::gauge(
        Process,
        "process_resident_memory",
        "Memory in RAM",
        |scrape, put| {
            if let Some(usage) = &scrape.usage {
                put(&[], usage.resident.into());
            }
        },
    )
    .in_unit("bytes"),
    Family::gauge(
        Process,
        "process_virtual_memory",
        "Address space",
        |scrape, put| {
            if let Some(usage) = &scrape.usage {
                put(&[], usage.virtual_memory.into());
            }
        },
    )
    .in_unit("bytes"),
    Family::gauge(
        Process,
        "process_threads",
        "Threads of the daemon",
        |scrape, put| {
            if let Some(usage) = &scrape.usage {
                put(&[], usage.thread_count.into());
            }
        },
    ),
    Family::gauge(Process, "process_open_fds", "Open descriptors", |scrape, put| {
        if let Some(usage) = &scrape.usage {
            put(&[], usage.descriptors.into());
        }
    }),
    Family::gauge(
        Process,
        "process_max_fds",
        "Limit of open descriptors",
        |_, put| {
            if let Ok(limit) = rlimit::most_open_files() {
                put(&[], limit.into());
            }
        },
    ),
    Family::gauge(
        Process,
        "convey_config_generation",
        "Successful loads of the configuration, that at the start included",
        |scrape, put| put(&[], scrape.status.config_generation.into()),
    ),
    Family::gauge(
        Process,
        "convey_config_last_reload_successful",
        "Whether the last reload has succeeded",
        |scrape, put| put(&[], scrape.status.last_reload_error.is_none().into()),
    ),
    Family::gauge(
        Process,
        "convey_config_last_reload_success_timestamp",
        "When the configuration in effect was loaded, in seconds since 1970",
        |scrape, put| put(&[], Value::Number(scrape.timestamp(scrape.status.config.loaded))),
    )
    .in_unit("seconds"),
    Family::gauge(
        Process,
        "convey_config_needs_restart",
        "Changed settings that need a restart to take effect",
        |scrape, put| put(&[], scrape.status.needs_restart.len().into()),
    ),
    Family::gauge(
        Process,
        "convey_phase",
        "What the daemon is doing: the series of that phase is there, with the value 1",
        |scrape, put| put(&[("phase", scrape.status.phase.label())], true.into()),
    ),
    Family::gauge(
        Process,
        "convey_workers",
        "Worker threads of the proxy",
        |scrape, put| put(&[], scrape.status.workers.into()),
    ),
    Family::gauge(
        Process,
        "convey_proxy_current_connections",
        "Connections of all proxy frontends that are open",
        |scrape, put| put(&[], scrape.live.proxied_connections().open.into()),
    ),
    Family::gauge(
        Process,
        "convey_proxy_max_connections",
        "As many as may be open, by the limit of descriptors",
        |scrape, put| put(&[], scrape.live.proxied_connections().most.into()),
    ),
    Family::counter(
        Process,
        "convey_proxy_accept_pauses",
        "How often accepting paused because as many were open as may be",
        |scrape, put| put(&[], scrape.live.proxied_connections().accept_pauses.into()),
    ),
    Family::counter(
        Process,
        "convey_log_dropped_events",
        "Log and connection log events dropped",
        |scrape, put| put(&[], scrape.live.log_events_dropped().into()),
    ),
    Family::counter(
        Process,
        "convey_connection_log_dropped_lines",
        "Lines of the connection log that could neither be written to a file or syslog server nor wait",
        |scrape, put| {
            for output in scrape.live.log_outputs() {
                put(&[("output", &output.output)], output.dropped.into());
            }
        },
    ),
    Family::gauge(
        Process,
        "convey_connection_log_up",
        "Whether the file or syslog server takes lines of the connection log",
        |scrape, put| {
            for output in scrape.live.log_outputs() {
                put(&[("output", &output.output)], output.error.is_none().into());
            }
        },
    ),
    Family::counter(
        Process,
        "convey_events",
        "Events of the log by name and level",
        |scrape, put| {
            for (level, name, count) in scrape.live.events().counts() {
                put(&[("event", &name), ("level", level.label())], count.into());
            }
        },
    ),
    Family::counter(
        Process,
        "convey_admin_refused_connections",
        "Connections to Convey's own endpoints refused because too many were open",
        |scrape, put| put(&[], scrape.connections_refused.into()),
    ),
    Family::counter(
        Process,
        "convey_admin_failed_logins",
        "Logins at the admin API on TCP with a wrong token",
        |scrape, put| put(&[], scrape.logins_failed.into()),
    ),
];

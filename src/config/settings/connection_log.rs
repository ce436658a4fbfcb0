//! `[frontends.NAME.connection_log]`.

use super::{Setting, Settings, path, set, text};
use crate::config::{connection_log::ConnectionLog, model::AccessLog};

/// `[frontends.NAME.connection_log]`.
pub fn connection_log(log: &ConnectionLog) -> Settings {
    let ConnectionLog {
        sample,
        journal,
        file,
        syslog,
        format,
        facility,
    } = log;
    let syslog = (syslog.as_ref()).map_or(Setting::Unset("to no syslog server"), |syslog| {
        text(&syslog.to_string())
    });
    vec![
        ("sample", text(&format!("1/{sample}"))),
        ("journal", which(*journal)),
        ("file", file.as_deref().map_or(Setting::Unset("to no file"), path)),
        ("syslog", syslog),
        ("format", text(format.label())),
        ("facility", text(facility.label())),
    ]
}

/// Which connections are logged.
pub fn which(log: AccessLog) -> Setting {
    match log {
        AccessLog::All => set(true),
        AccessLog::Errors => text("errors"),
        AccessLog::Off => set(false),
    }
}

//! Where the lines about connections of all frontends go.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    connection_log::{AccessLog, ConnectionLog, SyslogServer},
    discovery_source::{HOSTS, RESOLV_CONF},
    model::{Config, Frontend, Mode},
    otlp::Otlp,
};
use crate::base::{Host, SocketPath};

impl Frontend {
    /// Whether it has lines about connections at all.
    #[must_use]
    pub fn logs_connections(&self) -> bool {
        self.mode == Mode::Proxy && self.access_log != AccessLog::Off
    }
}

impl Config {
    /// The settings of each frontend that has lines about connections.
    fn connection_logs(&self) -> impl Iterator<Item = &ConnectionLog> {
        let frontends = self.frontends.values();
        frontends
            .filter(|frontend| frontend.logs_connections())
            .map(|frontend| &frontend.connection_log)
    }

    /// The files that lines about connections are appended to.
    #[must_use]
    pub fn log_files(&self) -> BTreeSet<PathBuf> {
        self.connection_logs()
            .filter_map(|log| log.file.clone())
            .collect()
    }

    /// The unix sockets that they are sent to.
    #[must_use]
    pub fn log_sockets(&self) -> BTreeSet<SocketPath> {
        let servers = self.connection_logs().filter_map(|log| log.syslog.as_ref());
        servers
            .filter_map(|server| match server {
                SyslogServer::Unix(path) => Some(*path),
                SyslogServer::Udp(_) | SyslogServer::Tcp(_) => None,
            })
            .collect()
    }

    /// Every file that sending logs and metrics needs.
    pub(crate) fn telemetry_files(&self) -> impl Iterator<Item = &Path> {
        let of_host = [RESOLV_CONF, HOSTS].map(Path::new);
        let of_syslog = of_host.into_iter().filter(|_| self.logs_to_a_name());
        of_syslog.chain(self.otlp.iter().flat_map(Otlp::files))
    }

    /// Whether a host that they are sent to has to be asked for by its name.
    fn logs_to_a_name(&self) -> bool {
        let mut servers = self.connection_logs().filter_map(|log| log.syslog.as_ref());
        servers.any(|server| match server {
            SyslogServer::Udp(to) | SyslogServer::Tcp(to) => matches!(to.host, Host::Name(_)),
            SyslogServer::Unix(_) => false,
        })
    }
}

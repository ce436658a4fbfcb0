//! What is sent to other programs: actors as tasks on a thread of their own, so that whoever does not answer holds up
//! nobody else.

mod syslog;

use std::{
    future::pending,
    io,
    net::IpAddr,
    sync::{Arc, mpsc::Sender},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc::UnboundedReceiver,
};

use super::sink::{Message, SinkState};
use crate::{
    base::Host,
    client::resolver::Resolver,
    config::{Families, HOSTS, RESOLV_CONF, SyslogServer},
    privilege::{Client, What},
};

/// The thread, and whom actors ask for what only the broker can open.
#[derive(Debug, Clone)]
pub struct Exporter {
    runtime: Handle,
    broker: Client,
}

impl Exporter {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(broker: Client) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("convey-export".into())
            .spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(Self {
            runtime: handle,
            broker,
        })
    }

    /// Starts the actor of a syslog server; `alive` is dropped at its end.
    pub fn syslog(
        &self,
        server: SyslogServer,
        state: Arc<SinkState>,
        inbox: UnboundedReceiver<Message>,
        alive: Sender<()>,
    ) {
        let exporter = self.clone();
        self.runtime.spawn(async move {
            syslog::run(&server, &exporter, &state, inbox).await;
            drop(alive);
        });
    }

    /// The addresses of a host as this one knows them now.
    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![*ip]),
            Host::Name(name) => name,
        };
        let read = async |path: &str| {
            let read = self.broker.read(What::TelemetryFile(path.into())).await;
            // a host without them has a name server of its own, and knows no names by itself
            read.map(|file| file.source.bytes).unwrap_or_default()
        };
        let (resolv_conf, hosts) = (read(RESOLV_CONF).await, read(HOSTS).await);
        let resolver = Resolver::of_host(&resolv_conf, &hosts).map_err(|error| error.to_string())?;
        let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
        found
            .map(|answer| answer.records)
            .map_err(|error| error.to_string())
    }
}

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LAST: Duration = Duration::from_secs(15);

    const fn new() -> Self {
        Self(Self::FIRST)
    }

    /// The time until the next one, which is longer each time.
    fn next(&mut self) -> Duration {
        let longer = (self.0 * 2).min(Self::LAST);
        std::mem::replace(&mut self.0, longer)
    }
}

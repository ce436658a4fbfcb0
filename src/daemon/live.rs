//! What the endpoints read besides the status: the counters and connections of those who move traffic.

use std::{io, sync::Arc};

use arc_swap::ArcSwapOption;

use super::{
    history::History,
    logging::{Losses, OutputState},
};
use crate::{
    admin::{
        EventLog, Live,
        status::{Closing, Listed, Listing, PacketCounts},
        views::{self, ConnectionFilter, ProxiedConnections},
    },
    backend_setup,
    base::{ServerTlsRecord, TerminationReason, TlsRecord},
    config::Mode,
    engine::Engine,
    flow::{self, FiveTuple, FlowInfo},
    proxy::{Filter, Matching, OpenConnection, Select, Workers},
    snapshot::FrontendView,
};

/// Whom the admin thread asks. It holds none of them alive beyond the control loop's end but their counters.
pub struct Sources {
    workers: Arc<Workers>,
    losses: Losses,
    events: Arc<EventLog>,
    engine: Arc<ArcSwapOption<Engine>>,
    history: Arc<History>,
}

impl Sources {
    /// `engine` is where the packet engine is found once it runs.
    #[must_use]
    pub fn new(
        workers: Arc<Workers>,
        (losses, events): (Losses, Arc<EventLog>),
        engine: Arc<ArcSwapOption<Engine>>,
        history: Arc<History>,
    ) -> Self {
        Self {
            workers,
            losses,
            events,
            engine,
            history,
        }
    }
}

impl Live for Sources {
    fn log_events_dropped(&self) -> u64 {
        self.losses.count()
    }

    fn log_outputs(&self) -> Vec<views::LogOutput> {
        let outputs = self.losses.outputs().into_iter();
        let view = |state: OutputState| views::LogOutput {
            output: state.output,
            dropped: state.dropped,
            error: state.trouble,
        };
        outputs.map(view).collect()
    }

    fn otlp(&self) -> Vec<views::OtlpExport> {
        self.losses.otlp().views()
    }

    fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    fn proxied_connections(&self) -> ProxiedConnections {
        let occupancy = self.workers.occupancy();
        ProxiedConnections {
            open: occupancy.open,
            most: occupancy.most,
            accept_pauses: occupancy.pauses,
        }
    }

    fn packet_counts(&self) -> PacketCounts {
        let engine = self.engine.load();
        engine.as_ref().map_or_else(PacketCounts::default, |engine| {
            let report = engine.report();
            PacketCounts {
                usage: report.usage,
                packets: report.packets,
                passed: (report.xdp.iter().flat_map(|xdp| &xdp.passes))
                    .map(|(reason, count)| (reason.label(), *count))
                    .collect(),
            }
        })
    }

    fn explain(&self, tuple: &FiveTuple) -> Option<flow::Explanation> {
        Some(self.engine.load().as_ref()?.explain(tuple))
    }

    fn connections(&self, filter: Arc<ConnectionFilter>, limit: usize) -> Listing {
        let workers = Arc::clone(&self.workers);
        Box::pin(async move {
            let (total, connections) = workers.connections(wanted(filter), limit).await;
            (total, connections.into_iter().map(proxied).collect())
        })
    }

    fn close(&self, filter: Arc<ConnectionFilter>) -> Closing {
        let select = Select::Matching(Matching(wanted(filter)));
        let workers = Arc::clone(&self.workers);
        Box::pin(async move { workers.close(&select, TerminationReason::Killed).await })
    }

    fn revisions(&self) -> Vec<views::Revision> {
        self.history.list()
    }

    fn revision(&self, number: u64) -> Option<io::Result<Vec<u8>>> {
        self.history.text(number)
    }

    fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> Listed<FlowInfo> {
        let Some(engine) = self.engine.load_full() else {
            return (0, Vec::new());
        };
        let (count, flows) = engine.flows(wanted, limit);
        (usize::try_from(count).unwrap_or(usize::MAX), flows)
    }

    fn close_flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool) -> usize {
        let engine = self.engine.load_full();
        let closed = engine.map_or(0, |engine| engine.close_flows(wanted));
        usize::try_from(closed).unwrap_or(usize::MAX)
    }

    fn backend_script(&self, frontend: &FrontendView, server: &str) -> Result<String, String> {
        let backend = &frontend.backend;
        let servers =
            (backend.servers.iter()).filter_map(|server| Some((&server.name, server.addr.on_network()?)));
        backend_setup::script_among(&frontend.config, &backend.config, servers, server)
            .map_err(|error| error.to_string())
    }
}

fn wanted(filter: Arc<ConnectionFilter>) -> Filter {
    Arc::new(move |c| filter.matches(c.client, &c.frontend, c.backend.as_ref(), c.server.as_ref()))
}

fn proxied(c: OpenConnection) -> views::Connection {
    views::Connection {
        client: c.client,
        protocol: c.protocol.into(),
        mode: Mode::Proxy.into(),
        frontend: c.frontend,
        backend: c.backend,
        server: c.server,
        server_addr: c.server_addr,
        server_removed: false,
        frontend_removed: false,
        sni: c.sni.as_deref().map(str::to_owned),
        tls: c.tls.as_deref().map(tls),
        server_tls: c.server_tls.as_deref().map(server_tls),
        local: c.local,
        idle_seconds: c.idle.map(|idle| idle.as_secs_f64()),
        worker: Some(c.worker.0),
        age_seconds: Some(c.accepted_at.elapsed().as_secs_f64()),
        bytes_in: Some(c.bytes_in),
        bytes_out: Some(c.bytes_out),
        flow: None,
    }
}

fn tls(session: &TlsRecord) -> views::Tls {
    views::Tls {
        version: session.version.to_owned(),
        cipher: session.cipher.to_owned(),
        group: session.group.map(str::to_owned),
        alpn: session.alpn.as_deref().map(str::to_owned),
        resumed: session.resumed,
        client_subject: session.client_subject.as_deref().map(str::to_owned),
    }
}

fn server_tls(session: &ServerTlsRecord) -> views::ServerTls {
    views::ServerTls {
        version: session.version.to_owned(),
        cipher: session.cipher.to_owned(),
        group: session.group.map(str::to_owned),
        alpn: session.alpn.as_deref().map(str::to_owned),
        resumed: session.resumed,
    }
}

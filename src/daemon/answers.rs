//! What the control loop answers to those who ask: the state, the connections, where packets go.

use std::{sync::Arc, time::Instant};

use super::{
    control::Control,
    packets::{Packets, VipState},
};
use crate::{
    admin::{
        HttpListener,
        packets::{self, PacketInfo, Wait, Waiting},
        render,
        views::{self, Problem},
    },
    backend_setup,
    base::{BackendName, ServerName},
    config::EngineChoice,
    engine::raw::Engine,
    flow::{FiveTuple, FlowInfo},
    proxy::{OpenConnection, Workers},
    snapshot::Snapshot,
};

/// Most connections that one listing shows.
const MAX_LISTED: usize = 100_000;

/// Connections that a listing shows unless asked for another number.
const LISTED: usize = 1_000;

impl Control {
    /// The whole state.
    pub(super) fn status(&self) -> views::Status {
        let refused = |listener: &HttpListener| listener.refused();
        let occupancy = self.workers.occupancy();
        let info = render::DaemonInfo {
            pid: std::process::id(),
            uptime: self.started.elapsed(),
            phase: match (self.ready, &self.stopping) {
                (_, Some(_)) => "stopping",
                (true, None) => "running",
                (false, None) => "starting",
            },
            config_file: self.config_path.display().to_string(),
            config_generation: self.config_generation,
            last_reload_error: self.last_reload_error.clone(),
            needs_restart: self.needs_restart.clone(),
            workers: self.workers.count(),
            proxied_connections: views::ProxiedConnections {
                open: occupancy.open,
                most: occupancy.most,
                accept_pauses: occupancy.pauses,
            },
            log_events_dropped: self.log.dropped(),
            admin_connections_refused: self.admin.iter().map(|(_, e)| refused(e)).sum::<u64>()
                + self.stats.iter().map(|(_, e)| refused(e)).sum::<u64>(),
            packet: self.packets.engine().map(|engine| self.packet_info(engine)),
        };
        render::status(self.state.snapshot(), info, Instant::now())
    }

    fn packet_info(&self, engine: &Engine) -> PacketInfo {
        let report = engine.report();
        let picture = self.packets.picture();
        PacketInfo {
            engine: EngineChoice::Raw.label(),
            // the engine of the start: another choice needs a restart
            engine_reason: match self.booted.passthrough.engine {
                EngineChoice::Auto => "auto: the only one of this version".to_owned(),
                EngineChoice::Raw | EngineChoice::Xdp => "configured".to_owned(),
            },
            workers: self.packets.workers(),
            interfaces: self.packets.served().keys().cloned().collect(),
            usage: report.usage,
            packets: report.packets,
            hops: Arc::clone(&picture.hops),
            links: (picture.links.iter())
                .map(|(name, link)| (link.ifindex, name.clone()))
                .collect(),
            no_way: (picture.no_way.iter())
                .map(|(ip, why)| (*ip, why.to_string()))
                .collect(),
            waiting: waiting(&self.packets),
        }
    }

    /// Where packets of a 5-tuple would go.
    pub(super) fn explain(&self, tuple: &FiveTuple) -> views::Explanation {
        let found = self.packets.engine().map(|engine| engine.explain(tuple));
        packets::explanation(self.state.snapshot(), tuple, found, &waiting(&self.packets))
    }

    /// What to run on a server of a frontend in mode dsr.
    pub(super) fn backend_script(&self, frontend: &str, server: &str) -> Result<String, Problem> {
        backend_setup::script(self.state.config(), self.state.pools(), frontend, server).map_err(|error| {
            Problem {
                status: 404,
                message: error.to_string(),
            }
        })
    }
}

fn waiting(packets: &Packets) -> Waiting {
    let vips = packets.vips().states().iter();
    vips.filter_map(|(endpoint, vip)| match &vip.state {
        VipState::Live => None,
        VipState::Waiting { why, is_elsewhere } => {
            let wait = Wait {
                why: why.clone(),
                is_elsewhere: *is_elsewhere,
            };
            Some((*endpoint, wait))
        }
    })
    .collect()
}

/// Connections of the proxy, oldest first, then passthrough flows.
pub(super) async fn list_connections(
    workers: &Workers,
    engine: Option<Arc<Engine>>,
    snapshot: Arc<Snapshot>,
    filter: views::ConnectionFilter,
) -> views::Connections {
    let limit = filter.limit.unwrap_or(LISTED).min(MAX_LISTED);
    let filter = Arc::new(filter);
    let of_proxy = {
        let filter = Arc::clone(&filter);
        move |c: &OpenConnection| {
            let server = c.server.as_ref().map(ServerName::as_str);
            let backend = c.backend.as_ref().map(BackendName::as_str);
            matches(&filter, c.frontend.as_str(), backend, server)
        }
    };
    let (mut total, connections) = workers.connections(Arc::new(of_proxy), limit).await;
    let mut listed: Vec<views::Connection> = connections.into_iter().map(proxied).collect();
    if let Some(engine) = engine {
        let room = limit.saturating_sub(listed.len());
        // a walk through all flows takes too long for the control loop
        let flows = tokio::task::spawn_blocking(move || {
            let wanted = |flow: &FlowInfo| {
                let (backend, server) = (&flow.server.backend, &flow.server.server);
                let (backend, server) = (Some(backend.as_str()), Some(server.as_str()));
                matches(&filter, flow.frontend.as_str(), backend, server)
            };
            engine.flows(&wanted, room)
        });
        if let Ok((count, flows)) = flows.await {
            total += usize::try_from(count).unwrap_or(usize::MAX);
            listed.extend(flows.iter().map(|flow| packets::connection(flow, &snapshot)));
        }
    }
    views::Connections {
        total,
        connections: listed,
    }
}

fn matches(
    filter: &views::ConnectionFilter,
    frontend: &str,
    backend: Option<&str>,
    server: Option<&str>,
) -> bool {
    let is = |wanted: &Option<String>, name: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| Some(wanted) == name)
    };
    is(&filter.frontend, Some(frontend)) && is(&filter.backend, backend) && is(&filter.server, server)
}

fn proxied(c: OpenConnection) -> views::Connection {
    views::Connection {
        client: c.client.to_string(),
        protocol: "tcp".to_owned(),
        mode: "proxy".to_owned(),
        frontend: c.frontend.to_string(),
        backend: c.backend.map(|b| b.to_string()).unwrap_or_default(),
        server: c.server.map(|s| s.to_string()),
        worker: Some(c.worker.0),
        age_seconds: Some(c.accepted_at.elapsed().as_secs_f64()),
        bytes_in: Some(c.bytes_in),
        bytes_out: Some(c.bytes_out),
        flow: None,
    }
}

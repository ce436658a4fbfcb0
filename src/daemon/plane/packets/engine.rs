//! Starting the engine that is configured, or the one that works here.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::mpsc};

use super::{PacketThreads, PacketsError};
use crate::{
    config::EngineChoice,
    engine::{
        Engine, EngineEvent, EngineSettings,
        xdp::{Handed, TableMaker},
    },
    flow::{Flows, TableLimits},
    privilege::{Client, Takeover, XdpGrant, sandbox},
    snapshot::Snapshot,
};

/// Tables that the broker is asked for at once, at most.
const TABLES_AT_ONCE: u8 = 16;

/// How long before its start the moments of the xdp engine begin: what has been silent for longer has been so for so long.
const BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// An engine that runs.
pub struct Started {
    pub engine: Engine,
    /// Which it is, and why that.
    pub choice: (EngineChoice, Arc<str>),
}

/// Starts the engine of the configuration; the raw one where the program of the xdp engine cannot be had.
///
/// # Errors
/// Its threads cannot be started.
pub async fn start(
    threads: PacketThreads,
    max_flows: NonZeroU32,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    broker: &Client,
    events: mpsc::Sender<EngineEvent>,
) -> Result<Started, PacketsError> {
    let now = Instant::now();
    let settings = EngineSettings {
        workers: threads.workers,
        first_shard: threads.first_shard,
        start: match threads.engine {
            // flows that are taken over have begun before this process
            EngineChoice::Xdp => now.checked_sub(BEFORE).unwrap_or(now),
            EngineChoice::Auto | EngineChoice::Raw => now,
        },
    };
    let limits = TableLimits {
        max_flows,
        workers: threads.workers,
        hash_seed: RandomState::new().hash_one("flows"),
    };
    let snapshot = || Arc::clone(snapshot);
    let prepare = sandbox::confine_packet_thread;
    let why: Arc<str> = match threads.engine {
        EngineChoice::Auto => "auto".into(),
        EngineChoice::Raw => "configured".into(),
        EngineChoice::Xdp => match hand_over(broker).await {
            Ok(handed) => {
                let started =
                    Engine::start_xdp(&settings, &limits, handed, snapshot(), events.clone(), prepare);
                match started {
                    Ok(engine) => return Ok(started_as(engine, EngineChoice::Xdp, "configured".into())),
                    Err(error) => instead(&error.to_string()),
                }
            }
            Err(error) => instead(&error),
        },
    };
    let flows = Arc::new(Flows::new(limits));
    let engine = Engine::start_raw(&settings, flows, snapshot(), events, prepare);
    Ok(started_as(
        engine.map_err(PacketsError::Engine)?,
        EngineChoice::Raw,
        why,
    ))
}

const fn started_as(engine: Engine, choice: EngineChoice, why: Arc<str>) -> Started {
    Started {
        engine,
        choice: (choice, why),
    }
}

/// Why the raw engine runs and not the one that is configured, which is logged.
fn instead(error: &str) -> Arc<str> {
    tracing::error!(
        event = "xdp_unavailable",
        "cannot use engine \"xdp\": {error}; engine \"raw\" moves the packets"
    );
    format!("xdp is not available: {error}").into()
}

/// Has the broker load the program, or take it over.
async fn hand_over(broker: &Client) -> Result<Handed, String> {
    let XdpGrant {
        fds,
        registry,
        takeover,
        not_kept,
    } = broker.xdp_load().await.map_err(|error| error.to_string())?;
    if let Takeover::Refused { why } = &takeover {
        tracing::warn!(
            event = "xdp_not_taken_over",
            "the program in the kernel is not taken over from the previous process, so that its flows end: {why}"
        );
    }
    if let Some(why) = not_kept {
        tracing::warn!(
            event = "xdp_not_kept",
            "systemd will not keep the program in the kernel over a restart, which will end its flows: {why}; restart convey \
             when that is mended"
        );
    }
    Ok(Handed {
        fds,
        registry,
        is_taken_over: takeover == Takeover::TakenOver,
        make_tables: table_maker(broker.clone()),
    })
}

/// Asks the broker for tables, from the thread that fills them.
fn table_maker(broker: Client) -> TableMaker {
    let runtime = Handle::current();
    Box::new(move |count| {
        let count = u8::try_from(count).unwrap_or(u8::MAX).min(TABLES_AT_ONCE);
        runtime
            .block_on(broker.xdp_tables(count))
            .map_err(io::Error::other)
    })
}

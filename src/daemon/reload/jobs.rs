//! What a reload does beside the control loop with the broker alone.

use super::{machine::NotRead, texts::failure};
use crate::{
    daemon::plane::{
        listeners::{Missing, Predecessors, PreparedListeners},
        stats::{MissingStats, StatsSockets, bind_stats},
    },
    privilege::{BrokerError, Client, FileRead, What},
};

/// Reads the configuration file.
pub async fn read(broker: Client) -> Result<FileRead, NotRead> {
    broker.read(What::Config).await.map_err(|error| {
        let failed = failure(&error);
        match error {
            BrokerError::Unreadable(_) => NotRead::File(failed),
            _ => NotRead::System(failed),
        }
    })
}

/// Makes new sockets, those of workers first.
pub async fn bind(
    missing: Missing,
    stats: MissingStats,
    broker: &Client,
    workers: usize,
) -> Result<(PreparedListeners, StatsSockets), BrokerError> {
    let listeners = missing
        .bind(broker, workers, &mut Predecessors::default())
        .await?;
    Ok((listeners, bind_stats(stats, broker).await?))
}

//! The files of `[network_lists]`: read by the broker, parsed here.

use std::sync::Arc;

use crate::{
    access::{NetworkLists, Networks},
    admin::views::ReloadFailed,
    base::NetworkListName,
    config::Config,
    privilege::{BrokerError, Channel, Client, What},
};

/// Reads every list of a configuration; what is the same as `before` is shared with it.
///
/// # Errors
/// The first list that cannot be read, or has a line that is no network.
pub async fn read_all(
    broker: &Client,
    config: &Arc<Config>,
    before: &NetworkLists,
) -> Result<NetworkLists, ReloadFailed> {
    let mut read = Vec::new();
    for name in config.network_lists.keys() {
        let what = What::NetworkList(name.clone());
        let file = broker.read(what).await.map_err(|error| unread(name, &error))?;
        read.push((name.clone(), file.source.bytes));
    }
    let (config, before) = (Arc::clone(config), before.clone());
    let parsed = tokio::task::spawn_blocking(move || {
        let lists = read.into_iter().map(|(name, bytes)| {
            let parsed = parse(&config, &name, &bytes)?;
            let same = before.get(&name).filter(|before| ***before == parsed);
            let list = same.map_or_else(|| Arc::new(parsed), Arc::clone);
            Ok((name, list))
        });
        lists.collect()
    });
    parsed
        .await
        .unwrap_or_else(|_| Err(failed("internal error while network lists were read".to_owned())))
}

/// Reads every list of a configuration at the start, when nothing else is to be done.
///
/// # Errors
/// As [`read_all`].
pub fn read_at_start(broker: &Channel, config: &Config) -> Result<NetworkLists, ReloadFailed> {
    let names = config.network_lists.keys();
    let lists = names.map(|name| {
        let file = (broker.read(What::NetworkList(name.clone()))).map_err(|error| unread(name, &error))?;
        Ok((name.clone(), Arc::new(parse(config, name, &file.source.bytes)?)))
    });
    lists.collect()
}

/// What a reload says of lists whose content has changed.
pub fn changes(before: &NetworkLists, after: &NetworkLists) -> Vec<String> {
    let changed = after.iter().filter_map(|(name, list)| {
        let old = before.get(name).filter(|old| !Arc::ptr_eq(old, list))?;
        Some(format!(
            "network list {name}: {} -> {} networks",
            old.entries(),
            list.entries()
        ))
    });
    changed.collect()
}

fn parse(config: &Config, name: &NetworkListName, bytes: &[u8]) -> Result<Networks, ReloadFailed> {
    Networks::parse(bytes).map_err(|error| {
        let path = config.network_lists.get(name).map(|list| list.path.display());
        let path = path.map_or_else(String::new, |path| format!("{path}: "));
        failed(format!("network list {name}: {path}{error}"))
    })
}

fn unread(name: &NetworkListName, error: &BrokerError) -> ReloadFailed {
    ReloadFailed {
        message: format!("network list {name}: {error}"),
        config_error: matches!(error, BrokerError::Unreadable(_)),
    }
}

fn failed(message: String) -> ReloadFailed {
    ReloadFailed {
        message,
        config_error: true,
    }
}

//! The first answers of sources: at the start, and of those that a reload adds or changes.

use std::{collections::BTreeMap, sync::Arc};

use super::state::{Judgement, judge};
use crate::{
    base::BackendName,
    config::{Config, Discovery},
    discovery::{FIRST_ANSWERS, Reader, ask_all},
    pools::{Discovered, Pools},
};

/// What they came to.
#[derive(Debug, Default)]
pub struct First {
    /// The servers of those backends that have others now.
    pub discovered: Discovered,
    /// Of every source that was asked.
    pub judged: BTreeMap<BackendName, Judgement>,
}

impl First {
    /// What an operator should know of those that failed, or whose answer is held.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.judged.iter().filter_map(|(backend, judged)| {
            let problem = judged.outcome.as_ref().err()?;
            Some(format!("backend {backend}: discovery: {problem}"))
        })
    }
}

/// Asks the sources of a configuration that are not those of the one before; one that fails or is silent stops nothing.
/// `pools` have the servers in effect.
pub async fn first_answers(
    config: &Config,
    before: Option<&Config>,
    pools: &Pools,
    reader: Arc<dyn Reader>,
) -> First {
    let settings = |config: &Config, name: &BackendName| -> Option<Discovery> {
        config.backends.get(name)?.discovery.clone()
    };
    let was = |name: &BackendName| before.and_then(|before| settings(before, name));
    let sources: Vec<_> = (config.backends.keys())
        .filter_map(|name| Some((name.clone(), settings(config, name)?)))
        .filter(|(name, settings)| settings.source.is_asked() && was(name).as_ref() != Some(settings))
        .collect();
    if sources.is_empty() {
        return First::default();
    }
    let mut first = First::default();
    for (name, reply) in ask_all(sources, reader, FIRST_ANSWERS).await {
        let in_effect = pools.discovered(name.as_str());
        // what another source has named may all go; what was saved is of this one
        let is_same = before.is_none() || {
            let source = |settings: Option<Discovery>| settings.map(|settings| settings.source);
            source(was(&name)) == source(settings(config, &name))
        };
        let of_before = in_effect.filter(|_| is_same).map(|servers| &**servers);
        let Some(judged) = judge(config, &name, &reply, of_before) else {
            continue;
        };
        if let Some(servers) = judged.servers(config, &name) {
            first.discovered.insert(name.clone(), servers);
        }
        first.judged.insert(name, judged);
    }
    first
}

//! Which commands a configuration names, and which files they may not open.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{commands::Command, model::Config, otlp::Otlp};
use crate::base::CommandId;

impl Config {
    /// The commands that it names, by what they are asked for by.
    #[must_use]
    pub fn commands(&self) -> BTreeMap<CommandId, Command> {
        let sources = (self.backends.values())
            .filter_map(|backend| backend.discovery.as_ref())
            .filter_map(|discovery| discovery.source.command());
        let checks = (self.backends.values())
            .filter_map(|backend| backend.health_check.as_ref())
            .filter_map(|check| check.check.command());
        let dns = self.acme.iter().filter_map(|acme| acme.dns_hook.as_ref());
        let all = self
            .hooks
            .on_change
            .iter()
            .chain(dns)
            .chain(sources)
            .chain(checks);
        all.map(|command| (command.id(), command.clone())).collect()
    }

    /// The files and directories that no command may open, because private keys and tokens are in them.
    #[must_use]
    pub fn secret_files(&self) -> BTreeSet<&Path> {
        let ended = (self.frontends.values()).filter_map(|frontend| frontend.tls.as_ref());
        let to_servers = (self.backends.values()).flat_map(|backend| backend.all_tls());
        let sources = (self.backends.values()).filter_map(|backend| backend.discovery.as_ref());
        let external = self.acme.iter().filter_map(|acme| acme.external_account.as_ref());
        let external_key = external.filter_map(|external| external.hmac_key.file());
        let api = self.admin.api.as_ref();
        (ended.flat_map(|tls| &tls.certificates))
            .chain(to_servers.filter_map(|tls| tls.identity.as_ref()))
            .chain(api.and_then(|api| api.tls.as_ref()))
            .map(|files| files.key.as_ref().unwrap_or(&files.cert).as_path())
            .chain(self.certificate_dirs())
            .chain(self.global.ticket_keys_file.as_deref())
            .chain(self.admin.tokens_file())
            .chain(external_key)
            .chain(sources.flat_map(|discovery| discovery.source.secret_files()))
            .chain(self.otlp.iter().flat_map(Otlp::secret_files))
            .collect()
    }
}

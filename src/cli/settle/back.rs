//! The way back to the configuration before.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use hyper::Method;
use nix::{
    fcntl::AtFlags,
    unistd::{AccessFlags, faccessat},
};

use crate::{
    admin::views::{ConfigHistory, Info, Reloaded},
    base::{BackendName, exit},
    cli::{
        applied::interpret,
        args::SettleArgs,
        client::{Asked, Client, Patience},
        outcome::Failure,
        server::Backends,
    },
    sys::{own_file, replace_file},
};

/// The configuration before a change, and who may put it back into the file: the running convey, or else this process. The file
/// has to have it too: what is in effect without standing there is gone with the next reload or restart.
#[derive(Debug)]
pub struct Before {
    text: Vec<u8>,
    file: PathBuf,
    by_api: bool,
    /// Backends that had no eligible server before either.
    idle: BTreeSet<BackendName>,
}

impl Before {
    /// Looks whether there is a way back, if one is wanted.
    ///
    /// # Errors
    /// There is none; nothing is changed then.
    pub fn look(client: &Client, args: SettleArgs) -> Result<Option<Self>, Failure> {
        if !args.rollback {
            return Ok(None);
        }
        let info: Info = client.get("/v1/info")?.parse()?;
        let file = PathBuf::from(&info.config_file);
        if !info.allow_config_writes && !may_write_beside(&file) {
            return Err(Failure::new(
                exit::NO_PERMISSION,
                format!(
                    "there would be no way back: the running convey may not write {0} (allow_config_writes is off in [admin]), and \
                     you may not either; nothing was changed. Run this with sudo, or set allow_config_writes = true and restart \
                     convey",
                    file.display()
                ),
            ));
        }
        let backends: Backends = client.get("/v1/backends")?.parse()?;
        Ok(Some(Self {
            idle: (backends.into_iter())
                .filter(|(_, backend)| backend.eligible == 0)
                .map(|(name, _)| name)
                .collect(),
            text: client.get("/v1/config")?.content()?.to_vec(),
            file,
            by_api: info.allow_config_writes,
        }))
    }

    /// Whether a backend had no eligible server before either.
    pub fn was_idle(&self, backend: &BackendName) -> bool {
        self.idle.contains(backend)
    }

    /// Puts the text back into the file and has it applied; says what has happened, and where the other text is.
    ///
    /// # Errors
    /// It cannot be put back, or not be applied: what is in effect then is said.
    pub fn go_back(self, client: &Client, reloaded: &Reloaded) -> Result<String, Failure> {
        let info: Info = client.get("/v1/info")?.parse()?;
        if info.config_generation != reloaded.config_generation {
            return Err(Failure::new(
                exit::UNAVAILABLE,
                format!(
                    "not rolled back: somebody has changed the configuration since (generation {}, and this change was {}): look \
                     at `convey config history`",
                    info.config_generation, reloaded.config_generation
                ),
            ));
        }
        let new = client.get("/v1/config")?;
        let (text, tag) = (new.content()?.to_vec(), new.tag);
        let failed = |failure: Failure| match failure {
            Failure::Told { message, .. } => Failure::new(
                exit::UNAVAILABLE,
                format!(
                    "could not go back, the new configuration is still in effect: {message}\n(`convey config history` has the \
                     one before)"
                ),
            ),
            gone => gone,
        };
        let by_api = (self.by_api).then(|| self.through_api(client, tag.as_deref()));
        let generation = match by_api {
            Some(Ok(generation)) => generation,
            // what it may not write or not add, an administrator may
            Some(Err(failure)) if !may_write_beside(&self.file) => return Err(failed(failure)),
            _ => self.by_hand(client, &text).map_err(failed)?,
        };
        let kept = kept(client, reloaded.config_generation, &self.file, &text);
        Ok(format!(
            "rolled back: {} has the configuration before again, and it is in effect (generation {generation}); {kept}",
            self.file.display()
        ))
    }

    fn through_api(&self, client: &Client, tag: Option<&str>) -> Result<u64, Failure> {
        let answer = client.send(Asked {
            if_match: tag,
            patience: Patience::Long,
            ..Asked::of(Method::PUT, "/v1/config").with_toml(self.text.clone())
        })?;
        Ok(interpret(&answer)?.config_generation)
    }

    fn by_hand(&self, client: &Client, new: &[u8]) -> Result<u64, Failure> {
        let replaced = replace_file::replace(&self.file, new, &self.text)
            .map_err(|error| Failure::new(exit::IO, error.to_string()))?;
        if !replaced {
            return Err(Failure::new(
                exit::NOT_YET,
                format!(
                    "{} has been edited meanwhile and is left as it is",
                    self.file.display()
                ),
            ));
        }
        let answer = client.post("/v1/reload", None, Patience::Long)?;
        Ok(interpret(&answer)?.config_generation)
    }
}

/// Where the text is that was put aside.
fn kept(client: &Client, generation: u64, file: &Path, text: &[u8]) -> String {
    let history = client
        .get("/v1/config/history")
        .and_then(|answer| answer.parse::<ConfigHistory>());
    let revision = history.ok().and_then(|history| {
        let mut revisions = history.revisions.into_iter();
        revisions.find(|revision| revision.generation == generation && revision.bytes == text.len() as u64)
    });
    if let Some(revision) = revision {
        return format!(
            "the other one is `convey config show --revision {}`",
            revision.revision
        );
    }
    // a host that keeps no history
    let aside = file.with_extension("toml.rolled-back");
    let written = own_file::create(&aside, 0o600).and_then(|mut file| file.write_all(text));
    match written {
        Ok(()) => format!("the other one is in {}", aside.display()),
        Err(_) => "the other one is not kept".to_owned(),
    }
}

/// Whether this process may replace a file: that takes its directory.
fn may_write_beside(file: &Path) -> bool {
    let Some(directory) = file.parent() else {
        return false;
    };
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(nix::fcntl::AT_FDCWD, directory, access, AtFlags::AT_EACCESS).is_ok()
}

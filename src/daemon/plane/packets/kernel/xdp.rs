//! The program of the XDP engine in the broker's hands, and in the service manager's for the process after this one.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::{
    config::model::XdpMode,
    engine::xdp::{
        attach::{self, Interface},
        load::{self, KEPT, LoadLimits, Loaded, Predecessor},
        object::OBJECT,
    },
    privilege::{Takeover, XdpAttached, XdpLoad},
    sys::manager::Manager,
};

/// The program, once it is loaded, and where it is kept.
#[derive(Debug)]
pub struct XdpProgram {
    store: Store,
    /// What the process before this one has left, as long as nothing is loaded.
    predecessor: Predecessor,
    loaded: Option<Program>,
}

/// It is loaded.
#[derive(Debug)]
struct Program {
    loaded: Loaded,
    takeover: Takeover,
    /// Why the process after this one will not find it, if it will not.
    not_kept: Option<String>,
}

/// The service manager.
#[derive(Debug)]
enum Store {
    /// There is none that keeps anything.
    None,
    Manager(Manager),
    /// It cannot be reached.
    Lost(io::Error),
}

impl XdpProgram {
    /// Nothing is loaded, and nothing was left.
    pub const fn new() -> Self {
        Self {
            store: Store::None,
            predecessor: Predecessor::of(Vec::new()),
            loaded: None,
        }
    }

    /// Takes what the process before this one has left, and finds the service manager.
    pub fn inherit(&mut self, kept: Vec<(String, OwnedFd)>) {
        self.predecessor = Predecessor::of(kept);
        self.store = match Manager::connect_from_environment() {
            Ok(manager) => manager.map_or(Store::None, Store::Manager),
            Err(error) => Store::Lost(error),
        };
    }

    /// The program, if it is loaded.
    ///
    /// # Errors
    /// It is not.
    pub fn loaded(&mut self) -> io::Result<&mut Loaded> {
        let unloaded = || io::Error::new(io::ErrorKind::NotFound, "the XDP program is not loaded");
        let program = self.loaded.as_mut().ok_or_else(unloaded)?;
        Ok(&mut program.loaded)
    }

    /// Loads the program, or takes over what was left, unless that has been done, and has it kept.
    ///
    /// # Errors
    /// What to tell the operator.
    pub fn load(&mut self, limits: LoadLimits) -> Result<XdpLoad, String> {
        let program = match self.loaded.take() {
            Some(program) => program,
            None => self.take_over_or_load(limits)?,
        };
        let Program {
            loaded,
            takeover,
            not_kept,
        } = self.loaded.insert(program);
        let hand_out = || -> io::Result<Vec<OwnedFd>> {
            let mut fds = loaded.hand_out()?;
            fds.extend(loaded.hand_out_registry()?);
            Ok(fds)
        };
        Ok(XdpLoad {
            fds: hand_out().map_err(|error| format!("hand the XDP program out: {error}"))?,
            takeover: takeover.clone(),
            not_kept: not_kept.clone(),
        })
    }

    fn take_over_or_load(&mut self, limits: LoadLimits) -> Result<Program, String> {
        let predecessor = std::mem::take(&mut self.predecessor);
        if predecessor.is_empty() {
            let loaded = load::load(OBJECT, limits).map_err(|error| error.said())?;
            return Ok(self.keep(loaded, Takeover::Fresh));
        }
        let names = predecessor.names();
        let why = match load::take_over(predecessor, OBJECT, limits) {
            Ok(loaded) => return Ok(self.keep(loaded, Takeover::TakenOver)),
            Err(why) => why.to_string(),
        };
        self.store.forget(names);
        match load::load(OBJECT, limits) {
            Ok(loaded) => Ok(self.keep(loaded, Takeover::Refused { why })),
            Err(error) => Err(format!(
                "{}; what the previous process left is not taken over: {why}",
                error.said()
            )),
        }
    }

    /// Has it kept for the process after this one.
    fn keep(&self, loaded: Loaded, takeover: Takeover) -> Program {
        let not_kept = if loaded.is_kept() {
            None
        } else {
            // programs of the process before are there under the same name
            self.store.forget([KEPT.to_owned()]);
            self.store.keep(KEPT, &loaded.kept())
        };
        Program {
            loaded,
            takeover,
            not_kept,
        }
    }

    /// Attaches the program to an interface, unless it is, and has that kept.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn attach(&mut self, to: &Interface<'_>, mode: XdpMode) -> io::Result<XdpAttached> {
        let loaded = self.loaded()?;
        let attach::Attached { mode, why } = loaded.attach(to, mode);
        let reused = loaded.take_reused();
        self.store.forget(reused);
        let kept = self
            .loaded
            .as_ref()
            .and_then(|program| program.loaded.kept_link(to.index));
        // one that was taken over is there already, which does no harm
        let not_kept = kept.and_then(|(name, link)| self.store.keep(&name, &[link]));
        Ok(XdpAttached { mode, why, not_kept })
    }

    /// Detaches the program from the interface of this index.
    pub fn detach(&mut self, ifindex: u32) {
        let name = self.loaded().ok().and_then(|loaded| loaded.detach(ifindex));
        self.store.forget(name);
    }

    /// Ends what the process before has left and nobody has taken over.
    pub fn settle(&mut self) {
        let names = match self.loaded() {
            Ok(loaded) => loaded.settle(),
            Err(_) => std::mem::take(&mut self.predecessor).end(),
        };
        self.store.forget(names);
    }

    /// Leaves nothing to the process after this one. What is attached is to be detached before.
    pub fn end(&mut self) {
        self.settle();
        if self.loaded.take().is_some() {
            self.store.forget([KEPT.to_owned()]);
        }
    }
}

impl Store {
    /// Has these kept under a name; why that cannot be.
    fn keep(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Option<String> {
        match self {
            Self::None => None,
            Self::Manager(manager) => manager.keep(name, fds).err().map(|error| error.to_string()),
            Self::Lost(error) => Some(error.to_string()),
        }
    }

    /// Has nothing kept under these names. Where the manager does not hear it, it keeps what has been ended: who finds that
    /// sees it.
    fn forget(&self, names: impl IntoIterator<Item = String>) {
        if let Self::Manager(manager) = self {
            for name in names {
                let _ = manager.forget(&name);
            }
        }
    }
}

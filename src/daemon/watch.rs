//! Noticing that the configuration file has changed.
//!
//! Its directory is watched, not the file, for editors and deployment tools replace files by renaming and by swapping
//! symbolic links. Where the path is a link, the directory of what it points at is watched too; where a directory is
//! missing, the nearest one above it that exists. Whatever happens in them is a reason to look, and to watch anew; a
//! reload that finds nothing changed does nothing.
//!
//! What no watch sees (a file system that is mounted over it, a directory that we may not read) the broker notices, which
//! looks every few seconds.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind, event::AccessMode};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

/// Quiet time after the last change before the file is read: writers take several steps.
const QUIET: Duration = Duration::from_millis(250);

/// Longest time after the first change: something else in the directory may never be quiet.
const AT_LATEST: Duration = Duration::from_secs(2);

/// When to look after changes were noticed.
#[derive(Debug, Default)]
pub struct Debounce(Option<(Instant, Instant)>);

impl Debounce {
    /// Something changed.
    pub fn noticed(&mut self, now: Instant) {
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    /// When to look; `None` while nothing has changed.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.0.map(|(first, last)| (last + QUIET).min(first + AT_LATEST))
    }
}

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct FileWatch(#[expect(dead_code, reason = "held for its drop")] RecommendedWatcher);

/// Longest wait for the file system of the watched directories: one that hangs must not hold up a reload.
const WATCH_TIME: Duration = Duration::from_secs(2);

/// As [`watch`], beside the control loop. To be called within the runtime.
pub async fn watch_beside(path: PathBuf, changes: mpsc::Sender<()>) -> Result<FileWatch, String> {
    let watching = spawn_blocking(move || watch(&path, changes));
    match timeout(WATCH_TIME, watching).await {
        Ok(Ok(watched)) => watched.map_err(|error| error.to_string()),
        Ok(Err(panicked)) => Err(panicked.to_string()),
        Err(_) => Err(format!("its file system has not answered for {WATCH_TIME:?}")),
    }
}

/// Watches the directories of a file. Changes put one token into `changes`.
///
/// # Errors
/// None of them can be watched.
pub fn watch(path: &Path, changes: mpsc::Sender<()>) -> notify::Result<FileWatch> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(event.kind)) {
            // full: a token is waiting already
            let _ = changes.try_send(());
        }
    })?;
    let mut result = Err(notify::Error::path_not_found());
    for directory in directories(path) {
        let watched = watcher.watch(&directory, RecursiveMode::NonRecursive);
        result = watched.or_else(|error| result.map_err(|_| error));
    }
    result.map(|()| FileWatch(watcher))
}

/// The directories in which a change can mean another configuration: that of each link on the way, and the file's.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    /// The kernel follows at most 40 links (path_resolution(7)).
    const MAX_LINKS: usize = 40;
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut found = BTreeSet::new();
    // a link on the way, such as releases/current, may be swapped as well
    for ancestor in path.ancestors().skip(1).filter(|a| a.is_symlink()) {
        found.insert(parent(ancestor));
    }
    let mut current = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = parent(&current);
        found.insert(directory.clone());
        // Kubernetes-like mounts swap a link that is a directory on the way to the file
        if let Ok(real) = directory.canonicalize() {
            found.insert(real);
        }
        let Ok(target) = std::fs::read_link(&current) else {
            break;
        };
        if target.components().count() > 1 {
            let first_step = directory.join(&target);
            found.insert(parent(&first_step));
        }
        current = directory.join(target);
    }
    let nearest = |directory: &PathBuf| {
        let mut above = directory
            .ancestors()
            .map(|path| match path.as_os_str().is_empty() {
                true => Path::new("."),
                false => path,
            });
        above.find(|path| path.is_dir()).map(Path::to_owned)
    };
    found.iter().filter_map(nearest).collect()
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_every_link_on_the_way_are_watched() {
        let top = tempfile::tempdir().unwrap();
        let (a, b) = (top.path().join("a"), top.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir(&b).unwrap();
        std::fs::write(b.join("real.toml"), "").unwrap();
        std::os::unix::fs::symlink("../b/real.toml", a.join("convey.toml")).unwrap();
        let canonical: BTreeSet<_> = directories(&a.join("convey.toml"))
            .iter()
            .map(|d| d.canonicalize().unwrap())
            .collect();
        assert!(
            canonical.contains(&a.canonicalize().unwrap()) && canonical.contains(&b.canonicalize().unwrap())
        );
    }

    #[test]
    fn where_a_directory_is_missing_the_nearest_above_it_is_watched() {
        let top = tempfile::tempdir().unwrap();
        let missing = top.path().join("etc/convey/convey.toml");
        assert_eq!(directories(&missing), [top.path().to_owned()].into());
        assert_eq!(
            directories(Path::new("no/such/convey.toml")),
            [PathBuf::from(".")].into()
        );
    }

    #[test]
    fn a_busy_directory_delays_the_look_but_not_for_ever() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.noticed(start);
        assert_eq!(debounce.due(), Some(start + QUIET));
        for step in 1..100 {
            debounce.noticed(start + QUIET / 2 * step);
        }
        assert_eq!(debounce.due(), Some(start + AT_LATEST));
    }

    #[tokio::test]
    async fn a_rename_over_the_file_is_noticed() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("convey.toml");
        std::fs::write(&file, "a").unwrap();
        let (tx, mut rx) = mpsc::channel(1);
        let _watch = watch(&file, tx).unwrap();
        let other = top.path().join("new");
        std::fs::write(&other, "b").unwrap();
        std::fs::rename(&other, &file).unwrap();
        timeout(crate::PATIENCE, rx.recv()).await.unwrap().unwrap();
    }
}

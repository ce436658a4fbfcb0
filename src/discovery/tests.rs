//! What is asked, when, and what of it still counts.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::time::timeout;

use super::*;
use crate::{
    PATIENCE,
    config::{self, Options, Source},
};

fn config(text: &str) -> Config {
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: text.into(),
    };
    config::load(&source, Options::default()).unwrap().config
}

const SITE: &str = "[frontends.web]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n[backends.web.discovery]\n\
    kind = \"file\"\npath = \"/w\"\ninterval = \"10ms\"\n";

/// Files whose next contents are known.
#[derive(Default)]
struct Contents(Mutex<VecDeque<Result<&'static str, &'static str>>>);

impl Reader for Contents {
    fn connect(&self, _: SocketPath) -> Connecting {
        Box::pin(async { Err("there is no socket".to_owned()) })
    }

    fn run(&self, command: Command) -> Reading {
        self.read(command.program().into())
    }

    fn read(&self, _: PathBuf) -> Reading {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Box::pin(async move {
            match next {
                Some(Ok(text)) => Ok(text.as_bytes().to_vec()),
                Some(Err(why)) => Err(why.to_owned()),
                None => std::future::pending().await,
            }
        })
    }
}

fn sources(contents: &[Result<&'static str, &'static str>]) -> (Sources, mpsc::Receiver<Found>) {
    let contents = Contents(Mutex::new(contents.iter().copied().collect()));
    let (tx, rx) = mpsc::channel(INBOX);
    (Sources::new(Arc::new(contents), tx), rx)
}

async fn next(found: &mut mpsc::Receiver<Found>) -> Found {
    timeout(PATIENCE, found.recv()).await.unwrap().unwrap()
}

fn servers(found: &Found) -> usize {
    found.reply.result.as_ref().unwrap().servers.len()
}

#[tokio::test]
async fn a_source_is_asked_at_once_and_again_when_its_file_changes_or_after_a_failure() {
    let (mut sources, mut found) = sources(&[Ok("10.0.0.1:80"), Err("gone"), Ok("10.0.0.1:80\n10.0.0.2:80")]);
    sources.follow(&config(SITE), &BTreeMap::new());
    assert_eq!(servers(&next(&mut found).await), 1);
    sources.file_changed(Path::new("/other"));
    sources.file_changed(Path::new("/w"));
    let failed = next(&mut found).await;
    assert_eq!(failed.reply.result.unwrap_err().to_string(), "gone");
    assert_eq!(servers(&next(&mut found).await), 2, "asked again by itself");
}

#[tokio::test]
async fn an_answer_of_a_source_that_was_changed_or_removed_does_not_count() {
    let (mut sources, mut found) = sources(&[Ok("10.0.0.1:80"), Ok("10.0.0.2:80"), Ok("10.0.0.3:80")]);
    let before = config(SITE);
    sources.follow(&before, &BTreeMap::new());
    let first = next(&mut found).await;
    assert!(sources.is_current(&first));
    sources.follow(&before, &BTreeMap::new());
    assert!(sources.is_current(&first), "nothing changed");
    sources.follow(&config(&SITE.replace("/w", "/v")), &BTreeMap::new());
    assert!(!sources.is_current(&first));
    let second = next(&mut found).await;
    assert!(sources.is_current(&second));
    sources.follow(&config("[global]"), &BTreeMap::new());
    assert!(!sources.is_current(&second));
}

#[tokio::test]
async fn one_that_has_just_been_asked_is_asked_when_it_changes() {
    let (mut sources, mut found) = sources(&[Ok("10.0.0.1:80")]);
    let web = BackendName::new("web").unwrap();
    let asked = Asked {
        failed: false,
        ttl: None,
    };
    sources.follow(&config(SITE), &BTreeMap::from([(web, asked)]));
    tokio::task::yield_now().await;
    assert!(found.try_recv().is_err());
    sources.file_changed(Path::new("/w"));
    assert_eq!(servers(&next(&mut found).await), 1);
}

#[tokio::test]
async fn a_start_does_not_wait_for_ever() {
    let (sources, _found) = sources(&[Ok("10.0.0.1:80")]);
    let settings = config(SITE).backends["web"].discovery.clone().unwrap();
    let name = |name| BackendName::new(name).unwrap();
    let asked = vec![(name("quick"), settings.clone()), (name("silent"), settings)];
    let replies = ask_all(asked, sources.reader(), Duration::from_secs(3)).await;
    let silent = replies.values().filter(|reply| reply.result.is_err());
    let silent: Vec<_> = silent
        .map(|reply| reply.result.clone().unwrap_err().label())
        .collect();
    assert_eq!((replies.len(), silent), (2, vec!["silent"]));
}

#[test]
fn many_sources_are_not_asked_at_once() {
    let interval = Duration::from_secs(10);
    let (mut shortest, mut longest) = (interval, interval);
    let mut random = SplitMix64::new(1);
    for _ in 0..1_000 {
        let time = jittered(interval, random.next_u64());
        assert!(
            time >= Duration::from_secs(9) && time <= Duration::from_secs(11),
            "{time:?}"
        );
        (shortest, longest) = (shortest.min(time), longest.max(time));
    }
    assert!(shortest < Duration::from_millis(9_200) && longest > Duration::from_millis(10_800));
    assert_eq!(jittered(Duration::ZERO, 7), Duration::ZERO);
}

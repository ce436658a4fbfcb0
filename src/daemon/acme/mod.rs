//! Certificates that are ordered: what CAs issue, put in effect and kept.
//!
//! ```text
//! configuration ─► Planner ─ one job at a time ─► CA
//! state directory ─────┴────── Done ─► certificate stores of the frontends, state directory, status
//! ```
//! A certificate is in use from the next handshake on, without a reload. A job that a reload has made needless is told to end;
//! what it brings all the same is used only if it is still wanted.

mod control;
mod files;
mod state;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use aws_lc_rs::rand;
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
};

use super::state_dir::StateDir;
use crate::{
    acme::{
        Answer, Bundle, Failure, Host, HttpTokens, Proofs, account_file,
        advice::{self, Advice, CertificateId},
        bundle_file,
        order::{self, Job, Means},
        plan::{Held, Planner, Step, Wanted},
    },
    admin::status::AcmeStatus,
    base::{DnsProof, FrontendName},
    client::runner::Runner,
    config::{Acme, CertificateOrder, Command, Config},
    privilege::{Client, What},
    tls::{Challenges, NamedPair},
};
use files::{Found, Seen};
use state::Troubles;

/// What the control loop has to do with certificates that are ordered.
pub struct Certificates {
    planner: Planner,
    /// What is ordered now, by name.
    orders: BTreeMap<Arc<str>, CertificateOrder>,
    /// Whom it is ordered for.
    frontends: BTreeMap<Arc<str>, Vec<FrontendName>>,
    acme: Option<Acme>,
    /// What is there.
    bundles: BTreeMap<Arc<str>, Arc<Bundle>>,
    /// The files that were read.
    seen: BTreeMap<Arc<str>, Seen>,
    /// `None`: nothing can be kept, so nothing is ordered.
    directory: Option<PathBuf>,
    means: Means,
    jobs: JoinSet<Done>,
    running: Option<Running>,
    /// Whether the files are being looked at.
    is_looking: bool,
    troubles: Troubles,
    statuses: Arc<AcmeStatus>,
}

/// A step under way.
struct Running {
    step: Step,
    acme: Acme,
    order: CertificateOrder,
    since: Instant,
    /// Tells it to end.
    give_up: Arc<Notify>,
}

/// What a job has come to.
#[derive(Debug)]
enum Done {
    /// An order, and whether its certificate was kept.
    Ordered(Arc<str>, Result<(Arc<Bundle>, Result<(), String>), Failure>),
    Advised(Arc<str>, Result<Option<Advice>, Failure>),
    Found(Found),
}

/// A job's end, to be handed to [`Control::acme_done`].
#[derive(Debug)]
pub struct AcmeDone(Option<Done>);

/// What orders need of the daemon.
struct Services {
    broker: Client,
    runner: Runner,
    directory: Option<PathBuf>,
}

impl Host for Services {
    fn read(&self, path: PathBuf) -> Answer<Vec<u8>> {
        let broker = self.broker.clone();
        Box::pin(async move {
            let read = broker.read(What::AcmeFile(path)).await;
            read.map(|file| file.source.bytes)
                .map_err(|error| error.to_string())
        })
    }

    fn prove(&self, hook: Command, proof: DnsProof) -> Answer<()> {
        let runner = self.runner.clone();
        Box::pin(async move {
            runner
                .run_dns(&hook, proof)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn keep_account(&self, file: String, text: String) -> Answer<()> {
        let directory = self.directory.clone();
        Box::pin(async move { keep(directory, file, text).await })
    }
}

async fn keep(directory: Option<PathBuf>, file: String, text: String) -> Result<(), String> {
    let Some(directory) = directory else {
        return Err("there is no state directory".to_owned());
    };
    let written =
        spawn_blocking(move || files::write(&directory, &file, &text).map_err(|error| (directory, error)));
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err((directory, error))) => Err(format!("{}: {error}", directory.display())),
        Err(_) => Err("internal error while it was written".to_owned()),
    }
}

/// Not secret, only different each time; without randomness nothing is spread.
fn random() -> u64 {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
}

impl Certificates {
    /// Nothing is ordered yet.
    pub fn new(broker: Client, runner: Runner, state: &StateDir, challenges: &Arc<Challenges>) -> Self {
        let directory = state.path().map(|path| path.join(files::DIRECTORY));
        let proofs = Proofs {
            tls: Arc::clone(challenges),
            ..Proofs::default()
        };
        let host = Services {
            broker,
            runner,
            directory: directory.clone(),
        };
        Self {
            planner: Planner::default(),
            orders: BTreeMap::new(),
            frontends: BTreeMap::new(),
            acme: None,
            bundles: BTreeMap::new(),
            seen: BTreeMap::new(),
            directory,
            means: Means {
                host: Arc::new(host),
                proofs,
            },
            jobs: JoinSet::new(),
            running: None,
            is_looking: false,
            troubles: Troubles::default(),
            statuses: Arc::default(),
        }
    }

    /// How certificates are.
    pub const fn statuses(&self) -> &Arc<AcmeStatus> {
        &self.statuses
    }

    /// What the listener for HTTP-01 answers.
    pub const fn tokens(&self) -> &Arc<HttpTokens> {
        &self.means.proofs.http
    }

    /// Resolves when a job has ended; never while none is under way.
    pub async fn done(&mut self) -> AcmeDone {
        match self.jobs.join_next().await {
            Some(Ok(done)) => AcmeDone(Some(done)),
            // it has panicked
            Some(Err(_)) => AcmeDone(None),
            None => std::future::pending().await,
        }
    }

    /// Tells the order under way to end.
    pub fn give_up(&self) {
        if let Some(running) = &self.running {
            running.give_up.notify_one();
        }
    }

    /// The ordered certificate of a frontend, if it is there.
    pub fn of_frontend(&self, name: &FrontendName) -> Vec<NamedPair> {
        let orders = self.frontends.iter().filter(|(_, users)| users.contains(name));
        let bundles = orders.filter_map(|(order, _)| Some((order, self.bundles.get(order)?)));
        bundles
            .map(|(order, bundle)| (Arc::clone(order), Arc::new(bundle.pair.clone())))
            .collect()
    }

    /// Goes on with the orders of a configuration.
    fn follow(&mut self, config: &Config) {
        let acme = config.acme.as_ref();
        let before = std::mem::take(&mut self.orders);
        self.orders = (config.ordered_certificates().into_iter())
            .map(|(name, order)| (name, order.clone()))
            .collect();
        self.frontends.clear();
        for (name, frontend) in &config.frontends {
            let order = frontend.tls.as_ref().and_then(|tls| tls.acme.as_ref());
            if let Some(order) = order.filter(|_| acme.is_some()) {
                self.frontends.entry(order.name()).or_default().push(name.clone());
            }
        }
        let is_other = self.acme.as_ref() != acme;
        if is_other {
            self.planner.start_over();
        }
        self.acme = acme.cloned();
        let orders = &self.orders;
        self.bundles.retain(|name, _| orders.contains_key(name));
        self.seen.retain(|name, _| orders.contains_key(name));
        // what was wrong with another order is not wrong with this one
        self.troubles
            .keep(|name| !is_other && orders.contains_key(name) && orders.get(name) == before.get(name));
        if let Some(running) = &self.running {
            let order = orders.get(running.step.name());
            if order != Some(&running.order) || acme != Some(&running.acme) {
                running.give_up.notify_one();
            }
        }
        self.plan();
    }

    /// Plans for what was looked for; what is not known to be missing is not ordered.
    fn plan(&mut self) {
        let wanted: BTreeMap<Arc<str>, Wanted> = match &self.acme {
            Some(acme) => (self.orders.iter())
                .filter(|(name, _)| self.seen.contains_key(*name))
                .map(|(name, order)| (Arc::clone(name), wanted(acme, order)))
                .collect(),
            None => BTreeMap::new(),
        };
        self.planner.follow(&wanted, random);
        for (name, bundle) in &self.bundles {
            if self.planner.held(name).is_none() {
                self.planner.hold(name, held(bundle), None);
            }
        }
    }

    /// The files that are to be looked at: those of what was not looked for yet, or all.
    fn to_see(&self, all: bool) -> BTreeMap<Arc<str>, Option<Seen>> {
        let names = self
            .orders
            .keys()
            .filter(|name| all || !self.seen.contains_key(*name));
        names
            .map(|name| (Arc::clone(name), self.seen.get(name).copied()))
            .collect()
    }

    /// Takes what was found in files; whether there is another certificate than before.
    fn take(&mut self, found: Found) -> bool {
        let mut is_changed = false;
        for (name, (seen, result)) in found {
            if !self.orders.contains_key(&name) {
                continue;
            }
            self.seen.insert(Arc::clone(&name), seen);
            match result {
                Ok(None) => {}
                Ok(Some(bundle)) => {
                    self.planner.hold(&name, held(&bundle), None);
                    self.bundles.insert(name, bundle);
                    is_changed = true;
                }
                Err(why) => tracing::warn!(
                    event = "acme_unreadable",
                    "acme: certificate {name}: cannot use what was kept of it: {why}"
                ),
            }
        }
        is_changed
    }

    /// Begins what is to be done now.
    fn begin(&mut self, now: SystemTime) {
        let Some(acme) = self.acme.as_ref().filter(|acme| acme.lead) else {
            return;
        };
        if self.running.is_some() || self.directory.is_none() {
            return;
        }
        let Some(step) = self.planner.next(now) else {
            return;
        };
        let Some(order) = self.orders.get(step.name()).cloned() else {
            return;
        };
        let (acme, give_up) = (acme.clone(), Arc::new(Notify::new()));
        let name = Arc::clone(step.name());
        match &step {
            Step::Order(_, replaces) => {
                self.troubles
                    .say_order(&name, &order, &acme, self.planner.due(&name));
                let job = Ordering {
                    name,
                    acme: acme.clone(),
                    order: order.clone(),
                    replaces: replaces.clone(),
                    directory: self.directory.clone(),
                    means: self.means.clone(),
                };
                self.jobs.spawn(job.run(Arc::clone(&give_up)));
            }
            Step::Advice(_, id) => {
                let (acme, id) = (acme.clone(), id.clone());
                let (host, stop) = (Arc::clone(&self.means.host), Arc::clone(&give_up));
                self.jobs.spawn(async move {
                    let asked = tokio::select! {
                        asked = advice::ask(&acme, &id, &*host) => asked,
                        () = stop.notified() => Err(Failure::given_up()),
                    };
                    Done::Advised(name, asked)
                });
            }
        }
        self.running = Some(Running {
            step,
            acme,
            order,
            since: Instant::now(),
            give_up,
        });
    }

    /// Whether what the job under way was about is still wanted so.
    fn is_current(&self, running: &Running) -> bool {
        self.acme.as_ref() == Some(&running.acme)
            && self.orders.get(running.step.name()) == Some(&running.order)
    }

    fn update_statuses(&mut self, now: SystemTime) {
        self.statuses = Arc::new(state::statuses(self, now));
    }
}

/// An order as a job.
struct Ordering {
    name: Arc<str>,
    acme: Acme,
    order: CertificateOrder,
    replaces: Option<CertificateId>,
    directory: Option<PathBuf>,
    means: Means,
}

impl Ordering {
    async fn run(self, give_up: Arc<Notify>) -> Done {
        let (directory, file) = (self.directory.clone(), account_file(&self.acme.directory));
        let account = spawn_blocking(move || files::account(&directory?, &file)).await;
        let job = Job {
            acme: self.acme,
            order: self.order,
            account: account.ok().flatten(),
            replaces: self.replaces,
        };
        let issued = match order::carry_out(&job, &self.means, give_up.notified()).await {
            Ok(bundle) => bundle,
            Err(failure) => return Done::Ordered(self.name, Err(failure)),
        };
        let kept = keep(self.directory, bundle_file(&self.name), issued.text.clone()).await;
        Done::Ordered(self.name, Ok((Arc::new(issued), kept)))
    }
}

fn wanted(acme: &Acme, order: &CertificateOrder) -> Wanted {
    Wanted {
        names: order.names.iter().map(|name| name.to_string().into()).collect(),
        directory: acme.directory.to_string().into(),
        profile: order.profile(acme).map(Into::into),
        renew_before: acme.renew_before,
    }
}

fn held(bundle: &Bundle) -> Held {
    let facts = bundle.pair.facts();
    Held {
        names: facts.names.iter().cloned().collect(),
        directory: bundle.directory.as_str().into(),
        profile: bundle.profile.as_deref().map(Into::into),
        not_before: facts.not_before,
        not_after: facts.not_after,
        id: (facts.renewal_id.clone()).map(|(authority, serial)| CertificateId { authority, serial }),
    }
}

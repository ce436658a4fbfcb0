//! The thread that serves every endpoint, and the handle that gives it listeners.

use std::{
    fmt, io,
    net::TcpListener as StdTcpListener,
    os::unix::net::UnixListener as StdUnixListener,
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{self, Handle},
    sync::oneshot,
    time::MissedTickBehavior,
};

#[cfg(feature = "otlp")]
use super::metrics::Parts;
use super::{
    Commands,
    api::{self, context::ApiContext},
    api_listener::ApiListener,
    auth::{ApiAccess, FailedLogins, Gate, without_others_pages},
    challenges::{self, Answers},
    http::{self, HttpLimits, HttpListener},
    page,
    stats::{self, Reach},
    status::{Live, Status},
    strangers::without_commands,
};
use crate::{
    client::runner::Runner,
    snapshot::{histogram::Times, trend},
};

/// How long the end waits for the thread: an answer that is being made takes less.
const END: Duration = Duration::from_secs(1);

/// Threads for walks through all flows; see [`api`].
const WALKERS: usize = 1;

/// The thread `convey-admin` with its own runtime. Dropping it ends the thread and every endpoint.
pub struct AdminThread {
    runtime: Handle,
    context: ApiContext,
    /// Knows which processes are commands of Convey's own.
    runner: Option<Runner>,
    failed_logins: Arc<FailedLogins>,
    /// Ends the thread when it goes.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    done: Receiver<()>,
}

impl fmt::Debug for AdminThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminThread").finish_non_exhaustive()
    }
}

impl AdminThread {
    /// Starts the thread; it serves nothing yet. Call it after privileges are dropped: it inherits what the calling
    /// thread is confined to.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub fn start(
        status: Arc<ArcSwap<Status>>,
        live: Arc<dyn Live>,
        commands: Commands,
        runner: Option<Runner>,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WALKERS)
            .thread_name("convey-admin-walk")
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (done_sender, done) = sync_channel(1);
        let thread = Builder::new().name("convey-admin".into()).spawn(move || {
            let _ = runtime.block_on(stopped);
            // connections end here; a walk that still runs is left behind
            runtime.shutdown_background();
            // the daemon may have stopped waiting
            let _ = done_sender.try_send(());
        })?;
        let context = ApiContext::new(status, live, commands, HttpLimits::default());
        handle.spawn(sample(context.clone()));
        let failed_logins = FailedLogins::new(Arc::clone(context.failed_logins()), Instant::now());
        Ok(Self {
            runtime: handle,
            context,
            runner,
            failed_logins: Arc::new(failed_logins),
            stop: Some(stop),
            thread: Some(thread),
            done,
        })
    }

    /// Serves the control endpoint on a socket made by [`super::bind_socket`] until the result is dropped. Returns at once.
    ///
    /// # Errors
    /// The runtime cannot take the listener.
    pub fn serve_control(&self, listener: StdUnixListener) -> io::Result<HttpListener> {
        self.serve_control_within(listener, HttpLimits::default())
    }

    pub(super) fn serve_control_within(
        &self,
        listener: StdUnixListener,
        limits: HttpLimits,
    ) -> io::Result<HttpListener> {
        let _its_runtime = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let mut router = api::router(self.context.within(limits)).merge(page::routes());
        if let Some(runner) = &self.runner {
            router = without_commands(router, runner.clone());
        }
        let router = without_others_pages(router);
        Ok(http::serve(listener, router, limits, self.refused()))
    }

    /// Serves the control endpoint on TCP (on the broker's listener) to whom `access` lets in, as it is at each connection and
    /// request, until the result is dropped. Returns at once.
    ///
    /// # Errors
    /// The runtime cannot take the listener.
    pub fn serve_api(
        &self,
        listener: StdTcpListener,
        access: &Arc<ArcSwap<ApiAccess>>,
    ) -> io::Result<HttpListener> {
        let _its_runtime = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = ApiListener::new(TcpListener::from_std(listener)?, Arc::clone(access));
        let gate = Gate::new(
            Arc::clone(access),
            Arc::clone(&self.failed_logins),
            Arc::clone(self.context.sessions()),
        );
        let router = gate.before(api::router(self.context.clone()).merge(page::routes()));
        Ok(http::serve(
            listener,
            router,
            HttpLimits::default(),
            self.refused(),
        ))
    }

    /// Serves `/stats` on a listener (the broker's) until the result is dropped. Returns at once.
    ///
    /// # Errors
    /// The runtime cannot take the listener.
    pub fn serve_stats(&self, listener: StdTcpListener) -> io::Result<HttpListener> {
        let _its_runtime = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let reach = Reach::of(listener.local_addr()?.ip());
        let router = stats::router(self.context.clone(), reach);
        Ok(http::serve(
            listener,
            router,
            HttpLimits::default(),
            self.refused(),
        ))
    }

    /// Answers CAs on a listener (the broker's) until the result is dropped. Returns at once.
    ///
    /// # Errors
    /// The runtime cannot take the listener.
    pub fn serve_challenges(&self, listener: StdTcpListener, answers: Answers) -> io::Result<HttpListener> {
        let _its_runtime = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        // who is turned away here has nothing to do with the endpoints
        let refused = Arc::default();
        Ok(http::serve(
            listener,
            challenges::router(answers),
            challenges::limits(),
            refused,
        ))
    }

    /// Ends every endpoint and the thread, and waits for it, at most a second.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        match self.done.recv_timeout(END) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if thread.join().is_err() {
                    tracing::error!(event = "admin_panicked", "the admin thread panicked");
                }
            }
            // the process ends without it
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(event = "admin_stuck", "the admin thread does not stop");
            }
        }
    }

    /// Makes the metrics of the moment in which it is called, for whoever exports them.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn metrics_source(&self) -> Arc<dyn Fn() -> Parts + Send + Sync> {
        let context = self.context.clone();
        Arc::new(move || Parts::new(context.scrape()))
    }

    /// Runs something on the thread.
    #[cfg(test)]
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    fn refused(&self) -> Arc<AtomicU64> {
        Arc::clone(self.context.refused())
    }
}

/// Samples the counters of everything at the end of each step.
async fn sample(context: ApiContext) {
    let begun = context.now().started;
    let mut ends = tokio::time::interval_at((begun + trend::STEP).into(), trend::STEP);
    ends.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let end = ends.tick().await;
        let number = trend::step_at(begun, end.into());
        trend::sample(&context.now().snapshot, number, end.into());
        let packets = context.live().packet_counts().sample();
        let none = <[Times; 2]>::default;
        context.packet_trend().sample((number, end.into()), packets, none);
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        self.stop();
    }
}

//! Many servers: what 10,000 of them in 500 backends cost the control thread, checks only, by the default check.
//!
//! ```text
//! start ─► reload of one weight ─► all down at once ─► all up at once
//! ```
//! Each moment is measured twice, on two daemons. First the CPU time of the control thread, from the beginning until the
//! status line tells the end: that of the periodic checks, which go on meanwhile, is in it, and is shown as what the same
//! time costs at rest. Then the longest `status` and the longest scrape of the metrics, asked for one after the other
//! over the control socket, with 5 ms between them.
//!
//! How fast servers go down is bound by the checks: one every 2 s, every second while they fail, three failures, 256 at a
//! time.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{
        Convey, Lab,
        fleet::{Fleet, control_cpu},
    },
    table::Spread,
};

/// Backends of the fleet.
pub const BACKENDS: usize = 500;
/// Servers of all of them.
pub const SERVERS: usize = 10_000;

/// How long a moment may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Pause between two questions for the status.
const PAUSE: Duration = Duration::from_millis(5);

/// A moment in the life of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// From the beginning of the process until it is ready.
    Start,
    /// `convey reload` of a file that changes one weight.
    Reload,
    /// All servers go down.
    Down,
    /// All servers come up.
    Up,
}

/// What one moment cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Seconds from its beginning to its end.
    elapsed: f64,
    /// CPU seconds of the control thread.
    cpu: f64,
    /// Of the longest answers; `None` if none was asked for.
    longest: Option<Longest>,
}

/// Seconds of the longest answers.
#[derive(Debug, Clone, Copy, Default)]
struct Longest {
    status: f64,
    metrics: f64,
}

impl Moment {
    /// In the order in which they come.
    pub const ALL: [Self; 4] = [Self::Start, Self::Reload, Self::Down, Self::Up];

    /// Its name on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "fleet-start",
            Self::Reload => "fleet-reload",
            Self::Down => "fleet-down",
            Self::Up => "fleet-up",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload of one weight",
            Self::Down => "all down at once",
            Self::Up => "all up at once",
        }
    }
}

/// Measures these moments, each so many times, and gives the table.
pub fn measure(moments: &[Moment], cells: usize) -> String {
    let Some(last) = moments.iter().map(|moment| *moment as usize).max() else {
        return String::new();
    };
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); last + 1];
    let mut at_rest = Vec::new();
    for _ in 0..cells {
        let quiet = life(last, false, &mut at_rest);
        let asked = life(last, true, &mut at_rest);
        for (costs, (quiet, asked)) in costs.iter_mut().zip(quiet.into_iter().zip(asked)) {
            let longest = asked.longest;
            costs.push(Cost { longest, ..quiet });
        }
    }
    let at_rest = Spread::of(at_rest);
    let mut text = format!(
        "\n{SERVERS} servers in {BACKENDS} backends; the checks alone cost {at_rest} s of the control thread a second\n\n\
         | moment | seconds | control CPU, s | longest status, ms | longest scrape, ms |\n|---|---|---|---|---|\n"
    );
    for moment in moments {
        let costs = &costs[*moment as usize];
        let spread = |figure: fn(&Cost) -> f64| Spread::of(costs.iter().map(figure).collect());
        let longest = |cost: &Cost| cost.longest.unwrap_or_default();
        let longest = |figure: fn(&Longest) -> f64| {
            Spread::of(costs.iter().map(|cost| figure(&longest(cost)) * 1e3).collect())
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            moment.title(),
            spread(|cost| cost.elapsed),
            spread(|cost| cost.cpu),
            longest(|longest| longest.status),
            longest(|longest| longest.metrics),
        );
    }
    text
}

/// One daemon's life up to a moment.
fn life(last: usize, asking: bool, at_rest: &mut Vec<f64>) -> Vec<Cost> {
    let lab = Lab::new("fleet");
    let lb = lab.host("lb");
    let mut fleet = Fleet::start(&lb);
    let started = Instant::now();
    let mut convey = Convey::launch_with(&lb, &config(1), &["taskset", "-c", "1"]);
    let asker = asking.then(|| Asker::start(convey.dir().join("admin.sock")));
    convey.wait_ready();
    let start = Cost {
        elapsed: started.elapsed().as_secs_f64(),
        cpu: control_cpu(convey.pid()).as_secs_f64(),
        longest: asker.map(Asker::longest),
    };
    let mut costs = vec![start];
    eprintln!("  {:<18} {start:?}", Moment::Start.label());
    for moment in &Moment::ALL[1..=last] {
        thread::sleep(Duration::from_secs(3));
        if !asking {
            at_rest.push(rest(&convey));
        }
        let asker = asking.then(|| Asker::start(convey.dir().join("admin.sock")));
        let (before, started) = (control_cpu(convey.pid()), Instant::now());
        match moment {
            Moment::Start => {}
            Moment::Reload => convey.reload(&config(2)),
            Moment::Down => {
                fleet.down();
                wait_said(&convey, &format!(" 0 of {SERVERS} "));
            }
            Moment::Up => {
                fleet.up();
                wait_said(&convey, &format!(" {SERVERS} of {SERVERS} "));
            }
        }
        let cost = Cost {
            elapsed: started.elapsed().as_secs_f64(),
            cpu: (control_cpu(convey.pid()) - before).as_secs_f64(),
            longest: asker.map(Asker::longest),
        };
        eprintln!("  {:<18} {cost:?}", moment.label());
        costs.push(cost);
    }
    costs
}

/// Share of a CPU that the control thread uses while nothing changes.
fn rest(convey: &Convey) -> f64 {
    let (before, started) = (control_cpu(convey.pid()), Instant::now());
    thread::sleep(Duration::from_secs(2));
    (control_cpu(convey.pid()) - before).as_secs_f64() / started.elapsed().as_secs_f64()
}

/// Waits until the status line has these words, without asking the daemon.
fn wait_said(convey: &Convey, words: &str) {
    let started = Instant::now();
    loop {
        let said = convey.notify().assignments();
        let last = said.iter().rev().find(|line| line.starts_with("STATUS="));
        if last.is_some_and(|line| line.contains(words)) {
            return;
        }
        assert!(
            started.elapsed() < LIMIT,
            "the status line is {last:?}, not{words}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// All of them, one with this weight.
pub fn config(weight: u16) -> String {
    let mut text = "[global]\nworkers = 1\nwatch_config = false\n".to_owned();
    for backend in 0..BACKENDS {
        let _ = write!(
            text,
            "[frontends.f{backend}]\nlisten_addr = \"127.0.0.1:{}\"\nbackend = \"b{backend}\"\n\
             [backends.b{backend}]\n",
            10_000 + backend
        );
        for server in 0..SERVERS / BACKENDS {
            let weight = if (backend, server) == (7, 7) { weight } else { 1 };
            let addr = Fleet::addr(backend * (SERVERS / BACKENDS) + server);
            let _ = writeln!(
                text,
                "servers.s{server} = {{ addr = \"{addr}\", weight = {weight} }}"
            );
        }
    }
    text
}

/// Asks for the status and the metrics again and again.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Longest>,
}

impl Asker {
    fn start(socket: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut longest = Longest::default();
            // one more after the end: what is asked for until then has an answer
            loop {
                let is_last = stopped.load(Ordering::Relaxed);
                for (path, longest) in [
                    ("/v1/status", &mut longest.status),
                    ("/metrics", &mut longest.metrics),
                ] {
                    *longest = longest.max(ask(&socket, path).unwrap_or(0.0));
                }
                if is_last {
                    return longest;
                }
                thread::sleep(PAUSE);
            }
        });
        Self { stop, thread }
    }

    /// Ends it; the longest times from a question to the end of its answer.
    fn longest(self) -> Longest {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the asking thread")
    }
}

/// Seconds until the whole answer; `None` while nothing listens yet.
fn ask(socket: &PathBuf, path: &str) -> Option<f64> {
    let started = Instant::now();
    let mut stream = UnixStream::connect(socket).ok()?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: convey\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).expect("a question");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let head = String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Some(started.elapsed().as_secs_f64())
}

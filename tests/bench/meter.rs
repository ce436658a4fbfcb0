//! Busy time of a CPU, as elapsed less idle.
//!
//! The idle column of /proc/stat is the time that the tickless idle loop measured (`get_cpu_idle_time_us` in
//! kernel/time/tick-sched.c), so it is exact although the file shows it in ticks of 10 ms; the busy columns are sampled
//! by the timer tick and miss most softirqs. [`calibrate`] checks that this holds here.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::rig::{LB_CPU, pin_to};

/// A moment from which busy time is counted.
pub struct Meter {
    start: Instant,
    idle: f64,
    rx: [u64; 2],
}

/// What happened since.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Seconds since the start.
    pub elapsed: f64,
    /// Seconds in which the load balancer's CPU was not idle.
    pub busy: f64,
    /// Receive softirqs on CPU 0 and 1.
    pub rx: [u64; 2],
}

impl Meter {
    /// Starts to count.
    pub fn start() -> Self {
        Self {
            idle: idle(LB_CPU),
            rx: receive_softirqs(),
            start: Instant::now(),
        }
    }

    /// Reads without stopping.
    pub fn read(&self) -> Reading {
        let elapsed = self.start.elapsed().as_secs_f64();
        let rx = receive_softirqs();
        Reading {
            elapsed,
            busy: (elapsed - (idle(LB_CPU) - self.idle)).max(0.0),
            rx: [rx[0] - self.rx[0], rx[1] - self.rx[1]],
        }
    }
}

/// Busy share of the load balancer's CPU that counts as rest.
const REST: f64 = 0.05;

/// Whether the load balancer's CPU has nothing to do just now.
pub fn is_at_rest() -> bool {
    let meter = Meter::start();
    thread::sleep(Duration::from_millis(300));
    let reading = meter.read();
    reading.busy / reading.elapsed < REST
}

/// Waits for rest, for a minute at most.
pub fn wait_for_rest() {
    let start = Instant::now();
    while !is_at_rest() && start.elapsed() < Duration::from_secs(60) {}
}

/// Burns a known share of the load balancer's CPU in slices shorter than a tick and says what the meter saw.
pub fn calibrate() -> String {
    let at_rest = Meter::start();
    thread::sleep(Duration::from_secs(1));
    let at_rest = at_rest.read();
    let meter = Meter::start();
    let burned = thread::spawn(burn).join().expect("the burning thread");
    let reading = meter.read();
    format!(
        "meter: {:.0} ms burned in slices of 1 ms, {:.0} ms seen; at rest CPU {LB_CPU} is busy {:.1} % of the time",
        burned * 1e3,
        reading.busy * 1e3,
        100.0 * at_rest.busy / at_rest.elapsed,
    )
}

fn burn() -> f64 {
    pin_to(LB_CPU);
    let mut burned = 0.0;
    for _ in 0..300 {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        burned += start.elapsed().as_secs_f64();
        thread::sleep(Duration::from_millis(1));
    }
    burned
}

/// Seconds that a CPU has been idle (waiting for a disk included) or taken away by the hypervisor.
fn idle(cpu: usize) -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let label = format!("cpu{cpu} ");
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix(&label))
        .expect("the CPU's line");
    let ticks: Vec<f64> = line
        .split_whitespace()
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    (ticks[3] + ticks[4] + ticks.get(7).copied().unwrap_or(0.0)) / 100.0
}

fn receive_softirqs() -> [u64; 2] {
    let table = fs::read_to_string("/proc/softirqs").expect("/proc/softirqs");
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("NET_RX:"))
        .expect("NET_RX");
    let mut counts = line.split_whitespace().filter_map(|count| count.parse().ok());
    [counts.next().expect("CPU 0"), counts.next().expect("CPU 1")]
}

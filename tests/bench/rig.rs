//! The measured network: a client, a load balancer, two servers, and which CPU does whose work.

use std::path::Path;

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::lab::{Host, Lab, Nginx, is_installed};

/// Clients, servers, and the packets that they receive.
pub const LOAD_CPU: usize = 0;

/// The load balancer, and the packets that it receives.
pub const LB_CPU: usize = 1;

/// A client, a load balancer (to be started) and two web servers.
pub struct Rig {
    /// Web servers.
    pub webs: [Nginx; 2],
    /// Source of all load.
    pub client: Host,
    /// Where the measured program runs.
    pub lb: Host,
    lab: Lab,
}

impl Rig {
    /// Lays it out. On veth a packet is received on its sender's CPU unless receive packet steering (RPS) moves it.
    pub fn new() -> Self {
        let lab = Lab::new("bench");
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let webs = ["a", "b"].map(|name| lab.nginx(name, "ok"));
        steer_of(&lb, LB_CPU);
        for host in [&client, webs[0].host(), webs[1].host()] {
            steer_of(host, LOAD_CPU);
        }
        Self {
            webs,
            client,
            lb,
            lab,
        }
    }

    /// A further host of the load.
    pub fn another(&self, name: &str) -> Host {
        let host = self.lab.host(name);
        steer_of(&host, LOAD_CPU);
        host
    }
}

impl Rig {
    /// A cable between two hosts.
    pub fn cable(&self, one: (&Host, &str), other: (&Host, &str)) {
        self.lab.cable(one, other);
    }
}

/// Why nothing can be measured here.
pub fn why_not() -> Option<String> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Some("two CPUs are needed".to_owned());
    }
    let missing: Vec<&str> = ["haproxy", "taskset", "openssl"]
        .into_iter()
        .filter(|tool| !is_installed(tool))
        .collect();
    if !missing.is_empty() {
        return Some(format!(
            "not installed: {} (apt-get install haproxy openssl)",
            missing.join(", ")
        ));
    }
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    (!Path::new(module).exists()).then(|| "not installed: libnginx-mod-stream".to_owned())
}

/// Moves this process, and all it will start, to the load's CPU.
pub fn pin_to_load_cpu() {
    pin_to(LOAD_CPU);
}

/// Moves the calling thread to one CPU.
pub fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pin to a CPU");
}

/// Has the packets that a host receives processed by one CPU, and those that it sends by the load's.
fn steer_of(host: &Host, cpu: usize) {
    steer(host.namespace(), "eth0", cpu);
    let own = format!("-{}", host.name());
    let switch = host
        .namespace()
        .strip_suffix(&own)
        .expect("a namespace of the lab");
    steer(
        &format!("{switch}-switch"),
        &format!("p{}", host.index()),
        LOAD_CPU,
    );
}

/// Has the packets that arrive at an interface processed by one CPU.
fn steer(namespace: &str, interface: &str, cpu: usize) {
    let mask = format!("{:x}", 1 << cpu);
    // /sys shows the interfaces of the namespace that mounted it; `ip netns exec` mounts it anew
    let script = format!(
        "for queue in /sys/class/net/{interface}/queues/rx-*; do echo {mask} > $queue/rps_cpus && cat $queue/rps_cpus; done"
    );
    let output = std::process::Command::new("ip")
        .args(["netns", "exec", namespace, "sh", "-ec", &script])
        .output()
        .expect("ip netns exec");
    let set = String::from_utf8_lossy(&output.stdout);
    let steered =
        output.status.success() && set.lines().count() > 0 && set.lines().all(|line| line.trim() == mask);
    assert!(steered, "RPS of {interface} in {namespace}: {output:?}");
}

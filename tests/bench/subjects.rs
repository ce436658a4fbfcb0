//! What is measured: Convey and its peers, configured alike.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use nix::unistd::Pid;

use crate::{
    lab::{Convey, Process, kernel::KernelBalancer, process, wait_until},
    packets,
    rig::Rig,
};

/// Where the bulk servers listen behind every load balancer.
pub const BULK_PORT: u16 = 5201;

/// A load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Ours.
    Convey,
    /// Debian's haproxy, `mode tcp`.
    Haproxy,
    /// The same, made to splice always.
    HaproxySplice,
    /// Debian's nginx, stream module.
    Nginx,
    /// Ours in passthrough mode.
    Passthrough,
    /// Ours in DSR mode.
    Dsr,
    /// Ours in passthrough mode by engine xdp.
    XdpPassthrough,
    /// Ours in DSR mode by engine xdp.
    XdpDsr,
    /// The kernel: nftables with connection tracking, both addresses rewritten.
    NftNat,
    /// The kernel: nftables without state, the destination alone rewritten.
    NftStateless,
    /// Nobody: straight to the server.
    Direct,
    /// Another build of ours: the binary that `CONVEY_EARLIER` names.
    Earlier,
    /// The same in passthrough mode.
    EarlierPassthrough,
    /// The same in DSR mode.
    EarlierDsr,
}

/// Becomes the binary that `CONVEY_EARLIER` names in the place of the one that is its first argument.
const EARLIER: [&str; 4] = [
    "sh",
    "-c",
    "shift; exec taskset -c 1 \"$CONVEY_EARLIER\" \"$@\"",
    "earlier",
];

/// One job, as each of them is told of it.
pub struct Configs {
    /// The port that is open once the load balancer is ready.
    pub port: u16,
    /// For Convey.
    pub convey: String,
    /// For HAProxy.
    pub haproxy: String,
    /// For nginx.
    pub nginx: String,
}

/// A running load balancer: port 80 to the web servers, [`BULK_PORT`] to the first server's. Ends when dropped.
pub enum Running {
    /// Ours.
    Convey(Convey),
    /// Another.
    Peer(Process),
    /// The kernel's rules.
    Kernel {
        /// In force until dropped.
        _rules: KernelBalancer,
    },
    /// Nobody.
    Nobody,
}

impl Running {
    /// Memory of its own, in bytes.
    pub fn private_memory(&self) -> u64 {
        process::private_memory(self.pid())
    }

    fn pid(&self) -> Pid {
        match self {
            Self::Convey(convey) => convey.pid(),
            Self::Peer(process) => process.pid(),
            Self::Kernel { .. } | Self::Nobody => panic!("the kernel is no process"),
        }
    }
}

impl Subject {
    /// What Convey is compared with.
    pub const PEERS: [Self; 6] = [
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Nginx,
        Self::NftNat,
        Self::NftStateless,
        Self::Direct,
    ];

    /// Whether it forwards packets instead of relaying connections.
    pub const fn is_of_packets(self) -> bool {
        matches!(
            self,
            Self::Passthrough
                | Self::Dsr
                | Self::XdpPassthrough
                | Self::XdpDsr
                | Self::NftNat
                | Self::NftStateless
                | Self::Direct
                | Self::EarlierPassthrough
                | Self::EarlierDsr
        )
    }

    /// Its name in the table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Convey => "convey",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::Passthrough => "passthrough",
            Self::Dsr => "dsr",
            Self::XdpPassthrough => "xdp-passthrough",
            Self::XdpDsr => "xdp-dsr",
            Self::NftNat => "nft-nat",
            Self::NftStateless => "nft-stateless",
            Self::Direct => "direct",
            Self::Earlier => "earlier",
            Self::EarlierPassthrough => "earlier-passthrough",
            Self::EarlierDsr => "earlier-dsr",
        }
    }

    /// By its label.
    pub fn parse(label: &str) -> Result<Self, String> {
        let all = [
            Self::Convey,
            Self::Haproxy,
            Self::HaproxySplice,
            Self::Nginx,
            Self::Passthrough,
            Self::Dsr,
            Self::XdpPassthrough,
            Self::XdpDsr,
            Self::NftNat,
            Self::NftStateless,
            Self::Direct,
            Self::Earlier,
            Self::EarlierPassthrough,
            Self::EarlierDsr,
        ];
        let labels = all.map(Self::label).join(", ");
        all.into_iter()
            .find(|subject| subject.label() == label)
            .ok_or_else(|| format!("{label}: not one of {labels}"))
    }

    /// What starts it: the usual launcher, or one for another build.
    const fn launcher<'a>(self, usual: &'a [&'a str]) -> &'a [&'a str] {
        match self {
            Self::Earlier | Self::EarlierPassthrough | Self::EarlierDsr => &EARLIER,
            _ => usual,
        }
    }

    /// Starts it on the load balancer's CPU with one thread, with or without an access log, and waits for its port.
    pub fn start(self, rig: &Rig, log: bool) -> Running {
        let configs = Configs {
            port: 80,
            convey: convey_config(rig, log),
            haproxy: haproxy_config(rig, log, self == Self::HaproxySplice),
            nginx: nginx_config(rig, log),
        };
        self.start_with(rig, &configs)
    }

    /// As [`start`](Self::start), for another job than the usual one; what forwards packets knows only that.
    pub fn start_with(self, rig: &Rig, configs: &Configs) -> Running {
        let taskset = ["taskset", "-c", "1"];
        let start_peer = |file: &str, config: &str, program: &[&str]| {
            let addr = rig.lb.addr(configs.port);
            Running::Peer(peer(rig, addr, (file, config), program, &taskset))
        };
        match self {
            Self::Convey | Self::Earlier => {
                let launcher = self.launcher(&taskset);
                let mut convey = Convey::launch_with(&rig.lb, &configs.convey, launcher);
                convey.wait_ready();
                Running::Convey(convey)
            }
            Self::Haproxy | Self::HaproxySplice => {
                start_peer("haproxy.cfg", &configs.haproxy, &["haproxy", "-db", "-f"])
            }
            _ if self.is_of_packets() => packets::start(self, rig, self.launcher(&taskset)),
            _ => start_peer("nginx-lb.conf", &configs.nginx, &["nginx", "-e", "stderr", "-c"]),
        }
    }
}

/// Starts `program FILE` where FILE holds `config`, and waits for its address.
fn peer(
    rig: &Rig,
    addr: SocketAddr,
    (file, config): (&str, &str),
    program: &[&str],
    launcher: &[&str],
) -> Process {
    let path = rig.lb.path(file);
    fs::write(&path, config).expect("the peer's configuration");
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).args(program).arg(&path);
    let mut process = rig.lb.spawn(command);
    wait_until("the peer listens", Duration::from_secs(10), || {
        if let Some(status) = process.ended() {
            panic!(
                "{} ended with {status}\n{}{}",
                program[0],
                process.stdout(),
                process.stderr()
            );
        }
        rig.client.inside(|| TcpStream::connect(addr).is_ok())
    });
    process
}

/// What every configuration of ours begins with.
pub fn convey_globals(log: bool) -> String {
    // as much as the peers log; left out where nothing is logged, for builds that do not know it
    let rate = if log {
        "access_log_per_second = 1_000_000\n"
    } else {
        ""
    };
    format!("[global]\nworkers = 1\n{rate}watch_config = false\n")
}

fn convey_config(rig: &Rig, log: bool) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let (web, bulk, target) = (
        rig.lb.addr(80),
        rig.lb.addr(BULK_PORT),
        rig.webs[0].host().addr(BULK_PORT),
    );
    let globals = convey_globals(log);
    format!(
        r#"{globals}
[frontends.web]
listen_addr = "{web}"
backend = "web"
access_log = {log}

[frontends.bulk]
listen_addr = "{bulk}"
backend = "bulk"
access_log = {log}

[backends.web]
health_check = {{ enabled = false }}
servers.a = {{ addr = "{a}" }}
servers.b = {{ addr = "{b}" }}

[backends.bulk]
health_check = {{ enabled = false }}
servers.a = {{ addr = "{target}" }}
"#
    )
}

/// Time-outs as Convey's defaults; the log goes to a file, as Convey's does.
pub fn haproxy_globals(log: bool, splice: bool) -> String {
    let (to, logging) = if log {
        ("log stdout format raw local0", "log global\n  option tcplog")
    } else {
        ("", "")
    };
    // splicing reserves descriptors for pipes, and the limit here is 20,000
    let (splicing, connections) = if splice {
        ("option splice-request\n  option splice-response", 4000)
    } else {
        ("", 9500)
    };
    format!(
        "global
  nbthread 1
  maxconn {connections}
  {to}
defaults
  mode tcp
  balance roundrobin
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  {logging}
  {splicing}
"
    )
}

fn haproxy_config(rig: &Rig, log: bool, splice: bool) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let (web, bulk, target) = (
        rig.lb.addr(80),
        rig.lb.addr(BULK_PORT),
        rig.webs[0].host().addr(BULK_PORT),
    );
    let globals = haproxy_globals(log, splice);
    format!(
        "{globals}frontend web
  bind {web} backlog 4096
  default_backend web
backend web
  server a {a}
  server b {b}
frontend bulk
  bind {bulk} backlog 4096
  default_backend bulk
backend bulk
  server a {target}
"
    )
}

/// What every configuration of nginx begins with.
pub fn nginx_globals(pid: &Path) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {};
events {{ worker_connections 19900; }}
",
        pid.display()
    )
}

fn nginx_config(rig: &Rig, log: bool) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let (web, bulk, target) = (
        rig.lb.addr(80),
        rig.lb.addr(BULK_PORT),
        rig.webs[0].host().addr(BULK_PORT),
    );
    let globals = nginx_globals(&rig.lb.path("nginx-lb.pid"));
    let logging = if log {
        let file = rig.lb.path("nginx-lb.log");
        format!(
            "log_format tcp '$remote_addr:$remote_port [$time_local] $status $bytes_sent $bytes_received \
             $session_time $upstream_addr $upstream_connect_time'; access_log {} tcp;",
            file.display()
        )
    } else {
        "access_log off;".to_owned()
    };
    format!(
        "{globals}stream {{
  {logging}
  upstream web {{ server {a}; server {b}; }}
  server {{ listen {web} backlog=4096; proxy_pass web; proxy_timeout 10m; proxy_connect_timeout 5s; }}
  server {{ listen {bulk} backlog=4096; proxy_pass {target}; proxy_timeout 10m; proxy_connect_timeout 5s; }}
}}
"
    )
}

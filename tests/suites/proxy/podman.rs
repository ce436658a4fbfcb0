//! Containers that podman runs are servers, by the API of Docker that it has. On demand: it needs podman, crun, netavark and a
//! busybox that needs no libraries.

use std::{collections::BTreeMap, path::PathBuf};

use convey::base::ServerAddr;

use crate::{
    Test,
    discovery::discovered,
    lab::{Convey, Host, Lab, PATIENCE, Process, wait_until},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![containers_of_podman_are_servers_as_long_as_they_run];

/// podman, with everything of its own in a directory, and no control groups of this machine.
struct Podman {
    host: Host,
    socket: PathBuf,
    _service: Process,
}

impl Podman {
    fn start(host: &Host) -> Self {
        let socket = host.path("podman.sock");
        let dir = host.path("podman");
        // the mounts are seen by the service and its containers alone
        let service = host.start(&format!(
            "mkdir -p {dir}/net && exec unshare --mount --propagation private sh -c 'mount -t tmpfs none /sys/fs/cgroup && \
             mount -t cgroup2 none /sys/fs/cgroup && umask 0 && exec podman --root {dir}/store --runroot {dir}/run \
             --tmpdir {dir}/tmp --storage-driver vfs --cgroup-manager cgroupfs --network-config-dir {dir}/net --runtime crun \
             --events-backend file system service -t 0 unix://{}'",
            socket.display(),
            dir = dir.display()
        ));
        let podman = Self {
            host: host.clone(),
            socket,
            _service: service,
        };
        wait_until("podman listens", PATIENCE, || podman.try_ask("version").is_some());
        podman.host.run(&format!("chmod 666 {}", podman.socket.display()));
        podman
    }

    fn try_ask(&self, what: &str) -> Option<String> {
        let asked = self
            .host
            .try_run(&format!("podman --url unix://{} {what}", self.socket.display()));
        asked.status.success().then_some(asked.stdout)
    }

    #[track_caller]
    fn ask(&self, what: &str) -> String {
        self.host
            .run(&format!("podman --url unix://{} {what}", self.socket.display()))
    }

    /// An image that has nothing but busybox.
    fn import(&self) {
        let image = self.host.path("image");
        self.host.run(&format!(
            "mkdir -p {image}/bin && cp /bin/busybox {image}/bin && tar -C {image} -cf {image}.tar . && \
             podman --url unix://{} import {image}.tar lab",
            self.socket.display(),
            image = image.display()
        ));
    }

    /// Runs a container that listens on port 80.
    fn run(&self, name: &str, more: &str) {
        self.ask(&format!(
            "run --detach --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --name {name} {more} lab \
             /bin/busybox httpd -f -p 80"
        ));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.try_ask("rm --all --force --time 0");
    }
}

fn servers(convey: &Convey) -> BTreeMap<String, ServerAddr> {
    let status = convey.status();
    let eligible = status.backends["web"]
        .servers
        .iter()
        .filter(|(_, server)| server.eligible);
    eligible
        .map(|(name, server)| (name.to_string(), server.addr))
        .collect()
}

fn containers_of_podman_are_servers_as_long_as_they_run() {
    let lab = Lab::new("podman");
    let lb = lab.host("lb");
    lb.run("ip link set lo up");
    let podman = Podman::start(&lb);
    podman.import();
    podman.run("web-a", "--label role=web --label convey.weight=3");
    podman.run("db", "--label role=db");
    let settings = |more: &str| {
        let settings = format!(
            "kind = \"docker\"\nurl = \"unix:{}\"\nlabels = \"role=web\"\nport = 80\ninterval = \"1h\"\nmax_removal = \"100%\"\n{more}",
            podman.socket.display()
        );
        discovered(&lb, &settings)
    };
    let convey = lab.convey(&lb, &settings("network = \"podman\""));
    let names = |convey: &Convey| servers(convey).into_keys().collect::<Vec<_>>();
    wait_until("the container is a server", PATIENCE, || {
        names(&convey) == ["web-a"]
    });
    let addr = podman.ask("inspect --format '{{.NetworkSettings.IPAddress}}' web-a");
    assert_eq!(
        servers(&convey)["web-a"].to_string(),
        format!("{}:80", addr.trim())
    );
    assert_eq!(convey.server("web", "web-a").weight, 3);

    // it is asked once an hour, and told of each of these
    podman.run("web-b", "--label role=web --publish 8080:80");
    wait_until("another has come", PATIENCE, || {
        names(&convey) == ["web-a", "web-b"]
    });
    podman.ask("stop --time 0 web-a");
    wait_until("it has gone", PATIENCE, || names(&convey) == ["web-b"]);
    podman.ask("start web-a");
    wait_until("it is back", PATIENCE, || names(&convey) == ["web-a", "web-b"]);

    // where their port is published: at this host, which has to be let in
    convey.reload(&settings("servers_within = \"127.0.0.0/8\""));
    let says = "left out container web-a: it does not publish its port 80";
    wait_until(says, PATIENCE, || convey.stderr().contains(says));
    let published = convey.status().backends["web"].servers["web-b"].addr;
    assert_eq!(published.to_string(), "127.0.0.1:8080");
}

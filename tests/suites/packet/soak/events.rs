//! What happens to the load balancer and around it.

use std::{thread, time::Instant};

use super::{
    WITNESS,
    clients::{Clients, Outcome, is_vip},
    config,
    mortal::Mortal,
    random::Random,
};
use crate::{
    lab::{
        Convey, Family, Host, PATIENCE,
        forge::{ACK, Forger, RST},
        wait_until,
    },
    networks::Behind,
    site::backend_name,
};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Another configuration.
    Reload,
    /// A server is drained, under maintenance, or ready again.
    Override,
    /// This server died, and came back.
    Death(String),
    /// Somebody flushed the firewall rules.
    Flush,
    /// The router got another link address.
    Gateway,
    /// Somebody forged segments of live connections.
    Forgery,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Done {
    kind: Kind,
    from: Instant,
    until: Instant,
}

impl Done {
    /// How many kinds there are.
    pub const KINDS: usize = 6;

    /// What it was.
    pub fn label(&self) -> &'static str {
        match self.kind {
            Kind::Reload => "reload",
            Kind::Override => "override",
            Kind::Death(_) => "death",
            Kind::Flush => "flush",
            Kind::Gateway => "gateway",
            Kind::Forgery => "forgery",
        }
    }

    /// Whether a connection may have failed for it: those of a server that died, and those of packet modes while the kernel's
    /// own stack saw their packets. Nothing else breaks any.
    pub fn explains(&self, outcome: &Outcome) -> bool {
        // all was well before it ended, and was seen to be no longer after it had begun
        let is_then = outcome.from <= self.until && self.from <= outcome.until;
        is_then
            && match &self.kind {
                Kind::Death(server) => outcome.server.as_ref().is_none_or(|of| of == server),
                Kind::Flush => is_vip(outcome.to.ip()),
                Kind::Reload | Kind::Override | Kind::Gateway | Kind::Forgery => false,
            }
    }
}

/// Does one thing after the other.
pub struct Events<'a> {
    behind: &'a Behind,
    convey: &'a Convey,
    stranger: Host,
    overridden: Option<String>,
    /// In order.
    pub done: Vec<Done>,
}

impl<'a> Events<'a> {
    /// Nothing yet.
    pub fn new(behind: &'a Behind, convey: &'a Convey) -> Self {
        Self {
            behind,
            convey,
            stranger: behind.site.lab.host("stranger"),
            overridden: None,
            done: Vec::new(),
        }
    }

    /// The next one, after a pause.
    pub fn next(&mut self, random: &mut Random, mortals: &mut [Mortal], clients: &Clients) {
        thread::sleep(random.pause(500));
        let from = Instant::now();
        let kind = match random.below(24) {
            0..=8 => self.reload(random),
            9..=12 => self.override_one(random, mortals),
            13 => self.death(random.below(mortals.len()), random, mortals),
            14 => self.flush(),
            15..=18 => self.gateway(random),
            _ => self.forge(random, clients),
        };
        let until = Instant::now();
        self.done.push(Done { kind, from, until });
    }

    /// What was done within some seconds of a connection's end, in seconds from then.
    pub fn around(&self, outcome: &Outcome, start: Instant) -> String {
        let at = |moment: Instant| moment.duration_since(start).as_secs_f64();
        let (from, until) = (at(outcome.from), at(outcome.until));
        let near = self
            .done
            .iter()
            .filter(|done| at(done.until) > from - 4.0 && at(done.from) < until + 1.0);
        let lines = near.map(|done| {
            let (begun, over) = (at(done.from) - until, at(done.until) - until);
            format!("{:?} from {begun:.3} to {over:.3}", done.kind)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Everything is as it was at the start.
    pub fn calm(&mut self, mortals: &mut [Mortal]) {
        self.clear_override();
        self.convey.reload(&config(self.behind, 1, false));
        for mortal in mortals {
            self.wait_up(mortal.name());
        }
    }

    fn reload(&self, random: &mut Random) -> Kind {
        let weight = 1 + random.below(4) as u32;
        self.convey
            .reload(&config(self.behind, weight, random.below(2) == 0));
        Kind::Reload
    }

    fn override_one(&mut self, random: &mut Random, mortals: &[Mortal]) -> Kind {
        if self.overridden.is_some() {
            self.clear_override();
            return Kind::Override;
        }
        let server = random.one_of(mortals).name().to_owned();
        let what = *random.one_of(&["drain", "maintenance"]);
        self.order(what, &server);
        self.overridden = Some(server);
        Kind::Override
    }

    fn clear_override(&mut self) {
        if let Some(server) = self.overridden.take() {
            self.order("ready", &server);
            self.wait_up(&server);
        }
    }

    fn order(&self, what: &str, server: &str) {
        for family in Family::ALL {
            let backend = backend_name(WITNESS.name, family);
            self.convey.order(&format!("server {what} {backend}/{server}"));
        }
    }

    fn death(&mut self, number: usize, random: &mut Random, mortals: &mut [Mortal]) -> Kind {
        // one that is out of service anyway is not missed; that it is up again could not be seen
        self.clear_override();
        let mortal = &mut mortals[number];
        mortal.kill();
        thread::sleep(random.pause(2_000));
        mortal.revive();
        self.wait_up(mortal.name());
        Kind::Death(mortal.name().to_owned())
    }

    fn wait_up(&self, server: &str) {
        self.convey.wait_status(&format!("{server} is up"), |status| {
            Family::ALL.iter().all(|family| {
                let backend = &status.backends[backend_name(WITNESS.name, *family).as_str()];
                backend.servers[server].eligible
            })
        });
    }

    fn flush(&self) -> Kind {
        self.behind.site.lb.run("nft flush ruleset");
        // those of both families: the status may count one of them earlier
        wait_until("the rules are there again", PATIENCE, || {
            self.convey.tool("firewall show").status.success()
        });
        Kind::Flush
    }

    fn gateway(&self, random: &mut Random) -> Kind {
        let [a, b, c, d, ..] = random.next().to_be_bytes();
        // it says so itself: gratuitous ARP, unsolicited neighbour advertisement
        self.behind.routers[0].run(&format!(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify
             echo 1 > /proc/sys/net/ipv6/conf/eth0/ndisc_notify
             ip link set eth0 address 02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"
        ));
        Kind::Gateway
    }

    fn forge(&self, random: &mut Random, clients: &Clients) -> Kind {
        let forger = Forger::new(&self.stranger);
        for (from, to) in clients.live() {
            for flags in [RST, ACK, RST | ACK] {
                let (sequence, acknowledged) = (random.next() as u32, random.next() as u32);
                forger.tcp(from, to, flags, sequence, acknowledged);
            }
        }
        Kind::Forgery
    }
}

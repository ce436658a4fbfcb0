//! Conversations by TCP and UDP through the load balancer, as hosts hold them, and as forgers and bad networks disturb them.

use std::net::SocketAddr;

use convey::{base::PacketReason, flow::Verdict, packet::parse};

use crate::{
    conversation::{Segment, Talk},
    dice::Dice,
    differential::Traffic,
    engine::Outcome,
    words::Wrong,
    world::Worlds,
};

/// Where clients send to, by protocol, and who they are.
pub struct Scene {
    pub clients: &'static [&'static str],
    pub ports: &'static [u16],
    pub tcp: &'static [&'static str],
    pub udp: &'static [&'static str],
    /// Conversations at a time.
    pub talks: usize,
}

/// See the [module](self).
pub struct Talks {
    scene: &'static Scene,
    all: Vec<Talk>,
    last: Option<Said>,
}

/// What was said last: whose it was, and whether the other side may hear it.
struct Said {
    talk: usize,
    segment: Segment,
    is_heard: bool,
}

impl Talks {
    pub fn new(scene: &'static Scene) -> Self {
        Self {
            scene,
            all: Vec::new(),
            last: None,
        }
    }

    fn begin(&self, dice: &mut Dice) -> Talk {
        let scene = self.scene;
        loop {
            let is_tcp = !dice.is_one_in(4);
            let client = dice.one_of(scene.clients);
            let vip = dice.one_of(if is_tcp { scene.tcp } else { scene.udp });
            if client.contains(':') != vip.starts_with('[') {
                continue;
            }
            let port = dice.one_of(scene.ports);
            let client = SocketAddr::new(client.parse().expect("an address"), port);
            let vip = vip.parse().expect("an address and port");
            if self.all.iter().all(|other| other.tuple() != (client, vip)) {
                return Talk::new(client, vip, is_tcp, dice);
            }
        }
    }
}

impl Traffic for Talks {
    fn next(&mut self, worlds: &Worlds, dice: &mut Dice) -> Result<Option<(String, String)>, Wrong> {
        let mut index = dice.roll(self.scene.talks as u64) as usize;
        if index >= self.all.len() {
            index = self.all.len();
            let talk = self.begin(dice);
            self.all.push(talk);
        } else if dice.is_one_in(60) {
            // its hosts are gone, and nobody says so
            self.all[index] = self.begin(dice);
        }
        let talk = &mut self.all[index];
        if dice.is_one_in(60) {
            talk.turn(dice);
        }
        self.last = None;
        if dice.is_one_in(60)
            && let Some(packet) = talk.error(worlds, dice)
        {
            return Ok(Some(packet));
        }
        let (segment, is_honest) = talk.say(dice);
        if is_honest && dice.is_one_in(20) {
            return Ok(None);
        }
        let packet = talk.packet(worlds, &segment, is_honest, dice);
        self.last = Some(Said {
            talk: index,
            segment,
            is_heard: is_honest && !dice.is_one_in(20),
        });
        Ok(Some(packet))
    }

    fn became(&mut self, outcome: &Outcome) {
        let Some(said) = self.last.take() else { return };
        let talk = &mut self.all[said.talk];
        let reason = match outcome.verdict {
            Verdict::Send { reason, .. } => reason,
            Verdict::Done(_) if !outcome.answers.is_empty() && said.is_heard => {
                talk.is_reset();
                return;
            }
            _ => return,
        };
        if reason == PacketReason::ToServer
            && let Ok(parsed) = parse(&outcome.frame)
            && let Some((_, nat, server)) = parsed.tuple()
        {
            talk.goes_by(server, nat);
        }
        if said.is_heard {
            talk.hear(&said.segment);
        }
    }
}

//! Taking over what an engine before this one has left in the maps and in the registry.
//!
//! That engine may have ended anywhere: with a number noted and not written, a target half written, a flow without its other
//! direction, a counter that was not counted. So nothing is taken for whole that does not say so: what the maps hold is read
//! from the maps, what the numbers in them mean from the registry, which is written first, and how many flows there are from the
//! flows, by the first scan.

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Keeper, held::Held};
use crate::{
    engine::xdp::{
        accounts::{Accounts, Reading},
        layout::{CLAIMS_FLOWS, TargetValue, TrafficValue},
        numbers::{Numbers, Record},
    },
    flow::{FlowTarget, LeftBehind, Nobody},
};

/// How long an open flow of a server is remembered that the maps do not tell it of.
const IDLE: Duration = Duration::from_secs(60);

/// What was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// Servers behind a VIP that have a number.
    pub targets: usize,
    /// Passthrough flows, as the program counts them.
    pub passthrough: u64,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { targets, passthrough } = self;
        write!(f, "{passthrough} passthrough flows, {targets} targets")
    }
}

/// What stands for a target until it is configured.
fn left_behind(record: &Record, written: Option<&TargetValue>, nobody: &Nobody) -> Arc<FlowTarget> {
    let written = written.filter(|written| written.incarnation == record.incarnation);
    let of = &record.identity;
    let of = LeftBehind {
        frontend: of.frontend.clone(),
        server: of.server.clone(),
        ip: of.ip,
        shift: of.shift,
        has_vip: of.has_vip,
        is_down: written.is_some_and(|written| written.flags.down),
        idle: written.map_or(IDLE, |written| Duration::from_millis(written.idle.into())),
    };
    FlowTarget::left_behind(of, nobody)
}

impl Keeper {
    /// Takes over what the maps hold: numbers go on to mean what they meant, and flows go on. What is configured is not known
    /// yet: nothing ends until [`apply`](Self::apply) has said that.
    ///
    /// # Errors
    /// The registry does not say what the numbers mean, or the kernel refused: the maps are to be [cleared](Self::clear).
    pub fn adopt(&mut self) -> io::Result<Adopted> {
        let noted = self.registry.read()?;
        let held = Held::read(&self.map.maps)?;
        let nobody = Nobody::new(self.worker.0 + 1);
        let target =
            |record: &Record| left_behind(record, held.contents.targets.get(&record.number), &nobody);
        let Some(mut numbers) = Numbers::taken_over(noted, target) else {
            let text = "what it has noted about its servers contradicts itself";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        numbers.known(|number, incarnation| {
            let written = held.contents.targets.get(&number);
            written.is_some_and(|written| (written.version, written.incarnation) == (0, incarnation))
        });
        let now = self.map.clock.nanoseconds(self.map.clock.now()?);
        self.accounts = self.accounts_of(&numbers)?;
        // from here on nothing can be refused
        self.forget_claims(&numbers);
        let adopted = Adopted {
            targets: numbers.iter().count(),
            passthrough: self.nat.counts().flows(),
        };
        self.moved_before = held.moved();
        self.tables.take_over(held.tables);
        (self.written, self.version) = (held.contents, held.version);
        *self.map.numbers() = numbers;
        self.taken_over = now;
        self.has_shares = true;
        self.orphans.look_now();
        self.is_to_be_scanned = true;
        self.map.may_have_flows.store(true, Ordering::Relaxed);
        self.count_live();
        Ok(adopted)
    }

    /// How far each number has been counted.
    fn accounts_of(&self, numbers: &Numbers) -> io::Result<Accounts> {
        let counted = self.registry.counted()?;
        let maps = &self.map.maps;
        let [flows, forwards] = [&maps.flows, &maps.forwards].map(|map| map.info().max_entries.into());
        let mut accounts = Accounts::default();
        let mut values = vec![0; maps.traffic.value_bytes()];
        for (number, numbered) in numbers.iter() {
            maps.traffic
                .lookup(&u32::from(number).to_ne_bytes(), &mut values)?;
            let reading = Reading {
                traffic: TrafficValue::sum(&values),
                ..Reading::of(numbered)
            };
            let most = if numbered.is_dsr { flows } else { forwards };
            accounts.take_over(number, &reading, &counted(number), most);
        }
        Ok(accounts)
    }

    /// No NAT port is claimed towards servers that have no number: whoever has it next begins at nothing.
    fn forget_claims(&self, numbers: &Numbers) {
        let claims = &self.map.maps.claims;
        // what is behind the servers' places counts flows
        for server in (1..=u16::MAX).filter(|server| u32::from(*server) < CLAIMS_FLOWS) {
            if !numbers.has_server(server) && claims.get(server.into()) != 0 {
                claims.set(server.into(), 0);
            }
        }
    }
}

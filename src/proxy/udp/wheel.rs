//! When sessions are to be looked at: a wheel of ticks (Varghese and Lauck: Hashed and Hierarchical Timing Wheels, 1987,
//! scheme 6), each a list through an array, so that what ends before its time costs nothing later.
//!
//! A datagram changes nothing here: a session is looked at when it would have ended without it, and is put where it would
//! end now.

/// Milliseconds of a clock that never goes back.
pub type Millis = u64;

/// Milliseconds of a tick: by so much later a session may end.
const TICK: Millis = 256;

/// Ticks of a turn; what is due later is looked at once a turn.
const TICKS: usize = 1_024;

const WORDS: usize = TICKS / 64;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// The tick's place; `NONE`: it is in no list.
    place: u32,
}

/// The wheel. Its members are numbers.
#[derive(Debug)]
pub struct Wheel {
    /// The first of each tick.
    first: Box<[u32]>,
    /// A bit for each tick that has one.
    occupied: [u64; WORDS],
    links: Vec<Link>,
    /// The tick up to which all is done.
    tick: u64,
    members: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            first: vec![NONE; TICKS].into_boxed_slice(),
            occupied: [0; WORDS],
            links: Vec::new(),
            tick: 0,
            members: 0,
        }
    }
}

const fn place_of(tick: u64) -> usize {
    (tick % TICKS as u64) as usize
}

impl Wheel {
    /// Enters a number that is in no list, to be [popped](Self::pop_due) when it is `due` or within a turn.
    pub fn insert(&mut self, number: u32, due: Millis, now: Millis) {
        if self.members == 0 {
            self.tick = now / TICK;
        }
        let index = number as usize;
        if self.links.len() <= index {
            let empty = Link {
                before: NONE,
                after: NONE,
                place: NONE,
            };
            self.links.resize(index + 1, empty);
        }
        let latest = self.tick + TICKS as u64 - 1;
        let tick = due.div_ceil(TICK).clamp(self.tick + 1, latest);
        let place = place_of(tick);
        let after = std::mem::replace(&mut self.first[place], number);
        self.links[index] = Link {
            before: NONE,
            after,
            place: place as u32,
        };
        if let Some(link) = self.links.get_mut(after as usize) {
            link.before = number;
        }
        self.occupied[place / 64] |= 1 << (place % 64);
        self.members += 1;
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u32) {
        let Some(link) = self.links.get_mut(number as usize) else {
            return;
        };
        let Link { before, after, place } = *link;
        if place == NONE {
            return;
        }
        link.place = NONE;
        if let Some(link) = self.links.get_mut(after as usize) {
            link.before = before;
        }
        match self.links.get_mut(before as usize) {
            Some(link) => link.after = after,
            None => self.first[place as usize] = after,
        }
        if self.first[place as usize] == NONE {
            self.occupied[place as usize / 64] &= !(1 << (place % 64));
        }
        self.members -= 1;
    }

    /// Takes out one whose tick has come.
    pub fn pop_due(&mut self, now: Millis) -> Option<u32> {
        let until = now / TICK;
        let next = self.next_tick().filter(|_| self.tick < until)?;
        // between the two nothing lies
        if next > until {
            self.tick = until;
            return None;
        }
        let number = self.first[place_of(next)];
        self.remove(number);
        let is_done = self.first[place_of(next)] == NONE;
        self.tick = if is_done { next } else { next - 1 };
        Some(number)
    }

    /// When the next tick with a number comes; `None`: there is none.
    pub fn next_due(&self) -> Option<Millis> {
        self.next_tick().map(|tick| tick * TICK)
    }

    fn next_tick(&self) -> Option<u64> {
        if self.members == 0 {
            return None;
        }
        let start = place_of(self.tick + 1);
        let found = (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })?;
        let distance = (found + TICKS - start) % TICKS;
        Some(self.tick + 1 + distance as u64)
    }
}

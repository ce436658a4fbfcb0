//! What the bytes of an input say: after the number of a world one step after another, each a byte that names it and
//! its operands. Bytes that are missing at the end are zero.

use std::time::Duration;

use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// Steps of an input at most.
const MAX_STEPS: usize = 200;

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These bytes come in.
    Frame { how: How, bytes: Vec<u8> },
    /// The server's answer to what was forwarded so many frames ago, with these TCP flags.
    Reply { back: u8, flags: u8 },
    /// What came in so many frames ago comes again, with these TCP flags and this much added to its source port.
    Again { back: u8, flags: u8, port: u8 },
    /// An ICMP error about what was forwarded so many frames ago.
    Error { back: u8, kind: u8, quoted: u8 },
    /// Time passes, and perhaps nobody looks for what has expired.
    Wait { time: Duration, does_sweep: bool },
    /// Something becomes of a server.
    Server { index: u8, state: u8 },
    /// Something becomes of a next hop.
    Hop { index: u8, state: u8 },
    /// Something becomes of an interface.
    Interface { index: u8, state: u8 },
    /// Another world's configuration is loaded.
    Config { world: u8 },
}

/// How a frame comes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// Number of the interface.
    pub interface: u8,
    /// Its checksums are not put right.
    pub is_raw: bool,
    /// Its transport checksum is still to be finished.
    pub is_unfinished: bool,
    /// It stands for several packets, with this much payload each.
    pub segment_size: u16,
}

/// The steps of an input.
pub fn steps(bytes: &[u8]) -> Vec<Step> {
    let mut rest = Unstructured::new(bytes);
    let mut steps = Vec::new();
    while !rest.is_empty() && steps.len() < MAX_STEPS {
        steps.extend(step(&mut rest).ok());
    }
    steps
}

fn step(rest: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match rest.arbitrary::<u8>()? % 10 {
        0 => {
            let flags: u8 = rest.arbitrary()?;
            let how = How {
                interface: flags & 1,
                is_raw: flags & 2 != 0,
                is_unfinished: flags & 4 != 0,
                segment_size: if flags & 8 != 0 { rest.arbitrary()? } else { 0 },
            };
            let len = usize::from(rest.arbitrary::<u16>()?).min(rest.len());
            Step::Frame {
                how,
                bytes: rest.bytes(len)?.to_vec(),
            }
        }
        1 => Step::Reply {
            back: rest.arbitrary()?,
            flags: rest.arbitrary()?,
        },
        2 => Step::Again {
            back: rest.arbitrary()?,
            flags: rest.arbitrary()?,
            port: rest.arbitrary()?,
        },
        3 => Step::Error {
            back: rest.arbitrary()?,
            kind: rest.arbitrary()?,
            quoted: rest.arbitrary()?,
        },
        which @ (4 | 5) => Step::Wait {
            time: Duration::from_millis(u64::from(rest.arbitrary::<u32>()? % 4_000_000)),
            does_sweep: which == 4,
        },
        6 => Step::Server {
            index: rest.arbitrary()?,
            state: rest.arbitrary()?,
        },
        7 => Step::Hop {
            index: rest.arbitrary()?,
            state: rest.arbitrary()?,
        },
        8 => Step::Interface {
            index: rest.arbitrary()?,
            state: rest.arbitrary()?,
        },
        _ => Step::Config {
            world: rest.arbitrary()?,
        },
    })
}

impl Step {
    /// The bytes that say this.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Frame { how, bytes } => {
                let has_segments = how.segment_size > 0;
                let flags = how.interface & 1
                    | u8::from(how.is_raw) << 1
                    | u8::from(how.is_unfinished) << 2
                    | u8::from(has_segments) << 3;
                out.extend([0, flags]);
                if has_segments {
                    out.extend(how.segment_size.to_le_bytes());
                }
                out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
                out.extend(bytes);
            }
            Self::Reply { back, flags } => out.extend([1, *back, *flags]),
            Self::Again { back, flags, port } => out.extend([2, *back, *flags, *port]),
            Self::Error { back, kind, quoted } => out.extend([3, *back, *kind, *quoted]),
            Self::Wait { time, does_sweep } => {
                out.push(if *does_sweep { 4 } else { 5 });
                out.extend(u32::try_from(time.as_millis()).unwrap_or(u32::MAX).to_le_bytes());
            }
            Self::Server { index, state } => out.extend([6, *index, *state]),
            Self::Hop { index, state } => out.extend([7, *index, *state]),
            Self::Interface { index, state } => out.extend([8, *index, *state]),
            Self::Config { world } => out.extend([9, *world]),
        }
    }
}

//! Fragmentation of IPv4 packets that may be fragmented and are larger than the way out takes (RFC 791, section 3.2):
//! routers do so, and a sender that does not look for the path's MTU counts on it.

use crate::packet::{
    Frame, Parsed,
    checksum::{Sum, checksum},
    parse,
};

/// Offsets in the IPv4 header.
const TOTAL_LENGTH: usize = 2;
const FLAGS: usize = 6;
const CHECKSUM: usize = 10;
const OPTIONS: usize = 20;
const MORE: u16 = 0x2000;

/// Whether a packet larger than the MTU of its way out is split rather than refused. Super-frames are not: what they
/// stand for is too big, and their sender looks for the path's MTU.
pub(super) fn may_split(parsed: &Parsed, is_super_frame: bool) -> bool {
    parsed.source.is_ipv4() && !parsed.dont_fragment && !is_super_frame
}

/// The fragments of a frame that is ready to be sent; `None` if it cannot be split.
pub(super) fn split(frame: &mut Frame<'_>, mtu: u32) -> Option<Vec<Vec<u8>>> {
    let parsed = parse(frame.bytes()).ok()?;
    finish_checksum(frame, &parsed)?;
    let bytes = frame.bytes();
    let header = bytes.get(parsed.network..parsed.transport)?;
    let data = bytes.get(parsed.transport..parsed.end)?;
    let link = bytes.get(..parsed.network)?;
    let room = (mtu as usize).checked_sub(header.len())? & !7;
    if room == 0 {
        return None;
    }
    let (base, last_says_more) = parsed.fragment.map_or((0, false), |fragment| {
        (usize::from(fragment.offset), fragment.more)
    });
    let pieces = data.chunks(room);
    let count = pieces.len();
    pieces
        .enumerate()
        .map(|(index, piece)| {
            let offset = base + index * room;
            let more = index + 1 < count || last_says_more;
            let mut header = header.to_vec();
            if offset > 0 {
                blank_options(&mut header);
            }
            let total = u16::try_from(header.len() + piece.len()).ok()?;
            let flags = u16::try_from(offset / 8).ok()? | if more { MORE } else { 0 };
            put(&mut header, TOTAL_LENGTH, total)?;
            put(&mut header, FLAGS, flags)?;
            put(&mut header, CHECKSUM, 0)?;
            let sum = checksum(&header);
            put(&mut header, CHECKSUM, sum)?;
            Some([link, &header, piece].concat())
        })
        .collect()
}

fn put(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&word.to_be_bytes());
    Some(())
}

/// An unfinished transport checksum must be finished before its bytes part.
fn finish_checksum(frame: &mut Frame<'_>, parsed: &Parsed) -> Option<()> {
    let Some(unfinished) = frame.offload.checksum.take() else {
        return Some(());
    };
    let start = usize::from(unfinished.start);
    let covered = frame.bytes().get(start..parsed.end)?;
    let sum = Sum::default().bytes(covered).finish();
    // UDP's zero would mean none
    let sum = if sum == 0 { 0xffff } else { sum };
    put(frame.bytes_mut(), start + usize::from(unfinished.offset), sum)
}

/// Options that are not to be copied to later fragments become no-operations, so that the header keeps its length.
fn blank_options(header: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = OPTIONS;
    while let Some(kind) = header.get(at).copied() {
        let len = match kind {
            END => return,
            NOP => 1,
            _ => header.get(at + 1).map_or(0, |len| usize::from(*len)),
        };
        let Some(option) = header.get_mut(at..at + len).filter(|option| !option.is_empty()) else {
            return;
        };
        if kind & COPIED == 0 {
            option.fill(NOP);
        }
        at += len;
    }
}

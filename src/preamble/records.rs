//! A ClientHello out of TLS records (RFC 8446, section 5.1), which may cut it anywhere.

use std::borrow::Cow;

use super::{ClientHello, HelloRefusal, Progress, cursor::Cursor};

/// Longest ClientHello in bytes, with its type and length and without the headers of its records.
pub const MAX_HELLO_MESSAGE_BYTES: usize = 64 << 10;

/// Most bytes of a connection that are looked at for a ClientHello: the longest one in records of six bytes, or one of
/// 21 KiB in records of one byte.
pub const MAX_HELLO_BYTES: usize = 128 << 10;

const HANDSHAKE: u8 = 22;
/// The first byte of the version of a record is this for everything from SSL 3.0 on; the second one means nothing.
const MAJOR_VERSION: u8 = 3;
const RECORD_HEADER_BYTES: usize = 5;
const MAX_RECORD_BYTES: usize = 1 << 14;

const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER_BYTES: usize = 4;

/// Reads a ClientHello. Each byte is looked at once until the message is whole, and then once more.
///
/// It has the size of a few numbers and allocates nothing before the message is whole; then twice
/// [`MAX_HELLO_MESSAGE_BYTES`] at most, of which what [`ClientHello`] keeps remains.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// How many of the bytes it has looked at.
    position: usize,
    /// How many bytes of the record at the position are still to come.
    record_left: usize,
    records: usize,
    /// How many bytes of the message it has seen.
    seen: usize,
    /// The first of them: type and length of the message.
    header: [u8; MESSAGE_HEADER_BYTES],
}

impl HelloReader {
    /// Looks at everything that has been received so far. It only grows from call to call.
    pub fn read(&mut self, all: &[u8]) -> Progress<ClientHello, HelloRefusal> {
        let all = &all[..all.len().min(MAX_HELLO_BYTES)];
        match self.look(all) {
            Ok(true) => match ClientHello::parse(&self.body(all)) {
                Ok(hello) => Progress::Done(hello),
                Err(refusal) => Progress::Refused(refusal),
            },
            Ok(false) if all.len() == MAX_HELLO_BYTES => Progress::Refused(HelloRefusal::TooLong),
            Ok(false) => Progress::More,
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    /// Goes to the end of the message, or of what is there. Gives whether the message is whole.
    fn look(&mut self, all: &[u8]) -> Result<bool, HelloRefusal> {
        loop {
            let length = self.message_length()?;
            if length == Some(self.seen) {
                return match self.record_left {
                    0 => Ok(true),
                    _ => Err(HelloRefusal::Malformed("there is more in its record")),
                };
            }
            if self.record_left == 0 && !self.begin_record(all)? {
                return Ok(false);
            }
            let wanted = length.unwrap_or(MESSAGE_HEADER_BYTES) - self.seen;
            let rest = all.get(self.position..).unwrap_or_default();
            let part = &rest[..rest.len().min(wanted).min(self.record_left)];
            if part.is_empty() {
                return Ok(false);
            }
            for (known, byte) in self.header.iter_mut().skip(self.seen).zip(part) {
                *known = *byte;
            }
            self.seen += part.len();
            self.position += part.len();
            self.record_left -= part.len();
        }
    }

    /// How long the message is, with its header, as soon as it has said so.
    fn message_length(&self) -> Result<Option<usize>, HelloRefusal> {
        let [kind, length @ ..] = self.header;
        if self.seen > 0 && kind != CLIENT_HELLO {
            return Err(HelloRefusal::NotTls);
        }
        if self.seen < MESSAGE_HEADER_BYTES {
            return Ok(None);
        }
        let length = length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        match MESSAGE_HEADER_BYTES + length {
            length if length > MAX_HELLO_MESSAGE_BYTES => Err(HelloRefusal::TooLong),
            length => Ok(Some(length)),
        }
    }

    /// Reads the header of a record. Gives whether it is whole.
    fn begin_record(&mut self, all: &[u8]) -> Result<bool, HelloRefusal> {
        let header = all.get(self.position..).unwrap_or_default();
        let is_handshake = header.first().is_none_or(|kind| *kind == HANDSHAKE)
            && header.get(1).is_none_or(|version| *version == MAJOR_VERSION);
        if !is_handshake {
            return Err(match self.records {
                0 => HelloRefusal::NotTls,
                _ => HelloRefusal::Malformed("another record is in the middle of it"),
            });
        }
        let Some([_, _, _, length @ ..]) = header.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(false);
        };
        self.record_left = match usize::from(u16::from_be_bytes(*length)) {
            // RFC 8446 and RFC 5246 alike: no empty ones of a handshake
            0 => return Err(HelloRefusal::Malformed("a record of it is empty")),
            length if length > MAX_RECORD_BYTES => {
                return Err(HelloRefusal::Malformed("a record of it is longer than 16 KiB"));
            }
            length => length,
        };
        self.position += RECORD_HEADER_BYTES;
        self.records += 1;
        Ok(true)
    }

    /// The message without its header.
    fn body<'a>(&self, all: &'a [u8]) -> Cow<'a, [u8]> {
        let mut records = Cursor::new(all.get(..self.position).unwrap_or_default());
        let mut payloads = std::iter::from_fn(|| {
            records.array::<3>()?;
            records.block16()
        });
        if self.records == 1 {
            let message = payloads.next().unwrap_or_default();
            return Cow::Borrowed(message.get(MESSAGE_HEADER_BYTES..).unwrap_or_default());
        }
        let mut message = Vec::with_capacity(self.seen);
        payloads.for_each(|payload| message.extend_from_slice(payload));
        message.drain(..MESSAGE_HEADER_BYTES.min(message.len()));
        Cow::Owned(message)
    }
}

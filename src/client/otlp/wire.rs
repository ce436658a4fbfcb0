//! The wire format of Protocol Buffers, as far as OTLP needs it
//! (<https://protobuf.dev/programming-guides/encoding/>): messages are written field by field, and read back as fields.

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written. A field with the default of its type may be left out, and is not by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// What is written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// All of it.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A field of an integer or enum type that is not negative.
    pub fn uint(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// A field of type `fixed64`, or of `sfixed64` that is not negative.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A field of type `double`.
    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// A field of type `string`.
    pub fn string(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A field of type `bytes`, or of a message that is written already.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A field that is repeated and has eight bytes each time (`packed`).
    pub fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.key(field, BYTES);
        self.varint(values.len() as u64 * 8);
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A field of a message, which `write` writes.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, BYTES);
        let start = self.0.len();
        write(self);
        // most are short: their length is put before them when it is known
        let mut length = Self::default();
        length.varint((self.0.len() - start) as u64);
        self.0.splice(start..start, length.0);
    }

    /// Fields that are written already.
    pub fn append(&mut self, parts: &[&[u8]]) {
        self.0.reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let low = value.to_le_bytes()[0];
            self.0.push(low | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// An integer or enum.
    Integer(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// A text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// The fields of a message by their numbers, in the order in which they stand there; `None` if it is none.
#[must_use]
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Field::Integer(take_varint(&mut bytes)?),
            FIXED64 => Field::Fixed64(u64::from_le_bytes(*take(&mut bytes)?)),
            FIXED32 => Field::Fixed32(u32::from_le_bytes(*take(&mut bytes)?)),
            BYTES => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(value)
            }
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(value)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(bytes)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_the_documentation_of_protobuf_has_them() {
        // its own examples: 150 in field 1, "testing" in field 2, a message with 150 in field 3
        let mut message = Message::default();
        message.uint(1, 150);
        message.string(2, "testing");
        message.message(3, |inner| inner.uint(1, 150));
        assert_eq!(
            message.as_bytes(),
            b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01"
        );
        let mut message = Message::default();
        message.fixed64(1, 1);
        message.double(16, 1.0);
        message.packed(2, [1, 2].into_iter());
        assert_eq!(
            message.as_bytes(),
            b"\x09\x01\0\0\0\0\0\0\0\x81\x01\0\0\0\0\0\0\xf0\x3f\x12\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn a_long_message_has_a_long_length_before_it() {
        let mut message = Message::default();
        message.message(1, |inner| inner.string(1, &"x".repeat(300)));
        assert_eq!(message.as_bytes()[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        let read = fields(message.as_bytes()).unwrap();
        let [(1, Field::Bytes(inner))] = read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(inner.len(), 303);
    }

    #[test]
    fn what_is_cut_short_or_no_message_is_none() {
        let mut message = Message::default();
        message.uint(1, u64::MAX);
        message.string(2, "abc");
        message.fixed64(3, 7);
        let whole = fields(message.as_bytes()).unwrap();
        assert_eq!(
            whole,
            [
                (1, Field::Integer(u64::MAX)),
                (2, Field::Bytes(b"abc")),
                (3, Field::Fixed64(7))
            ]
        );
        let ends = [0, 11, 16, 25];
        for cut in 0..message.as_bytes().len() {
            let read = fields(&message.as_bytes()[..cut]);
            assert_eq!(read.is_some(), ends.contains(&cut), "{cut}");
        }
        assert_eq!(fields(b"<html>"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(0_u8.., 0..64)) {
            let _ = fields(&bytes);
        }
    }
}

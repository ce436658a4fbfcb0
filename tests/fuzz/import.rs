//! Any bytes as another load balancer's configuration.
//!
//! What can be read becomes TOML, with every directive accounted for and comments that are safe on a terminal. The text is one
//! that the configuration's reader takes in, whatever it says of it, and the same input becomes the same text again.

#![no_main]

use convey::import::{Counts, Files, InputFile, Kind, translate};
use libfuzzer_sys::fuzz_target;

/// What inputs include: what stands behind a line of its own.
struct Rest<'a>(&'a [u8]);

impl Files for Rest<'_> {
    fn read(&mut self, pattern: &str) -> Result<Vec<InputFile>, String> {
        match pattern.len() % 3 {
            0 => Err("there is none".to_owned()),
            _ => Ok(vec![InputFile::new(pattern, self.0)]),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let (input, rest) = match bytes.windows(5).position(|line| line == b"\n---\n") {
        Some(at) => (&bytes[..at], &bytes[at + 5..]),
        None => (bytes, &b""[..]),
    };
    let file = InputFile::new("input", input);
    let Ok(imported) = translate(kind, &file, &mut Rest(rest)) else {
        return;
    };
    let parsed = imported.text.parse::<toml::Table>();
    assert!(parsed.is_ok(), "{parsed:?}\n{}", imported.text);
    let Counts {
        directives,
        translated,
        differing,
        without_equal,
    } = imported.counts;
    assert_eq!(directives, translated + differing + without_equal);
    let strange = imported.text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(strange, None, "sent to a terminal");
    let again = translate(kind, &file, &mut Rest(rest)).expect("it was read before");
    assert_eq!(again.text, imported.text);
});

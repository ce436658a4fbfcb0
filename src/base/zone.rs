//! The interface of a link-local address, by its name (RFC 4007 section 11: `fe80::1%eth0`).

use std::fmt;

/// Longest name of an interface, in bytes (IFNAMSIZ of linux/if.h, less the end).
const LONGEST: usize = 15;

/// An interface by its name. Its index may change while the name stays, so the kernel is asked for it at each use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone([u8; LONGEST]);

impl Zone {
    /// The zone of this name; `None` if no interface can have it (dev_valid_name of the kernel's net/core/dev.c), or if it
    /// would be read as something else: a number is an index.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_special = |c: char| c.is_whitespace() || c.is_control() || "/:%[]".contains(c);
        let is_index = name.bytes().all(|b| b.is_ascii_digit());
        if is_index || matches!(name, "." | "..") || name.contains(is_special) {
            return None;
        }
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        // made of a text
        str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_what_an_interface_can_be_called() {
        for name in ["eth0", "br-0123456789ab", "bond0.100", "ü"] {
            assert_eq!(Zone::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "2",
            ".",
            "..",
            "a b",
            "a/b",
            "eth0:1",
            "a%b",
            "a]",
            "sixteen-letters-",
        ] {
            assert_eq!(Zone::new(name), None, "{name}");
        }
    }
}

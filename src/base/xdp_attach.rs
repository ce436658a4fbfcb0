//! Where the program of the XDP engine is attached to an interface.

use super::by_label;

/// Where the program of the XDP engine is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpAttachMode {
    /// In the driver, before the kernel makes anything of a frame.
    Native,
    /// Behind the driver, as the kernel does it for any.
    Generic,
    /// Nowhere: packet sockets move what comes in there.
    None,
}

impl XdpAttachMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::None];

    /// The label in the log, metrics and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::None => "none",
        }
    }
}

by_label!(XdpAttachMode, XdpAttachMode::ALL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_has_one_word_in_messages_and_to_people() {
        for mode in XdpAttachMode::ALL {
            assert_eq!(mode.label().parse(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{mode}\""));
        }
    }
}

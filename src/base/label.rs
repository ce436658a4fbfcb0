//! Closed sets by their labels: one text for each value, written and read everywhere.

/// A text that is not a label of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of the known words")]
pub struct UnknownLabel;

/// Gives an enum that has a `label` its `Display`, and `FromStr` among the values listed.
macro_rules! by_label {
    ($name:ty, $all:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.label())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::base::UnknownLabel;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut all = $all.iter().copied();
                all.find(|value| value.label() == text)
                    .ok_or($crate::base::UnknownLabel)
            }
        }
    };
}

pub(crate) use by_label;

//! What holds for every packet: nothing panics, and what is rewritten can be rewritten back.
mod answers;
mod parsing;
mod properties;

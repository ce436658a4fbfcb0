//! The xdp engine: a program in the receive path of each interface forwards what is ordinary, and leaves the rest to the raw
//! engine's sockets, the slow path.
//!
//! A target's entry is written in three steps, so that the program never reads half of it: the version made odd, the rest,
//! the version made even.

pub mod attach;
pub mod layout;
pub mod load;
pub mod object;
pub mod services;

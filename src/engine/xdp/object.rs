//! The program, compiled.

/// Bytes at an address that is divisible by 8, as whoever reads an object file takes them.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/convey.bpf.o")));

/// The object file that clang has made of `bpf/convey.bpf.c`.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// What says how keys and values of its maps are laid out, and what their numbers mean: with the same text, another program goes
/// on with the maps of one before it. Who has values mean something else without a change there changes a name there.
pub const LAYOUT: &str = include_str!(concat!(env!("OUT_DIR"), "/layout.txt"));

//! The program, compiled.

/// The object file that clang has made of `bpf/convey.bpf.c`.
pub static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convey.bpf.o"));

//! Programs, and the types that they are described by (BTF), brought into the kernel.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use super::attributes::{BindMap, Command, LoadProgram, LoadTypes, address, address_mut, bpf, make, name_of};

/// Bytes of an instruction, of what is said of a function, and of a line.
const INSTRUCTION: usize = 8;
const FUNCTION: usize = 8;
const LINE: usize = 16;
/// What the verifier may say, in bytes: as much as any kernel takes.
const LOG_BYTES: usize = (u32::MAX >> 8) as usize;
/// Times that the kernel is asked again because it was interrupted.
const ATTEMPTS: u32 = 5;

/// An XDP program to be loaded, for interfaces that may have frames of several buffers.
#[derive(Debug, Clone, Copy)]
pub struct NewProgram<'a> {
    /// Its name, of which the kernel keeps 15 letters, digits, `_` and `.`.
    pub name: &'a str,
    /// What it may be used under.
    pub license: &'a CStr,
    /// Its instructions, 8 bytes each, with the descriptors of maps that are open.
    pub instructions: &'a [u8],
    /// Its types, of [`load_types`].
    pub types: BorrowedFd<'a>,
    /// `struct bpf_func_info` of each function, in order: one that is global there is verified by itself.
    pub functions: &'a [u8],
    /// `struct bpf_line_info` of its lines, in order.
    pub lines: &'a [u8],
}

/// The kernel has refused a program.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Rejected {
    /// Why.
    #[source]
    pub error: io::Error,
    /// What its verifier says, where it was the verifier.
    pub log: String,
}

impl NewProgram<'_> {
    /// Loads it. Takes CAP_BPF and CAP_NET_ADMIN; with CAP_PERFMON what comes out is quicker.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn load(&self) -> Result<OwnedFd, Rejected> {
        let error = match self.attempt(&mut []) {
            Ok(program) => return Ok(program),
            Err(error) => error,
        };
        // once more, for what it says
        let mut log = vec![0; LOG_BYTES];
        match self.attempt(&mut log) {
            Ok(program) => Ok(program),
            Err(_) => {
                let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
                let log = String::from_utf8_lossy(said).into_owned();
                Err(Rejected { error, log })
            }
        }
    }

    fn attempt(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        /// `BPF_PROG_TYPE_XDP`, `BPF_XDP` and `BPF_F_XDP_HAS_FRAGS`.
        const PROGRAM_XDP: u32 = 6;
        const ATTACHED_AS_XDP: u32 = 37;
        const HAS_FRAGS: u32 = 1 << 5;
        /// `BPF_LOG_LEVEL1` and `BPF_LOG_STATS`.
        const LOGGED: u32 = 1 | 4;
        let mut attributes = LoadProgram {
            prog_type: PROGRAM_XDP,
            insn_cnt: count(self.instructions, INSTRUCTION)?,
            insns: address(self.instructions),
            license: self.license.as_ptr() as u64,
            log_level: if log.is_empty() { 0 } else { LOGGED },
            log_size: count(log, 1)?,
            log_buf: if log.is_empty() { 0 } else { address_mut(log) },
            kern_version: 0,
            prog_flags: HAS_FRAGS,
            prog_name: name_of(self.name),
            prog_ifindex: 0,
            expected_attach_type: ATTACHED_AS_XDP,
            prog_btf_fd: self.types.as_raw_fd(),
            func_info_rec_size: FUNCTION as u32,
            func_info: address(self.functions),
            func_info_cnt: count(self.functions, FUNCTION)?,
            line_info_rec_size: LINE as u32,
            line_info: address(self.lines),
            line_info_cnt: count(self.lines, LINE)?,
            attach_btf_id: 0,
        };
        let mut left = ATTEMPTS;
        loop {
            // SAFETY: the kernel reads as many instructions, functions and lines as the slices have, and a license that ends with
            // a zero; it writes at most `log_size` bytes of the log. All live through the call.
            match unsafe { make(Command::LoadProgram, &mut attributes) } {
                Err(error) if is_interrupted(&error) && left > 0 => left -= 1,
                other => return other,
            }
        }
    }
}

/// Loads the types (BTF) that programs are described by. Takes CAP_BPF.
///
/// # Errors
/// The kernel refused.
pub fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = LoadTypes {
        btf: address(types),
        btf_log_buf: 0,
        btf_size: count(types, 1)?,
        btf_log_size: 0,
        btf_log_level: 0,
        btf_log_true_size: 0,
    };
    // SAFETY: the kernel reads as many bytes as the slice has, and writes no log.
    unsafe { make(Command::LoadTypes, &mut attributes) }
}

/// Has a map live as long as a program, and be named among its maps, though it does not use it.
///
/// # Errors
/// It is no program, or no map (EINVAL).
pub fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = BindMap {
        prog_fd: program.as_raw_fd(),
        map_fd: map.as_raw_fd(),
        flags: 0,
    };
    // SAFETY: nothing in these attributes is an address.
    unsafe { bpf(Command::BindMap, &mut attributes) }.map(drop)
}

/// How many records of this size these bytes are.
fn count(bytes: &[u8], size: usize) -> io::Result<u32> {
    if !bytes.len().is_multiple_of(size) {
        return Err(Errno::EINVAL.into());
    }
    u32::try_from(bytes.len() / size).map_err(|_| Errno::E2BIG.into())
}

fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

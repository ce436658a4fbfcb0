//! Test runs of a program.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::errno::Errno;

use super::attributes::{Command, Info, RawProgramInfo, RawTestRun, XdpContext, bpf, number_of};

/// Room that a program may put before and behind a frame in a test run, in bytes (`XDP_PACKET_HEADROOM`, and as much again).
const TEST_ROOM: usize = 512;

/// What a program is told of where a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestContext {
    /// The interface, which must be one of this network namespace whose driver has registered its queues for XDP; 0: the
    /// loopback device of the namespace.
    pub ingress_ifindex: u32,
    /// The queue of it; 0 where `ingress_ifindex` is.
    pub rx_queue_index: u32,
}

/// What a test run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub retval: u32,
    /// How long a run took, in ns.
    pub duration_ns: u32,
}

/// What the kernel says of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Instructions that the verifier has gone through, each as often as it came by: a million at most.
    pub verified: u32,
    /// Bytes of what the kernel runs, before and after it was made instructions of this machine.
    pub translated: u32,
    /// See `translated`; 0: it is interpreted.
    pub compiled: u32,
}

/// What the kernel says of a program; of a map it says something else.
///
/// # Errors
/// It is neither.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut raw = RawProgramInfo::default();
    let mut attributes = Info::of(program.as_raw_fd(), &mut raw);
    // SAFETY: the kernel writes at most as many bytes as `raw` has, of a struct that begins as it does; all addresses in it are
    // null, with lengths of 0.
    unsafe { bpf(Command::ObjectInfo, &mut attributes) }?;
    Ok(ProgramInfo {
        verified: raw.verified_insns,
        translated: raw.xlated_prog_len,
        compiled: raw.jited_prog_len,
    })
}

/// Runs a program on this frame, which has 14 bytes at least. What it made of the frame is in `out` afterwards.
///
/// # Errors
/// A frame that is too short or too long, a context that the kernel does not take (EINVAL), or no such program.
pub fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: Option<TestContext>,
    out: &mut Vec<u8>,
) -> io::Result<TestRun> {
    let length = u32::try_from(frame.len()).map_err(|_| Errno::E2BIG)?;
    out.clear();
    out.resize(frame.len() + TEST_ROOM, 0);
    let given = context.map(|context| XdpContext {
        data_end: length,
        ingress_ifindex: context.ingress_ifindex,
        rx_queue_index: context.rx_queue_index,
        ..XdpContext::default()
    });
    let mut attributes = RawTestRun::of(program.as_raw_fd(), frame, out, given.as_ref())?;
    let outcome = loop {
        // SAFETY: the kernel reads the frame and the context, and writes at most `data_size_out` bytes of `out`; all live through
        // the call, and the sizes are theirs.
        match unsafe { bpf(Command::TestRun, &mut attributes) } {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    let written = if outcome.is_ok() {
        number_of(attributes.data_size_out)?
    } else {
        0
    };
    out.truncate(written);
    outcome.map(|_| TestRun {
        retval: attributes.retval,
        duration_ns: attributes.duration,
    })
}

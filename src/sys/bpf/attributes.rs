//! Structs of bpf(2), and the call itself.

use std::{
    ffi::c_int,
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

/// Commands of `enum bpf_cmd` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Command {
    CreateMap = 0,
    LookupElement = 1,
    UpdateElement = 2,
    DeleteElement = 3,
    NextKey = 4,
    TestRun = 10,
    ObjectInfo = 15,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
    CreateLink = 28,
}

/// For `BPF_MAP_CREATE`.
#[repr(C)]
pub(super) struct CreateMap {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub map_name: [u8; 16],
}

/// For `BPF_LINK_CREATE`.
#[repr(C)]
pub(super) struct CreateLink {
    pub prog_fd: RawFd,
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub flags: u32,
}

/// For `BPF_MAP_*_ELEM` and `BPF_MAP_GET_NEXT_KEY`.
#[repr(C)]
pub(super) struct Element {
    pub map_fd: RawFd,
    pub padding: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

/// For `BPF_MAP_*_BATCH`.
#[repr(C)]
pub(super) struct Batch {
    pub in_batch: u64,
    pub out_batch: u64,
    pub keys: u64,
    pub values: u64,
    pub count: u32,
    pub map_fd: RawFd,
    pub elem_flags: u64,
    pub flags: u64,
}

/// For `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
pub(super) struct Info {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
pub(super) struct RawMapInfo {
    pub kind: u32,
    id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

/// `struct bpf_prog_info` as far as Linux 5.16 has it.
#[derive(Default)]
#[repr(C, align(8))]
pub(super) struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    pub jited_prog_len: u32,
    pub xlated_prog_len: u32,
    /// From `jited_prog_insns` to `recursion_misses`: nothing of that is asked for.
    others: [u64; 24],
    pub verified_insns: u32,
    end: [u32; 3],
}

/// For `BPF_PROG_TEST_RUN`.
#[repr(C)]
pub(super) struct RawTestRun {
    prog_fd: RawFd,
    pub retval: u32,
    data_size_in: u32,
    pub data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    pub duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// `struct xdp_md`.
#[derive(Default)]
#[repr(C)]
pub(super) struct XdpContext {
    pub data: u32,
    pub data_end: u32,
    pub data_meta: u32,
    pub ingress_ifindex: u32,
    pub rx_queue_index: u32,
    pub egress_ifindex: u32,
}

impl Info {
    pub fn of<T>(fd: RawFd, into: &mut T) -> Self {
        Self {
            bpf_fd: fd,
            info_len: const { size_of::<T>() as u32 },
            info: std::ptr::from_mut(into) as u64,
        }
    }
}

impl RawTestRun {
    pub fn of(
        program: RawFd,
        frame: &[u8],
        out: &mut [u8],
        context: Option<&XdpContext>,
    ) -> io::Result<Self> {
        let size = |bytes: usize| u32::try_from(bytes).map_err(|_| io::Error::from(Errno::E2BIG));
        Ok(Self {
            prog_fd: program,
            retval: 0,
            data_size_in: size(frame.len())?,
            data_size_out: size(out.len())?,
            data_in: address(frame),
            data_out: address_mut(out),
            repeat: 1,
            duration: 0,
            ctx_size_in: context.map_or(0, |_| const { size_of::<XdpContext>() as u32 }),
            ctx_size_out: 0,
            ctx_in: context.map_or(0, |context| std::ptr::from_ref(context) as u64),
            ctx_out: 0,
        })
    }
}

/// Where a slice is, as the kernel is told.
pub(super) fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

/// Where a slice is that the kernel may write to.
pub(super) fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

/// A number of the kernel's as one of ours.
pub(super) fn number_of(count: u32) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| Errno::EOVERFLOW.into())
}

/// Makes a map.
pub(super) fn create_map(attributes: &mut CreateMap) -> io::Result<OwnedFd> {
    // SAFETY: nothing in these attributes is an address.
    let fd = unsafe { bpf(Command::CreateMap, attributes) }?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program.
pub(super) fn create_link(attributes: &mut CreateLink) -> io::Result<OwnedFd> {
    // SAFETY: nothing in these attributes is an address.
    let fd = unsafe { bpf(Command::CreateLink, attributes) }?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls bpf(2).
///
/// # Safety
/// `T` is the struct of this command, and every address in it that the command reads or writes is that of memory which lives
/// through the call, and is as large as the command takes it to be.
pub(super) unsafe fn bpf<T>(command: Command, attributes: &mut T) -> io::Result<c_int> {
    // SAFETY: `attributes` has the size that is told, and what it points to is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_int,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    let result = Errno::result(result)?;
    c_int::try_from(result).map_err(|_| Errno::EOVERFLOW.into())
}

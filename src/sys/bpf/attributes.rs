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
    LoadProgram = 5,
    TestRun = 10,
    ObjectInfo = 15,
    LoadTypes = 18,
    Freeze = 22,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
    CreateLink = 28,
    UpdateLink = 29,
    DetachLink = 34,
    BindMap = 35,
}

/// For `BPF_MAP_CREATE`.
#[repr(C)]
pub(super) struct CreateMap {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: RawFd,
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

/// For `BPF_LINK_UPDATE`.
#[repr(C)]
pub(super) struct UpdateLink {
    pub link_fd: RawFd,
    pub new_prog_fd: RawFd,
    pub flags: u32,
}

/// For `BPF_LINK_DETACH`, and for `BPF_MAP_FREEZE`.
#[repr(C)]
pub(super) struct OneFd {
    pub fd: RawFd,
}

/// For `BPF_PROG_BIND_MAP`.
#[repr(C)]
pub(super) struct BindMap {
    pub prog_fd: RawFd,
    pub map_fd: RawFd,
    pub flags: u32,
}

/// For `BPF_BTF_LOAD`.
#[repr(C)]
pub(super) struct LoadTypes {
    pub btf: u64,
    pub btf_log_buf: u64,
    pub btf_size: u32,
    pub btf_log_size: u32,
    pub btf_log_level: u32,
    /// Named, for what would be padding must be zero before Linux 6.4.
    pub btf_log_true_size: u32,
}

/// For `BPF_PROG_LOAD`.
#[repr(C)]
pub(super) struct LoadProgram {
    pub prog_type: u32,
    pub insn_cnt: u32,
    pub insns: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; 16],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
    pub prog_btf_fd: RawFd,
    pub func_info_rec_size: u32,
    pub func_info: u64,
    pub func_info_cnt: u32,
    pub line_info_rec_size: u32,
    pub line_info: u64,
    pub line_info_cnt: u32,
    pub attach_btf_id: u32,
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
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub name: [u8; 16],
}

/// `struct bpf_prog_info` as far as Linux 5.16 has it.
#[derive(Default)]
#[repr(C, align(8))]
pub(super) struct RawProgramInfo {
    pub kind: u32,
    pub id: u32,
    tag: [u8; 8],
    pub jited_prog_len: u32,
    pub xlated_prog_len: u32,
    /// From `jited_prog_insns` to `load_time`: nothing of that is asked for.
    before: [u64; 3],
    created_by_uid: u32,
    pub nr_map_ids: u32,
    pub map_ids: u64,
    pub name: [u8; 16],
    /// From `ifindex` to `recursion_misses`: the same.
    others: [u64; 17],
    pub verified_insns: u32,
    end: [u32; 3],
}

/// The beginning of `struct bpf_link_info`, of a link of XDP.
#[derive(Default)]
#[repr(C, align(8))]
pub(super) struct RawLinkInfo {
    pub kind: u32,
    pub id: u32,
    pub prog_id: u32,
    padding: u32,
    pub ifindex: u32,
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

impl RawProgramInfo {
    /// Asks for as many numbers of maps as there is room for.
    pub fn with_maps(maps: &mut [u32]) -> Self {
        Self {
            nr_map_ids: maps.len() as u32,
            map_ids: maps.as_mut_ptr() as u64,
            ..Self::default()
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
    unsafe { make(Command::CreateMap, attributes) }
}

/// Attaches a program.
pub(super) fn create_link(attributes: &mut CreateLink) -> io::Result<OwnedFd> {
    // SAFETY: nothing in these attributes is an address.
    unsafe { make(Command::CreateLink, attributes) }
}

/// Makes something of what is in memory.
///
/// # Safety
/// As [`bpf`]'s; and the command makes a descriptor.
pub(super) unsafe fn make<T>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name as the kernel keeps it: 15 letters, digits, `_` and `.`.
pub(super) fn name_of(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

/// Calls bpf(2).
///
/// # Safety
/// `T` is the struct of this command, without padding, which the kernel would read; and every address in it that the command
/// reads or writes is that of memory which lives through the call, and is as large as the command takes it to be.
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

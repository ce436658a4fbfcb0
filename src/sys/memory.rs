//! Memory that the allocator keeps although nobody uses it.

/// Has the allocator give unused memory back to the kernel: glibc keeps what was freed between blocks that live on
/// (malloc_trim(3)). Takes milliseconds for each hundred megabytes.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

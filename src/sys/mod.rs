//! Safe wrappers of system calls: the only unsafe code of the crate.
#![allow(unsafe_code)]

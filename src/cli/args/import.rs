//! `convey import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `convey import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Whose configuration it is
    #[arg(value_enum)]
    pub kind: ImportKind,

    /// The file; `-` is standard input. Files that it includes are read, too
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Exit with 65, too, when something has no equal
    #[arg(long)]
    pub strict: bool,
}

/// What can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportKind {
    /// HAProxy
    #[value(name = "haproxy")]
    HaProxy,
    /// nginx, of which only the section stream has an equal
    Nginx,
    /// gobetween
    Gobetween,
    /// awe4lb
    Awe4lb,
    /// What `ipvsadm -Sn` prints of the kernel's IPVS
    Ipvs,
    /// keepalived
    Keepalived,
}

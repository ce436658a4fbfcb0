//! `convey token`.

use clap::{Args, ValueEnum};

/// Arguments of `convey token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Name of the token, as logs have it: letters, digits and `.`, `_`, `-`, `@`
    #[arg(value_name = "NAME")]
    pub name: String,

    /// What it may do
    #[arg(long, value_enum)]
    pub role: TokenRole,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Look at everything
    Read,
    /// Change servers and reload, too
    Operate,
    /// Change the configuration, too
    Configure,
}

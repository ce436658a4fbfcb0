//! `convey import`.

use super::{args::ImportArgs, outcome::CommandResult};

/// Translates another load balancer's configuration and prints it.
#[cfg(feature = "import")]
pub fn run(args: &ImportArgs) -> CommandResult {
    translated::run(args)
}

/// Says that this build cannot.
#[cfg(not(feature = "import"))]
pub fn run(_args: &ImportArgs) -> CommandResult {
    use super::outcome::Failure;
    Err(Failure::new(
        crate::base::exit::UNAVAILABLE,
        "this build of convey has no `import`: it was compiled without the feature of that name; the package has it",
    ))
}

#[cfg(feature = "import")]
mod files;
#[cfg(feature = "import")]
mod translated;

//! `convey token`.

use std::io::Write as _;

use aws_lc_rs::rand;

use super::{
    args::{TokenArgs, TokenRole},
    outcome::{CommandResult, Failure},
};
use crate::{
    admin::auth::{RANDOM_BYTES, Token},
    base::{Role, exit},
};

/// Makes a token: its line goes to stdout, it itself to stderr.
pub fn run(args: &TokenArgs) -> CommandResult {
    let mut random = [0; RANDOM_BYTES];
    rand::fill(&mut random).map_err(|_| Failure::new(exit::OS_ERROR, "the system has no randomness"))?;
    let token = Token::new(random);
    let line = token
        .line(&args.name, args.role.into())
        .map_err(|why| Failure::new(exit::USAGE, format!("{:?}: {why}", args.name)))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    // after the line, so that nobody has a token that no file knows
    writeln!(std::io::stderr(), "{}", token.secret())?;
    Ok(exit::OK)
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Read => Self::Read,
            TokenRole::Operate => Self::Operate,
            TokenRole::Configure => Self::Configure,
        }
    }
}

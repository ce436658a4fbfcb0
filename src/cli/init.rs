//! `convey init`.

use std::{fs::File, io, io::Write, path::Path};

use super::{
    args::InitArgs,
    outcome::{CommandResult, Failure},
};
use crate::base::exit;

/// The package's configuration: every setting, explained, and above them a load balancer to be uncommented.
const STARTER: &str = include_str!("../../configs/convey.toml");

/// Writes the starter to a file that does not exist yet, or prints it.
pub fn run(args: &InitArgs) -> CommandResult {
    let mut out = io::stdout().lock();
    if args.file == Path::new("-") {
        out.write_all(STARTER.as_bytes())?;
        out.flush()?;
        return Ok(exit::OK);
    }
    write_new(&args.file).map_err(|error| refusal(&args.file, &error))?;
    let file = args.file.display();
    writeln!(
        out,
        "wrote {file}. What to do next:\n  \
         1. In {file}, remove the `#` from the six lines at the top, a load balancer, and write your own addresses there.\n  \
         2. convey check {file}\n  \
         3. convey -c {file}"
    )?;
    out.flush()?;
    Ok(exit::OK)
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(STARTER.as_bytes())
}

fn refusal(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    let message = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!(
                "{path} exists already and stays as it is: name another file, or `-` to print the starter"
            )
        }
        _ => format!("cannot create {path}: {error}"),
    };
    Failure::new(exit::CANNOT_CREATE, message)
}

//! `convey reload`.

mod dry_run;

use super::{
    applied::{interpret, tell},
    args::ReloadArgs,
    client::{Client, Patience},
    outcome::CommandResult,
    settle::{self, Before},
};

/// Has the daemon read its configuration, and prints what came of it; or prints what would.
pub fn run(args: &ReloadArgs, client: &Client) -> CommandResult {
    if args.dry_run {
        return dry_run::run(args.json, client);
    }
    let before = Before::look(client, args.settle)?;
    let path = if args.cut {
        "/v1/reload?cut=true"
    } else {
        "/v1/reload"
    };
    let answer = client.post(path, None, Patience::Long)?;
    let reloaded = interpret(&answer)?;
    tell(&reloaded)?;
    if args.settle.wait.is_some() && reloaded.changes.is_empty() {
        settle::nothing_to_wait_for(client)?;
    }
    settle::settle(client, args.settle, &reloaded, before)
}

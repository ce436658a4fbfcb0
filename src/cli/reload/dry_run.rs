//! What a reload would do.

use std::io::Write as _;

use crate::{
    admin::views::{ConfigDiff, Info},
    base::exit::{self, Exit},
    cli::{
        client::Client,
        compare::{compare, warnings},
        outcome::{CommandResult, Failure},
        target::read_config,
        text::harmless,
    },
};

/// Prints what a reload would do. The status is that which the reload would have, as far as that can be seen.
pub fn run(json: bool, client: &Client) -> CommandResult {
    let info: Info = client.get("/v1/info")?.parse()?;
    // the same file; whoever may ask the daemon may mostly read it
    let source = read_config(Some(info.config_file.as_ref()))?;
    let plan = compare(client, source.bytes)?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &plan).map_err(std::io::Error::from)?;
        writeln!(out)?;
        out.flush()?;
        return Ok(exit_of(&plan));
    }
    std::io::stderr().write_all(warnings(&plan).as_bytes())?;
    out.write_all(harmless(&draw(&plan)).as_bytes())?;
    out.flush()?;
    match &plan.cut {
        None => Ok(exit::OK),
        Some(cut) => Err(Failure::new(
            exit_of(&plan),
            format!("the reload would fail: {}", harmless(&cut.why)),
        )),
    }
}

const fn exit_of(plan: &ConfigDiff) -> Exit {
    match plan.cut {
        None => exit::OK,
        Some(_) => exit::OS_ERROR,
    }
}

fn draw(plan: &ConfigDiff) -> String {
    if plan.changes.is_empty() && plan.needs_restart.is_empty() {
        return "a reload would change nothing\n".to_owned();
    }
    let mut out = "a reload would change:\n".to_owned();
    for change in &plan.changes {
        out.push_str(&format!("  {change}\n"));
    }
    if !plan.draining.is_empty() {
        out.push_str("would drain, as their connections go on until they end:\n");
        for draining in &plan.draining {
            let count = draining.connections;
            let connections = if count == 1 { "connection" } else { "connections" };
            out.push_str(&format!("  {}: {count} {connections}\n", draining.what));
        }
    }
    if let Some(cut) = &plan.cut {
        out.push_str(&format!(
            "would cut, with --cut: {} connection(s)\n",
            cut.connections
        ));
    }
    if !plan.needs_restart.is_empty() {
        let keys = plan.needs_restart.join(", ");
        out.push_str(&format!("would take effect after a restart alone: {keys}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::{Draining, WouldCut};

    #[test]
    fn a_plan_says_what_changes_what_drains_and_what_is_cut() {
        let mut plan = ConfigDiff {
            changes: vec![
                "frontend mail: removed".into(),
                "backend web: server b: added".into(),
            ],
            needs_restart: vec!["global.workers".into()],
            lines: String::new(),
            draining: vec![Draining {
                what: "frontend mail".into(),
                connections: 1,
            }],
            cut: None,
            warnings: vec![],
        };
        assert_eq!(
            draw(&plan),
            "a reload would change:\n  frontend mail: removed\n  backend web: server b: added\n\
             would drain, as their connections go on until they end:\n  frontend mail: 1 connection\n\
             would take effect after a restart alone: global.workers\n"
        );
        assert_eq!(exit_of(&plan), exit::OK);
        plan.cut = Some(WouldCut {
            connections: 2,
            why: "because".into(),
        });
        assert!(draw(&plan).contains("would cut, with --cut: 2 connection(s)\n"));
        assert_eq!(exit_of(&plan), exit::OS_ERROR);
        assert_eq!(draw(&ConfigDiff::default()), "a reload would change nothing\n");
    }
}

//! The configuration: its text, what is wrong with one, what one would change, putting one in effect, going back.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{Json, http::StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use similar::TextDiff;
use tokio::task::spawn_blocking;

use super::{
    answer::{Tagged, TomlText},
    ask::{Ask, JsonBody, MergePatch, Nothing, Toml},
    context::{ApiContext, log_request},
    reload::failed,
};
use crate::{
    admin::{
        AdminCommand,
        caller::Caller,
        status::{CHANGED, ConfigInEffect, tag_of},
        views::{self, CheckedConfig, ConfigDiff, ConfigHistory, Draining, Problem, Rollback},
    },
    config::{self, Config, Diagnostic, Here, Loaded, MergeError, Severity, Source},
    snapshot::Snapshot,
    sys::interfaces,
};

/// Lines around a difference.
const CONTEXT: usize = 3;

/// Path of a text that was in effect.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RevisionPath {
    /// Its number.
    revision: u64,
}

/// The text in effect.
pub async fn text(context: ApiContext, _ask: Ask) -> Result<Tagged<TomlText>, Problem> {
    let config = Arc::clone(&context.now().config);
    Ok(Tagged {
        tag: config.tag.clone(),
        answer: TomlText(config.source.bytes.clone()),
    })
}

/// Every setting in effect, those that the text does not name too.
pub async fn resolved(context: ApiContext, _ask: Ask) -> Result<Tagged<Json<Map<String, Value>>>, Problem> {
    let config = Arc::clone(&context.now().config);
    let tag = config.tag.clone();
    let answer = aside(&context, move || {
        let loaded = in_effect(&config)?;
        let canonical = config::print(&loaded);
        toml::from_str::<Map<String, Value>>(&canonical).map_err(|error| internal(&error.to_string()))
    });
    Ok(Tagged {
        tag,
        answer: Json(answer.await??),
    })
}

/// What is wrong with a text. The files that it names are read when it is applied.
pub async fn check(
    context: ApiContext,
    ask: Ask<Nothing, Nothing, Toml>,
) -> Result<Json<CheckedConfig>, Problem> {
    let running = Arc::clone(&context.now().config);
    let checked = aside(&context, move || {
        let (valid, findings) = match load(&running, ask.body.0) {
            Ok(loaded) => (true, loaded.warnings),
            Err(findings) => (false, findings),
        };
        CheckedConfig {
            valid,
            findings: findings.iter().map(Into::into).collect(),
        }
    });
    Ok(Json(checked.await?))
}

/// What a text would change.
pub async fn diff(
    context: ApiContext,
    ask: Ask<Nothing, Nothing, Toml>,
) -> Result<Json<ConfigDiff>, Problem> {
    let status = Arc::clone(&context.now());
    let compared = aside(&context, move || {
        let Toml(text) = ask.body;
        let running = &status.config;
        let lines = lines(&running.source.bytes, &text);
        let before = in_effect(running)?;
        let Loaded { mut config, warnings } = load(running, text).map_err(|found| invalid(&found))?;
        config.keep(&before);
        let diff = config::diff(&before, &config);
        let compared = ConfigDiff {
            changes: diff.changes,
            needs_restart: diff.needs_restart,
            lines,
            draining: draining(&status.snapshot, &config),
            cut: None,
            warnings: warnings.iter().map(Into::into).collect(),
        };
        Ok((compared, config))
    });
    let (mut compared, config) = compared.await??;
    let count = |reply| AdminCommand::CountCut {
        config: Arc::new(config),
        reply,
    };
    let cut = context.command(count, context.limits().reply).await?;
    compared.cut = (cut.connections > 0).then_some(cut);
    Ok(Json(compared))
}

/// What a configuration no longer has of what has connections. Servers that come by themselves are for their source to keep.
fn draining(snapshot: &Snapshot, config: &Config) -> Vec<Draining> {
    let frontends = (snapshot.frontends.iter())
        .filter(|(name, _)| !config.frontends.contains_key(*name))
        .map(|(name, view)| (format!("frontend {name}"), view.live.counters.totals()));
    let servers = snapshot.servers().filter(|(backend, server)| {
        let kept = config.backends.get(&backend.config.name);
        !kept.is_some_and(|kept| server.is_discovered || kept.servers.contains_key(&server.name))
    });
    let servers = servers.map(|(backend, server)| {
        let name = format!("server {}/{}", backend.config.name, server.name);
        (name, server.live.counters.totals())
    });
    (frontends.chain(servers))
        .map(|(what, totals)| Draining {
            what,
            connections: totals.current,
        })
        .filter(|draining| draining.connections > 0)
        .collect()
}

/// The texts that were in effect.
pub async fn history(context: ApiContext, _ask: Ask) -> Result<Json<ConfigHistory>, Problem> {
    let revisions = context.live().revisions();
    Ok(Json(ConfigHistory { revisions }))
}

/// One of them.
pub async fn revision(context: ApiContext, ask: Ask<RevisionPath>) -> Result<TomlText, Problem> {
    kept(&context, ask.path.revision).await.map(TomlText)
}

/// Replaces the file and applies it. A text that cannot be applied is put back.
pub async fn replace(
    context: ApiContext,
    ask: Ask<Nothing, Nothing, Toml>,
) -> Result<Json<views::Reloaded>, Problem> {
    let expected = expected(&context, ask.if_match).ok_or_else(no_tag)?;
    log_request(&ask.caller, "replace the configuration");
    whole(apply(context, ask.caller, ask.body.0, expected)).await
}

/// Changes single settings of the file, and applies it; comments, order and layout stay.
pub async fn change(
    context: ApiContext,
    ask: Ask<Nothing, Nothing, MergePatch>,
) -> Result<Json<views::Reloaded>, Problem> {
    let expected = expected(&context, ask.if_match).ok_or_else(no_tag)?;
    let running = Arc::clone(&context.now().config);
    if running.tag != expected {
        return Err(changed());
    }
    let MergePatch(patch) = ask.body;
    let merged = aside(&context, move || {
        let text = String::from_utf8_lossy(&running.source.bytes);
        config::merge(&text, &patch).map_err(|error| {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
            match error {
                MergeError::Value { path, .. } => problem.at(path),
                _ => problem,
            }
        })
    });
    let text = merged.await??.into_bytes();
    log_request(&ask.caller, "change the configuration");
    whole(apply(context, ask.caller, text, expected)).await
}

fn no_tag() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_REQUIRED,
        "say which text you replace: If-Match with the ETag of GET /v1/config",
    )
}

/// Puts a text that was in effect into the file, and applies it.
pub async fn roll_back(
    context: ApiContext,
    ask: Ask<Nothing, Nothing, JsonBody<Rollback>>,
) -> Result<Json<views::Reloaded>, Problem> {
    let JsonBody(Rollback { revision }) = ask.body;
    let any = || context.now().config.tag.clone();
    let expected = expected(&context, ask.if_match).unwrap_or_else(any);
    let text = kept(&context, revision).await?;
    log_request(&ask.caller, &format!("roll back to revision {revision}"));
    whole(apply(context, ask.caller, text, expected)).await
}

/// The tag that the text in effect has to have; `*` is that of any (RFC 9110, section 13.1.1).
fn expected(context: &ApiContext, if_match: Option<String>) -> Option<String> {
    let tag = if_match?;
    Some(match tag.as_str() {
        "*" => context.now().config.tag.clone(),
        _ => tag,
    })
}

/// Does it to its end, even if the asker goes meanwhile.
async fn whole(
    work: impl Future<Output = Result<views::Reloaded, Problem>> + Send + 'static,
) -> Result<Json<views::Reloaded>, Problem> {
    let done = tokio::spawn(work).await;
    let done = done.map_err(|_| internal("it ended before its end"))?;
    if let Err(problem) = &done {
        tracing::warn!(
            event = "config_not_written",
            status = problem.status,
            "the configuration was not changed: {}",
            problem.message
        );
    }
    done.map(Json)
}

async fn apply(
    context: ApiContext,
    caller: Caller,
    text: Vec<u8>,
    expected: String,
) -> Result<views::Reloaded, Problem> {
    let before = Arc::clone(&context.now().config);
    let tag = tag_of(&text);
    write(&context, text.clone(), None, expected).await?;
    let by = caller.to_string();
    let command = |reply| AdminCommand::Reload {
        cut: false,
        by,
        reply,
    };
    let why = match context.command(command, context.limits().reload).await {
        Ok(Ok(reloaded)) => return Ok(reloaded),
        Ok(Err(why)) => failed(why),
        Err(why) => why,
    };
    // it may be in effect although nobody said so in time
    if context.now().config.tag == tag {
        return Err(why);
    }
    let back = before.source.bytes.clone();
    match write(&context, back, Some(text), before.tag.clone()).await {
        Ok(()) => Err(why),
        Err(error) => Err(Problem {
            message: format!(
                "{}\nand the file could not be put back: {}",
                why.message, error.message
            ),
            ..why
        }),
    }
}

async fn write(
    context: &ApiContext,
    text: Vec<u8>,
    replaces: Option<Vec<u8>>,
    expected: String,
) -> Result<(), Problem> {
    let command = |reply| AdminCommand::WriteConfig {
        text,
        replaces,
        expected,
        reply,
    };
    context.command(command, context.limits().reload).await?
}

/// A text that was in effect.
async fn kept(context: &ApiContext, revision: u64) -> Result<Vec<u8>, Problem> {
    let looking = context.clone();
    let found = aside(context, move || looking.live().revision(revision)).await?;
    let gone = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("no revision {revision}: GET /v1/config/history lists those that are kept"),
        )
    };
    found
        .ok_or_else(gone)?
        .map_err(|error| internal(&format!("read revision {revision}: {error}")))
}

/// Work that takes its time, on the thread for that.
async fn aside<T: Send + 'static>(
    context: &ApiContext,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let turn = context.turn().await;
    let done = spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|_| internal("it ended before its end"))
}

/// The configuration in effect, from its text.
fn in_effect(running: &ConfigInEffect) -> Result<Config, Problem> {
    let loaded = config::load(&running.source, running.options);
    loaded
        .map(|loaded| loaded.config)
        .map_err(|found| internal(&config::render(&found, &running.source, false)))
}

/// A text as a reload would read it.
fn load(running: &ConfigInEffect, text: Vec<u8>) -> Result<Loaded, Vec<Diagnostic>> {
    let addresses: BTreeSet<IpAddr> = interfaces::own_addresses();
    let here = Here {
        addresses,
        severity: Severity::Error,
    };
    let source = Source {
        name: running.source.name.clone(),
        bytes: text,
    };
    config::load_here(&source, running.options, Some(&here))
}

fn invalid(found: &[Diagnostic]) -> Problem {
    let lines: Vec<String> = found.iter().map(config::in_one_line).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, lines.join("\n"))
}

/// The lines that differ.
fn lines(before: &[u8], text: &[u8]) -> String {
    let (before, text) = (String::from_utf8_lossy(before), String::from_utf8_lossy(text));
    let diff = TextDiff::from_lines(&*before, &*text);
    let mut unified = diff.unified_diff();
    unified
        .context_radius(CONTEXT)
        .header("in effect", "new")
        .to_string()
}

/// The text is another than the asker has seen.
fn changed() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, CHANGED)
}

fn internal(why: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
}

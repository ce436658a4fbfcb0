//! The pool of a match, and how its hosts are checked.

use std::{collections::BTreeSet, time::Duration};

use super::{place::Match, socket};
use crate::import::{At, Draft, SectionId, Value, address::joined, fields::Fields, paths};

/// Translates a pool.
pub fn translate(backend: SectionId, name: &str, pool: Option<Fields<'_>>, is_udp: bool, draft: &mut Draft) {
    let at = At::In(backend);
    let Some(mut pool) = pool else {
        draft.set(backend, &["balance"], "random");
        return;
    };
    let kind = pool.text(draft, "type");
    let hash = "a client's address keeps its server; awe4lb never chooses the last host so, and fails with one alone";
    let (balance, difference) = match kind.map(|kind| kind.text) {
        None | Some("weight") => ("random", None),
        Some("roundRobin") => ("round_robin", None),
        Some("leastConn") if is_udp => ("least_connections", Some("awe4lb refuses it for UDP")),
        Some("leastConn") => ("least_connections", None),
        Some("ipHash") => ("source_hash", Some(hash)),
        Some(_) => (
            "random",
            Some("awe4lb 0.7 does not know it; random took its place"),
        ),
    };
    draft.set(backend, &["balance"], balance);
    if let Some(kind) = kind {
        match difference {
            Some(text) => draft.differs(kind.id, at, text),
            None => draft.translated(kind.id),
        }
    }
    let is_weighted = kind.is_some_and(|kind| kind.text == "weight");
    let mut read = Vec::new();
    let mut has_ignored = false;
    for mut host in pool.tables(draft, "hosts", at) {
        let addr = host.table(draft, "addr", at).and_then(|addr| socket(addr, draft));
        let mut keys = Vec::new();
        for key in ["weight", "priority"] {
            let Some((id, number)) = host.number(draft, key) else {
                continue;
            };
            has_ignored |= !is_weighted;
            if is_weighted && number != 1 {
                keys.push((key, Value::from(number.min(u16::MAX.into()))));
            }
            draft.translated(id);
        }
        // what the editor shows of it
        host.scalar(draft, "state")
            .into_iter()
            .for_each(|state| draft.translated(state.id));
        host.finish(draft);
        match addr {
            Some(addr) => read.push((addr, keys)),
            None => draft.comment(at, "A host without an addr that can be read is left out."),
        }
    }
    let hosts: BTreeSet<_> = read.iter().map(|((host, _), _)| host.as_str()).collect();
    let has_same_host = hosts.len() < read.len();
    for ((host, port), keys) in &read {
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let addr = joined(host, port);
        let server = draft.server_name(name, if has_same_host { &addr } else { host });
        let mut entries = vec![("addr", Value::Text(addr))];
        entries.extend(keys.iter().cloned());
        draft.set(backend, &["servers", &server], Value::table(entries));
    }
    if has_ignored {
        draft.comment(
            at,
            "awe4lb goes by weight and priority where the type is weight alone, so they are left out.",
        );
    }
    pool.finish(draft);
}

/// Translates `healthCheck` of a match.
pub fn health_check(place: &Match<'_>, check: Option<Fields<'_>>, draft: &mut Draft) {
    let section = draft.section(&["backends", &place.backend_name, "health_check"]);
    let at = At::In(section);
    let Some(mut check) = check else {
        match place.is_udp {
            // UDP is not checked by Convey either, unless it is told to
            true => draft.set(section, &["enabled"], false),
            false => times(section, 5_000, 2_500, draft),
        }
        return;
    };
    check.set_home(at);
    let interval = check.number(draft, "intervalMs");
    let timeout = check.number(draft, "timeoutMs");
    if let Some(mut exec) = check.table(draft, "exec", at) {
        let mut words: Vec<Value> = Vec::new();
        draft.set(section, &["kind"], "exec");
        if let Some(command) = exec.text(draft, "command") {
            let (program, is_moved) = paths::program(command.text);
            words.push(Value::Text(program));
            match is_moved {
                true => draft.differs(command.id, at, paths::MOVED),
                false => draft.differs(
                    command.id,
                    at,
                    "it runs as Convey's user, without capabilities: see COMMANDS in convey(8)",
                ),
            }
        }
        if let Some((id, args)) = exec.list(draft, "args") {
            words.extend(args.into_iter().map(Value::from));
            draft.translated(id);
        }
        draft.set(section, &["command"], Value::List(words));
        exec.finish(draft);
    } else if place.is_udp {
        draft.set(section, &["enabled"], true);
        draft.comment(
            at,
            "awe4lb refuses a check of UDP without a command: this one connects by TCP.",
        );
    }
    let number =
        |said: Option<(_, u64)>, usual| said.map_or(usual, |(_, millis)| millis).clamp(1, 86_400_000);
    times(
        section,
        number(interval, 5_000),
        number(timeout, 2_500).min(3_600_000),
        draft,
    );
    for (id, _) in interval.into_iter().chain(timeout) {
        draft.translated(id);
    }
    check.finish(draft);
}

fn times(section: SectionId, interval: u64, timeout: u64, draft: &mut Draft) {
    let interval = Duration::from_millis(interval);
    draft.set(section, &["interval"], Value::duration(interval));
    draft.set(
        section,
        &["timeout"],
        Value::duration(Duration::from_millis(timeout)),
    );
    draft.set(section, &["rise"], Value::Integer(1));
    draft.set(section, &["fall"], Value::Integer(1));
    draft.set(section, &["fast_interval"], Value::duration(interval));
    // hosts that nobody has checked yet are not used
    draft.set(section, &["initial"], "check");
}

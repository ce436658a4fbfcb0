//! Fallbacks of backends: which there are, and that none leads back.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use super::backend_name;
use crate::{
    base::BackendName,
    config::{findings::Findings, raw, users::MOST_FALLBACKS},
};

/// `fallback` of a backend.
pub fn fallback(
    name: &BackendName,
    raw: &raw::Backend,
    known: &Rc<BTreeSet<String>>,
    findings: &mut Findings,
) -> Option<BackendName> {
    let at = raw.fallback.as_ref()?;
    findings.within("fallback", |findings| {
        if at.value.0 == name.as_str() {
            findings.error(
                at.span.clone(),
                format!("backend `{name}` is its own fallback"),
                "name another backend, whose servers serve when none of this one is eligible".to_owned(),
            );
            return None;
        }
        backend_name(at, known, findings)
    })
}

/// Finds circles, each once, and rows that are too long.
pub fn check(file: &raw::File, findings: &mut Findings) {
    let fallbacks: HashMap<&str, &raw::Located<raw::BackendRef>> = (file.backends.iter())
        .flat_map(|at| &at.value.0)
        .filter_map(|(name, at)| Some((name.as_str(), at.value.fallback.as_ref()?)))
        .filter(|(name, at)| at.value.0 != *name)
        .collect();
    // in the order of the file: what is found is found at the first that leads there
    let mut starts: Vec<(&str, usize)> = (fallbacks.iter())
        .map(|(name, at)| (*name, at.span.start))
        .collect();
    starts.sort_unstable_by_key(|(_, place)| *place);
    let mut lengths: HashMap<&str, usize> = HashMap::new();
    for (start, _) in starts {
        follow(start, &fallbacks, &mut lengths, findings);
    }
}

/// Follows the fallbacks from one backend to where their number is known.
fn follow<'a>(
    start: &'a str,
    fallbacks: &HashMap<&'a str, &'a raw::Located<raw::BackendRef>>,
    lengths: &mut HashMap<&'a str, usize>,
    findings: &mut Findings,
) {
    let mut path: Vec<&str> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut here = start;
    let mut length = loop {
        if let Some(known) = lengths.get(here) {
            break *known;
        }
        if let Some(first) = place.get(here) {
            circle(&path[*first..], fallbacks, findings);
            // its length is no second fault
            lengths.extend(path.iter().map(|name| (*name, 0)));
            return;
        }
        let Some(next) = fallbacks.get(here) else {
            break 0;
        };
        place.insert(here, path.len());
        path.push(here);
        here = next.value.0.as_str();
    };
    for name in path.into_iter().rev() {
        length += 1;
        if length == MOST_FALLBACKS + 1 {
            let Some(at) = fallbacks.get(name) else { continue };
            findings.within_all(&["backends", name, "fallback"], |findings| {
                findings.error(
                    at.span.clone(),
                    format!("more than {MOST_FALLBACKS} fallbacks in a row begin at backend `{name}`"),
                    "leave some out: groups of servers in one backend have a `priority`".to_owned(),
                );
            });
        }
        lengths.insert(name, length);
    }
}

fn circle(path: &[&str], fallbacks: &HashMap<&str, &raw::Located<raw::BackendRef>>, findings: &mut Findings) {
    let (Some(first), Some(last)) = (path.first(), path.last()) else {
        return;
    };
    let Some(at) = fallbacks.get(last) else { return };
    let all = path.iter().chain([first]);
    let all: Vec<String> = all.map(|name| format!("`{name}`")).collect();
    findings.within_all(&["backends", last, "fallback"], |findings| {
        findings.error(
            at.span.clone(),
            format!("the fallbacks form a circle: {}", all.join(" -> ")),
            "remove one of them: the last backend in a row has no fallback".to_owned(),
        );
    });
}

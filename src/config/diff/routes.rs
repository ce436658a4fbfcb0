//! What differs between two lists of routes: they have no names, so what stays is found by what they say.

use std::collections::{HashMap, VecDeque};

use super::{changed, settings};
use crate::config::routing::{Route, RouteTarget};

/// Removed routes, then added, changed and moved ones in their new order. Numbers count from 1.
pub fn compare(label: &str, old: &[Route], new: &[Route], out: &mut Vec<String>) {
    if old == new {
        return;
    }
    // by new index: where it was
    let was = matched(old, new);
    let mut kept = vec![false; old.len()];
    for before in was.iter().flatten() {
        kept[*before] = true;
    }
    // neither has a match, and they have one place: one became the other
    let became = |index: usize| kept.get(index) == Some(&false) && was.get(index) == Some(&None);
    for (index, route) in old.iter().enumerate() {
        if !kept[index] && !became(index) {
            out.push(format!("{label}: {}: removed", named(index, route)));
        }
    }
    let in_place = longest_in_order(&was);
    for (index, route) in new.iter().enumerate() {
        match was[index] {
            None if became(index) => change(label, index, &old[index], route, out),
            None => out.push(format!("{label}: {}: added", named(index, route))),
            Some(before) if !in_place[index] => {
                out.push(format!(
                    "{label}: {}: moved, was {}",
                    named(index, route),
                    before + 1
                ));
            }
            Some(_) => {}
        }
    }
}

/// For each new route an old one that says the same, none twice, earlier ones first.
fn matched(old: &[Route], new: &[Route]) -> Vec<Option<usize>> {
    let text = |route: &Route| format!("{:?}", settings::route(route));
    let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (index, route) in old.iter().enumerate() {
        places.entry(text(route)).or_default().push_back(index);
    }
    new.iter()
        .map(|route| places.get_mut(&text(route))?.pop_front())
        .collect()
}

/// Which of the routes that stay are still in the same order, as many as possible: the others have moved.
fn longest_in_order(was: &[Option<usize>]) -> Vec<bool> {
    // patience sorting: `ends[n]` ends the best run of n + 1, `before` leads back
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![None; was.len()];
    for (index, place) in was.iter().enumerate() {
        let Some(place) = place else { continue };
        let length = ends.partition_point(|end| was[*end].is_some_and(|other| other < *place));
        before[index] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut in_order = vec![false; was.len()];
    let mut next = ends.last().copied();
    while let Some(index) = next {
        in_order[index] = true;
        next = before[index];
    }
    in_order
}

fn change(label: &str, index: usize, old: &Route, new: &Route, out: &mut Vec<String>) {
    let label = format!("{label}: route {}", index + 1);
    changed(out, &label, "", &settings::route(old), &settings::route(new));
    // the one key that only one side has
    let (old, new) = (&old.target, &new.target);
    let kinds = [old, new].map(|target| matches!(target, RouteTarget::Reject));
    if kinds[0] != kinds[1] {
        out.push(format!("{label}: {} -> {}", target(old), target(new)));
    }
}

/// A route by its number, its first condition and where it leads.
fn named(index: usize, route: &Route) -> String {
    let sni = route.sni.first().map(|name| (name.to_string(), route.sni.len()));
    let alpn = || {
        route
            .alpn
            .first()
            .map(|name| (name.to_string(), route.alpn.len()))
    };
    let source = || (route.source.first()).map(|from| (from.to_string(), route.source.len()));
    let destination = || (route.destination.first()).map(|to| (to.to_string(), route.destination.len()));
    let condition = sni.or_else(alpn).or_else(source).or_else(destination);
    let condition = match condition {
        None => "everything".to_owned(),
        Some((first, 1)) => first,
        Some((first, all)) => format!("{first} and {} more", all - 1),
    };
    format!("route {} ({condition} to {})", index + 1, target(&route.target))
}

fn target(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Backend(name) => format!("backend {name}"),
        RouteTarget::Reject => "reject".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BackendName;

    fn route(name: &str, backend: Option<&str>) -> Route {
        let backend = backend.map(|name| BackendName::new(name).unwrap());
        Route {
            sni: vec![name.parse().unwrap()],
            alpn: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            target: backend.map_or(RouteTarget::Reject, RouteTarget::Backend),
        }
    }

    /// Routes of the letters of a text; a capital one is rejected.
    fn routes(letters: &str) -> Vec<Route> {
        let of = |c: char| {
            let name = format!("{}.example.com", c.to_ascii_lowercase());
            route(&name, c.is_ascii_lowercase().then_some("web"))
        };
        letters.chars().map(of).collect()
    }

    fn said(old: &str, new: &str) -> Vec<String> {
        let mut out = Vec::new();
        compare("f", &routes(old), &routes(new), &mut out);
        out
    }

    #[test]
    fn routes_that_only_shift_are_not_named() {
        assert_eq!(said("abc", "abc"), Vec::<String>::new());
        assert_eq!(
            said("abc", "xabc"),
            ["f: route 1 (x.example.com to backend web): added"]
        );
        assert_eq!(
            said("abc", "ac"),
            ["f: route 2 (b.example.com to backend web): removed"]
        );
    }

    #[test]
    fn a_route_that_moves_is_said_to_have_moved_and_the_others_not() {
        assert_eq!(
            said("abcd", "dabc"),
            ["f: route 1 (d.example.com to backend web): moved, was 4"]
        );
        assert_eq!(
            said("aab", "aba"),
            ["f: route 2 (b.example.com to backend web): moved, was 3"]
        );
    }

    #[test]
    fn a_route_in_its_place_changes_key_by_key() {
        assert_eq!(said("abc", "aBc"), ["f: route 2: backend web -> reject"]);
        assert_eq!(
            said("abc", "axc"),
            ["f: route 2: sni [\"b.example.com\"] -> [\"x.example.com\"]"]
        );
        assert_eq!(
            said("a", "BC"),
            [
                "f: route 1: sni [\"a.example.com\"] -> [\"b.example.com\"]",
                "f: route 1: backend web -> reject",
                "f: route 2 (c.example.com to reject): added",
            ]
        );
    }
}

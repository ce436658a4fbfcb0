//! A match of a server: which connections it takes, and the pool that they go to.

use super::{
    certificate, discovery, hosts,
    place::{Match, Takes},
};
use crate::import::{At, DirectiveId, Draft, Value, fields::Fields};

/// Translates a match.
pub fn translate(
    place: &Match<'_>,
    mut fields: Fields<'_>,
    certificates: &mut Vec<Value>,
    draft: &mut Draft,
) -> Takes {
    let at = At::In(place.backend);
    fields.set_home(at);
    if place.is_settled {
        draft.comment(
            at,
            "No connection comes here: a match before this one takes them all, in awe4lb, too.",
        );
    }
    let takes = match fields.table(draft, "op", At::In(place.frontend)) {
        Some(op) => route(place, op, draft),
        None => {
            if !place.is_settled {
                draft.set(place.frontend, &["backend"], place.backend_name.as_str());
            }
            Takes::All
        }
    };
    if let Some(tls) = fields.table(draft, "tls", at) {
        let own = certificate(tls, Some(&place.backend_name), draft);
        match place.ends_tls {
            true => certificates.extend(own),
            false if own.is_some() => draft.comment(
                at,
                "A certificate counts for nothing where the server has no tls.",
            ),
            false => {}
        }
    }
    let pool = fields.table(draft, "pool", at);
    hosts::translate(place.backend, &place.backend_name, pool, place.is_udp, draft);
    let discover = fields.table(draft, "discover", at);
    if let Some(discover) = discover {
        discovery::translate(&place.backend_name, discover, draft);
    }
    hosts::health_check(place, fields.table(draft, "healthCheck", at), draft);
    fields.finish(draft);
    takes
}

fn route(place: &Match<'_>, mut op: Fields<'_>, draft: &mut Draft) -> Takes {
    let at = At::In(place.frontend);
    if place.is_udp {
        draft.comment(at, "Routes are for TCP: a frontend of UDP has one backend.");
        op.finish(draft);
        draft.set(place.frontend, &["backend"], place.backend_name.as_str());
        return Takes::All;
    }
    let mut keys = Vec::new();
    let mut is_whole = true;
    for (name, key) in [("sni", "sni"), ("host", "source")] {
        let Some(mut table) = op.table(draft, name, at) else {
            continue;
        };
        let said = condition(&mut table, draft);
        table.finish(draft);
        let Some((id, operator, text)) = said else {
            is_whole = false;
            continue;
        };
        let value = if key == "sni" {
            pattern(operator, text)
        } else {
            network(operator, text)
        };
        match value {
            Some(value) => {
                keys.push((key, value));
                draft.translated(id);
            }
            None => {
                is_whole = false;
                draft.no_equal(id, at, UNREAD);
            }
        }
    }
    op.finish(draft);
    // a route that lacks one of its conditions would take too much
    if !is_whole || keys.is_empty() {
        let text = format!(
            "Without its condition there is no route to backend {}.",
            place.backend_name
        );
        draft.comment(at, &text);
        return Takes::Nothing;
    }
    let route = draft.item(&["frontends", place.frontend_name, "routes"]);
    for (key, value) in keys {
        draft.set(route, &[key], value);
    }
    draft.set(route, &["backend"], place.backend_name.as_str());
    Takes::Some
}

const UNREAD: &str = "a route goes by a name or a pattern of names (sni), and by networks of clients (source), such as \"10.0.0.0/8\"; the route \
                      is left out";

/// The one operator of a condition, and its text.
fn condition<'t>(table: &mut Fields<'t>, draft: &mut Draft) -> Option<(DirectiveId, &'static str, &'t str)> {
    let mut found = None;
    for operator in ["equals", "startsWith", "endsWith", "contains"] {
        if let Some(scalar) = table.text(draft, operator) {
            match found {
                None => found = Some((scalar.id, operator, scalar.text)),
                Some(_) => draft.no_equal(
                    scalar.id,
                    table.home(),
                    "awe4lb takes one operator of a condition",
                ),
            }
        }
    }
    found
}

fn pattern(operator: &str, text: &str) -> Option<Value> {
    let text = text.to_lowercase();
    let literal = regex::escape(&text);
    Some(Value::Text(match operator {
        "equals" => text,
        "startsWith" if text.ends_with('.') => format!("{text}*"),
        "endsWith" if text.starts_with('.') => format!("*{text}"),
        "startsWith" => format!("~^{literal}"),
        "endsWith" => format!("~{literal}$"),
        "contains" => format!("~{literal}"),
        _ => return None,
    }))
}

/// An address, or the network of the addresses that begin so.
fn network(operator: &str, text: &str) -> Option<Value> {
    match operator {
        "equals" => text
            .parse::<std::net::IpAddr>()
            .ok()
            .map(|ip| Value::Text(ip.to_string())),
        "startsWith" => {
            let octets: Option<Vec<u8>> = text
                .strip_suffix('.')?
                .split('.')
                .map(|part| part.parse().ok())
                .collect();
            let mut octets = octets?;
            let bits = octets.len() * 8;
            if bits > 24 {
                return None;
            }
            octets.resize(4, 0);
            let text: Vec<_> = octets.iter().map(u8::to_string).collect();
            Some(Value::Text(format!("{}/{bits}", text.join("."))))
        }
        _ => None,
    }
}

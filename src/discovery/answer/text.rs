//! A server a line: gobetween's `host:port weight=5 priority=1 max_connections=10 sni=name`, in any order and with `name=`, or
//! awe4lb's `host port [weight priority]`. `#` begins a comment, a line without anything else counts for nothing. Or a server a
//! line in another form, which an expression reads.

use std::net::IpAddr;

use super::{Answer, Collector, Limits, Malformed, Named, Place};
use crate::config::LinePattern;

/// Reads an answer.
pub(super) fn parse(bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    let text = utf8(bytes)?;
    let mut collector = Collector::new(limits);
    for (line, number) in text.lines().zip(1..) {
        let place = Place::Line(number);
        let content = line.split_once('#').map_or(line, |(content, _)| content);
        let mut words = content.split_whitespace();
        let Some(first) = words.next() else { continue };
        let wrong = |why: String| Malformed::Server(place, why);
        // tabs are white space
        (content.split('\t').try_for_each(super::plain)).map_err(wrong)?;
        let rest: Vec<&str> = words.collect();
        // without a port it is the first of two words
        if first.parse::<IpAddr>().is_ok() || !first.contains(':') {
            let (addr, named) = spaced(first, &rest).map_err(wrong)?;
            collector.add(place, &addr, &named)?;
        } else {
            collector.add(place, first, &keyed(&rest).map_err(wrong)?)?;
        }
    }
    Ok(collector.finish())
}

/// Reads an answer by an expression.
pub(super) fn parse_by(pattern: &LinePattern, bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    let mut collector = Collector::new(limits);
    for (line, place) in utf8(bytes)?.lines().zip((1..).map(Place::Line)) {
        let Some(found) = pattern.find(line) else { continue };
        let wrong = |why: String| Malformed::Server(place, why);
        let (Some(host), Some(port)) = (found("host"), found("port")) else {
            let missing = if found("host").is_none() { "host" } else { "port" };
            return Err(wrong(format!("pattern finds no {missing}")));
        };
        let number = |key: &str| {
            found(key)
                .map(|text| number(key, text))
                .transpose()
                .map_err(wrong)
        };
        let named = Named {
            name: found("name"),
            weight: number("weight")?,
            priority: number("priority")?,
            max_connections: number("max_connections")?,
            sni: found("sni"),
        };
        let addr = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        collector.add(place, &addr, &named)?;
    }
    Ok(collector.finish())
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// `host port`, then nothing, two numbers, or keys.
fn spaced<'a>(host: &str, rest: &[&'a str]) -> Result<(String, Named<'a>), String> {
    let Some((port, rest)) = rest.split_first() else {
        return Err(format!("`{host}` has no port; write {host}:PORT or {host} PORT"));
    };
    let addr = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let named = match rest {
        [weight, priority] if !weight.contains('=') => Named {
            weight: Some(number("weight", weight)?),
            priority: Some(number("priority", priority)?),
            ..Named::default()
        },
        rest => keyed(rest)?,
    };
    Ok((addr, named))
}

fn keyed<'a>(words: &[&'a str]) -> Result<Named<'a>, String> {
    let mut named = Named::default();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("`{word}` is not such as weight=1"));
        };
        let is_new = match key {
            "weight" => named.weight.replace(number(key, value)?).is_none(),
            "priority" => named.priority.replace(number(key, value)?).is_none(),
            "max_connections" => named.max_connections.replace(number(key, value)?).is_none(),
            "sni" => named.sni.replace(value).is_none(),
            "name" => named.name.replace(value).is_none(),
            _ => {
                return Err(format!(
                    "`{key}` is none of weight, priority, max_connections, sni, name"
                ));
            }
        };
        if !is_new {
            return Err(format!("`{key}` is there twice"));
        }
    }
    Ok(named)
}

fn number(key: &str, text: &str) -> Result<u64, String> {
    super::digits(text).ok_or_else(|| format!("{key} `{text}` is not a number"))
}

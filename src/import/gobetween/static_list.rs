//! A line that names a server: `host:port weight=1 priority=1 max_connections=0 sni=NAME`, in this order.

/// What such a line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// An address or a name.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// 1 unless it says otherwise.
    pub weight: u64,
    /// 1 unless it says otherwise.
    pub priority: u64,
    /// 0 is no limit.
    pub max_connections: u64,
    /// The name that it is for.
    pub sni: Option<&'a str>,
}

/// Reads one, single blanks between its parts.
pub fn parse(line: &str) -> Option<Listed<'_>> {
    let mut parts = line.split(' ');
    let (host, port) = parts.next()?.rsplit_once(':')?;
    let mut listed = Listed {
        host: host.trim_start_matches('[').trim_end_matches(']'),
        port: port.parse().ok().filter(|port| *port > 0)?,
        weight: 1,
        priority: 1,
        max_connections: 0,
        sni: None,
    };
    if listed.host.is_empty() || listed.host.contains(char::is_whitespace) {
        return None;
    }
    let mut last = 0;
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let number = || {
            value
                .parse()
                .ok()
                .filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let order = match key {
            "weight" => {
                listed.weight = number()?;
                1
            }
            "priority" => {
                listed.priority = number()?;
                2
            }
            "max_connections" => {
                listed.max_connections = number()?;
                3
            }
            "sni" if !value.is_empty() => {
                listed.sni = Some(value);
                4
            }
            _ => return None,
        };
        if order <= last {
            return None;
        }
        last = order;
    }
    Some(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_parts_in_one_order() {
        let listed =
            parse("localhost:8000 weight=5 priority=2 max_connections=10 sni=example.com").expect("a server");
        assert_eq!((listed.host, listed.port), ("localhost", 8_000));
        assert_eq!(
            (listed.weight, listed.priority, listed.max_connections),
            (5, 2, 10)
        );
        assert_eq!(listed.sni, Some("example.com"));
        assert_eq!(parse("[::1]:80").map(|listed| listed.host), Some("::1"));
        for line in [
            "",
            "host",
            "host:0",
            "a:1 priority=1 weight=1",
            "a:1  weight=1",
            "a:1 weight=-1",
            "a:1 x=1",
            "a:b",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}

//! `convey connections`.

use std::io::Write;

use super::{
    args::ConnectionsArgs,
    client::{Client, percent_encode},
    outcome::Outcome,
    text::{Align, Cell, Style, Table, bytes, colour_wanted, time},
};
use crate::{admin::views::Connections, base::exit};

/// Lists open connections.
pub fn run(args: &ConnectionsArgs, client: &Client) -> Outcome {
    let connections: Connections = client.get(&target(args))?.parse()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &connections).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(draw(&connections, colour_wanted(&out)).as_bytes())?;
    }
    out.flush()?;
    Ok(exit::OK)
}

fn target(args: &ConnectionsArgs) -> String {
    let filters = [
        ("frontend", &args.frontend),
        ("backend", &args.backend),
        ("server", &args.server),
    ];
    let filters: String = filters
        .iter()
        .filter_map(|(key, value)| {
            value
                .as_ref()
                .map(|value| format!("&{key}={}", percent_encode(value)))
        })
        .collect();
    format!("/v1/connections?limit={}{filters}", args.limit)
}

fn draw(connections: &Connections, colour: bool) -> String {
    if connections.connections.is_empty() {
        return "no open connections\n".to_owned();
    }
    let mut table = Table::new(&[
        ("CLIENT", Align::Left),
        ("FRONTEND", Align::Left),
        ("BACKEND", Align::Left),
        ("SERVER", Align::Left),
        ("WORKER", Align::Right),
        ("AGE", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
    ]);
    for connection in &connections.connections {
        table.row(vec![
            Cell::plain(&connection.client),
            Cell::plain(&connection.frontend),
            Cell::plain(&connection.backend),
            connection
                .server
                .as_ref()
                .map_or_else(|| Cell::new("-", Style::Dim), Cell::plain),
            Cell::plain(connection.worker.map_or_else(String::new, |w| w.to_string())),
            Cell::plain(connection.age_seconds.map_or_else(String::new, time)),
            Cell::plain(connection.bytes_in.map_or_else(String::new, bytes)),
            Cell::plain(connection.bytes_out.map_or_else(String::new, bytes)),
        ]);
    }
    let mut out = table.render(colour);
    let shown = connections.connections.len();
    if shown < connections.total {
        out.push_str(&format!(
            "the {shown} oldest of {}; more with --limit\n",
            connections.total
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::Connection;

    #[test]
    fn filters_travel_percent_encoded() {
        let args = ConnectionsArgs {
            frontend: None,
            backend: Some("a&b".into()),
            server: Some("ß".into()),
            limit: 10,
            json: false,
            target: super::super::args::Target { socket: None },
        };
        assert_eq!(
            target(&args),
            "/v1/connections?limit=10&backend=a%26b&server=%C3%9F"
        );
    }

    #[test]
    fn connections_are_listed_and_the_rest_is_counted() {
        let connection = Connection {
            client: "192.0.2.7:50312".into(),
            frontend: "web".into(),
            backend: "web".into(),
            server: Some("a".into()),
            worker: 0,
            age_seconds: 75.0,
            bytes_in: 1200,
            bytes_out: 0,
        };
        let connecting = Connection {
            client: "[2001:db8::7]:1".into(),
            server: None,
            age_seconds: 0.1,
            worker: 1,
            ..connection.clone()
        };
        let connections = Connections {
            total: 5231,
            connections: vec![connection, connecting],
        };
        assert_eq!(
            draw(&connections, false),
            "\
CLIENT           FRONTEND  BACKEND  SERVER  WORKER     AGE      IN  OUT
192.0.2.7:50312  web       web      a            0  1m 15s  1.2 kB  0 B
[2001:db8::7]:1  web       web      -            1      0s  1.2 kB  0 B
the 2 oldest of 5231; more with --limit
"
        );
        assert_eq!(draw(&Connections::default(), false), "no open connections\n");
    }
}

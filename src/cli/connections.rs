//! `convey connections`.

use std::{fmt::Display, io::Write};

use super::{
    args::ConnectionsArgs,
    client::{Client, percent_encode},
    outcome::CommandResult,
    text::{Align, Cell, Style, Table, bytes, colour_wanted, time},
};
use crate::{
    admin::views::{Connection, Connections, Flow},
    base::exit,
};

/// Lists open connections.
pub fn run(args: &ConnectionsArgs, client: &Client) -> CommandResult {
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

/// Connections of the proxy, and below them passthrough flows.
fn draw(all: &Connections, colour: bool) -> String {
    if all.connections.is_empty() {
        return "no open connections\n".to_owned();
    }
    let proxied: Vec<&Connection> = all.connections.iter().filter(|c| c.flow.is_none()).collect();
    let flows: Vec<(&Connection, &Flow)> = (all.connections.iter())
        .filter_map(|c| Some((c, c.flow.as_ref()?)))
        .collect();
    let mut out = String::new();
    if !proxied.is_empty() {
        out.push_str(&connections(&proxied).render(colour));
    }
    if !flows.is_empty() {
        if !proxied.is_empty() {
            out.push('\n');
        }
        out.push_str(&flow_table(&flows).render(colour));
    }
    let shown = all.connections.len();
    if shown < all.total {
        let which = if flows.is_empty() { "the " } else { "" };
        let oldest = if flows.is_empty() { "oldest " } else { "" };
        out.push_str(&format!(
            "{which}{shown} {oldest}of {}; more with --limit\n",
            all.total
        ));
    }
    out
}

fn connections(list: &[&Connection]) -> Table {
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
    for connection in list {
        table.row(vec![
            Cell::plain(connection.client),
            Cell::plain(&connection.frontend),
            known(connection.backend.as_ref()),
            known(connection.server.as_ref()),
            known(connection.worker),
            known(connection.age_seconds.map(time)),
            known(connection.bytes_in.map(bytes)),
            known(connection.bytes_out.map(bytes)),
        ]);
    }
    table
}

fn flow_table(list: &[(&Connection, &Flow)]) -> Table {
    let mut table = Table::new(&[
        ("CLIENT", Align::Left),
        ("PROTOCOL", Align::Left),
        ("TO", Align::Left),
        ("FRONTEND", Align::Left),
        ("BACKEND", Align::Left),
        ("SERVER", Align::Left),
        ("SOURCE", Align::Left),
        ("STATE", Align::Left),
        ("IDLE", Align::Right),
    ]);
    for (connection, flow) in list {
        table.row(vec![
            Cell::plain(connection.client),
            Cell::plain(&connection.protocol),
            Cell::plain(flow.vip),
            Cell::plain(&connection.frontend),
            known(connection.backend.as_ref()),
            known(connection.server.as_ref()),
            known(flow.nat),
            Cell::plain(&flow.state),
            Cell::plain(time(flow.idle_seconds)),
        ]);
    }
    table
}

fn known<T: Display>(text: Option<T>) -> Cell {
    text.map_or_else(|| Cell::new("-", Style::Dim), Cell::plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{BackendName, ClientAddr, FrontendName, ListenAddr, Protocol, ServerName},
        config::Mode,
        flow::FlowState,
    };

    fn client(addr: &str) -> ClientAddr {
        ClientAddr(addr.parse().expect("an address"))
    }

    #[test]
    fn filters_travel_percent_encoded() {
        let args = ConnectionsArgs {
            frontend: None,
            backend: Some("a&b".into()),
            server: Some("ß".into()),
            limit: 10,
            json: false,
            target: super::super::args::DaemonArgs { socket: None },
        };
        assert_eq!(
            target(&args),
            "/v1/connections?limit=10&backend=a%26b&server=%C3%9F"
        );
    }

    #[test]
    fn connections_are_listed_and_the_rest_is_counted() {
        let connection = Connection {
            client: client("192.0.2.7:50312"),
            protocol: Protocol::Tcp.into(),
            mode: Mode::Proxy.into(),
            frontend: FrontendName::new("web").expect("a name"),
            backend: Some(BackendName::new("web").expect("a name")),
            server: ServerName::new("a").ok(),
            worker: Some(0),
            age_seconds: Some(75.0),
            bytes_in: Some(1200),
            bytes_out: Some(0),
            flow: None,
        };
        let connecting = Connection {
            client: client("[2001:db8::7]:1"),
            server: None,
            age_seconds: Some(0.1),
            worker: Some(1),
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

    #[test]
    fn passthrough_flows_are_a_table_of_their_own() {
        let flow = Connection {
            client: client("192.0.2.7:50312"),
            protocol: Protocol::Udp.into(),
            mode: Mode::Passthrough.into(),
            frontend: FrontendName::new("dns").expect("a name"),
            backend: Some(BackendName::new("dns").expect("a name")),
            server: ServerName::new("ns1").ok(),
            worker: None,
            age_seconds: None,
            bytes_in: None,
            bytes_out: None,
            flow: Some(Flow {
                vip: ListenAddr::new("10.0.0.53:53".parse().expect("an address")),
                nat: "10.1.0.1:61234".parse().ok(),
                state: FlowState::Established.into(),
                idle_seconds: 3.0,
                expires_in_seconds: 57.0,
            }),
        };
        let connections = Connections {
            total: 2,
            connections: vec![flow],
        };
        assert_eq!(
            draw(&connections, false),
            "\
CLIENT           PROTOCOL  TO            FRONTEND  BACKEND  SERVER  SOURCE          STATE        IDLE
192.0.2.7:50312  udp       10.0.0.53:53  dns       dns      ns1     10.1.0.1:61234  established    3s
1 of 2; more with --limit
"
        );
    }
}

//! `convey connections`.

use std::{fmt::Display, io::Write};

use super::{
    args::ConnectionsArgs,
    client::{Client, percent_encode},
    outcome::CommandResult,
    table::{Align, Table},
    text::{Cell, Style, bytes, colour_wanted, terminal_columns, time},
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
        let width = terminal_columns(&out);
        out.write_all(draw(&connections, width, colour_wanted(&out)).as_bytes())?;
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

/// Connections of the proxy, and below them flows of the packet modes.
fn draw(all: &Connections, width: Option<usize>, colour: bool) -> String {
    if all.connections.is_empty() {
        return "no open connections\n".to_owned();
    }
    let proxied: Vec<&Connection> = all.connections.iter().filter(|c| c.flow.is_none()).collect();
    let flows: Vec<(&Connection, &Flow)> = (all.connections.iter())
        .filter_map(|c| Some((c, c.flow.as_ref()?)))
        .collect();
    let mut out = String::new();
    if !proxied.is_empty() {
        out.push_str(&connections(&proxied, width).render(colour));
    }
    if !flows.is_empty() {
        if !proxied.is_empty() {
            out.push('\n');
        }
        out.push_str(&flow_table(&flows, width).render(colour));
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

fn connections(list: &[&Connection], width: Option<usize>) -> Table {
    let mut table = Table::new(&[
        ("CLIENT", Align::Left),
        ("FRONTEND", Align::Left),
        ("SNI", Align::Left),
        ("SERVER", Align::Left),
        ("ADDRESS", Align::Left),
        ("LOCAL", Align::Left),
        ("AGE", Align::Right),
        ("IDLE", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("WORKER", Align::Right),
    ]);
    for connection in list {
        table.row(vec![
            Cell::plain(connection.client),
            frontend(connection),
            known(connection.sni.as_deref()),
            server(connection),
            known(connection.server_addr),
            known(connection.local),
            known(connection.age_seconds.map(time)),
            known(connection.idle_seconds.map(time)),
            known(connection.bytes_in.map(bytes)),
            known(connection.bytes_out.map(bytes)),
            known(connection.worker),
        ]);
    }
    if list.iter().all(|connection| connection.sni.is_none()) {
        table.remove("SNI");
    }
    table.fit(width, &["WORKER", "LOCAL", "AGE", "ADDRESS", "SNI"])
}

fn flow_table(list: &[(&Connection, &Flow)], width: Option<usize>) -> Table {
    let mut table = Table::new(&[
        ("CLIENT", Align::Left),
        ("MODE", Align::Left),
        ("PROTOCOL", Align::Left),
        ("TO", Align::Left),
        ("FRONTEND", Align::Left),
        ("SERVER", Align::Left),
        ("ADDRESS", Align::Left),
        ("SOURCE", Align::Left),
        ("STATE", Align::Left),
        ("IDLE", Align::Right),
    ]);
    for (connection, flow) in list {
        table.row(vec![
            Cell::plain(connection.client),
            Cell::plain(&connection.mode),
            Cell::plain(&connection.protocol),
            Cell::plain(flow.vip),
            frontend(connection),
            server(connection),
            known(connection.server_addr),
            known(flow.nat),
            Cell::plain(&flow.state),
            Cell::plain(time(flow.idle_seconds)),
        ]);
    }
    table.fit(
        width,
        &["SOURCE", "PROTOCOL", "MODE", "ADDRESS", "FRONTEND", "TO"],
    )
}

fn frontend(connection: &Connection) -> Cell {
    if connection.frontend_removed {
        Cell::new(format!("{} (removed)", connection.frontend), Style::Notice)
    } else {
        Cell::plain(&connection.frontend)
    }
}

/// The server with its backend, or the backend alone until there is one.
fn server(connection: &Connection) -> Cell {
    match (&connection.backend, &connection.server) {
        (None, _) => Cell::new("-", Style::Dim),
        (Some(backend), None) => Cell::plain(format!("{backend}/-")),
        (Some(backend), Some(server)) if connection.server_removed => {
            Cell::new(format!("{backend}/{server} (removed)"), Style::Notice)
        }
        (Some(backend), Some(server)) => Cell::plain(format!("{backend}/{server}")),
    }
}

fn known<T: Display>(text: Option<T>) -> Cell {
    text.map_or_else(|| Cell::new("-", Style::Dim), Cell::plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{BackendName, ClientAddr, FrontendName, ListenAddr, Protocol, Remote, ServerAddr, ServerName},
        config::Mode,
        flow::FlowState,
    };

    fn client(addr: &str) -> Remote<ClientAddr> {
        addr.parse::<std::net::SocketAddr>().expect("an address").into()
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
            server_addr: "10.0.0.1:80".parse().ok().map(ServerAddr::new),
            server_removed: true,
            frontend_removed: false,
            sni: None,
            tls: None,
            server_tls: None,
            local: "10.0.0.9:40001".parse().ok(),
            idle_seconds: Some(12.0),
            worker: Some(0),
            age_seconds: Some(75.0),
            bytes_in: Some(1200),
            bytes_out: Some(0),
            flow: None,
        };
        let connecting = Connection {
            client: client("[2001:db8::7]:1"),
            server: None,
            server_addr: None,
            server_removed: false,
            sni: None,
            tls: None,
            server_tls: None,
            frontend_removed: true,
            local: None,
            idle_seconds: Some(0.0),
            age_seconds: Some(0.1),
            worker: Some(1),
            ..connection.clone()
        };
        let connections = Connections {
            total: 5231,
            connections: vec![connection, connecting],
        };
        assert_eq!(
            draw(&connections, None, false),
            "\
CLIENT           FRONTEND       SERVER           ADDRESS      LOCAL              AGE  IDLE      IN  OUT  WORKER
192.0.2.7:50312  web            web/a (removed)  10.0.0.1:80  10.0.0.9:40001  1m 15s   12s  1.2 kB  0 B       0
[2001:db8::7]:1  web (removed)  web/-            -            -                   0s    0s  1.2 kB  0 B       1
the 2 oldest of 5231; more with --limit
"
        );
        assert_eq!(
            draw(&connections, Some(80), false),
            "\
CLIENT           FRONTEND       SERVER           ADDRESS         AGE  IDLE
192.0.2.7:50312  web            web/a (removed)  10.0.0.1:80  1m 15s   12s
[2001:db8::7]:1  web (removed)  web/-            -                0s    0s
the 2 oldest of 5231; more with --limit
"
        );
        assert_eq!(
            draw(&Connections::default(), None, false),
            "no open connections\n"
        );
    }

    #[test]
    fn flows_are_a_table_of_their_own() {
        let flow = Connection {
            client: client("192.0.2.7:50312"),
            protocol: Protocol::Udp.into(),
            mode: Mode::Passthrough.into(),
            frontend: FrontendName::new("dns").expect("a name"),
            backend: Some(BackendName::new("dns").expect("a name")),
            server: ServerName::new("ns1").ok(),
            server_addr: "10.1.0.2:53".parse().ok().map(ServerAddr::new),
            server_removed: false,
            sni: None,
            tls: None,
            server_tls: None,
            frontend_removed: false,
            local: "10.1.0.1:61234".parse().ok(),
            idle_seconds: Some(3.0),
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
            draw(&connections, None, false),
            "\
CLIENT           MODE         PROTOCOL  TO            FRONTEND  SERVER   ADDRESS      SOURCE          STATE        IDLE
192.0.2.7:50312  passthrough  udp       10.0.0.53:53  dns       dns/ns1  10.1.0.2:53  10.1.0.1:61234  established    3s
1 of 2; more with --limit
"
        );
    }
}

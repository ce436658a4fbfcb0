//! Sequence numbers of the conversations in a case, where its words do not say them.

use std::collections::HashMap;

/// First sequence numbers of clients and servers.
const CLIENT: u32 = 1_000;
const SERVER: u32 = 5_000;

/// The conversations of a case, by client.
#[derive(Default)]
pub struct Numbering {
    talks: HashMap<String, Talk>,
    /// Clients by NAT address.
    clients: HashMap<String, String>,
}

/// Both sides' next numbers.
#[derive(Clone, Copy)]
struct Talk {
    client: u32,
    server: u32,
}

impl Numbering {
    /// The packet in words with the numbers that an honest host gives it; those that it says stay.
    pub fn fill(&mut self, text: &str, is_from_server: bool) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["tcp", source, ">", destination, rest @ ..] = words.as_slice() else {
            return text.to_owned();
        };
        let value = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key));
        let flags = value("flags=").unwrap_or_default();
        let len = value("len=").and_then(|len| len.parse().ok()).unwrap_or(0);
        let client = if is_from_server {
            self.clients.get(*destination).cloned().unwrap_or_default()
        } else {
            (*source).to_owned()
        };
        let talk = self.talks.entry(client).or_insert(Talk {
            client: CLIENT + 1,
            server: SERVER + 1,
        });
        let (own, other, first) = if is_from_server {
            (&mut talk.server, talk.client, SERVER)
        } else {
            (&mut talk.client, talk.server, CLIENT)
        };
        if flags.contains('S') {
            *own = first;
        }
        let mut filled = text.to_owned();
        if value("seq=").is_none() {
            filled += &format!(" seq={own}");
        }
        if value("ack=").is_none() && flags.contains('A') {
            filled += &format!(" ack={other}");
        }
        *own += len + u32::from(flags.contains('S')) + u32::from(flags.contains('F'));
        filled
    }

    /// A client's packet has left from this NAT address.
    pub fn left(&mut self, client: String, nat: String) {
        self.clients.insert(nat, client);
    }
}

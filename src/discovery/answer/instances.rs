//! What platforms run: instances with names, labels and addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::{Answer, Collector, Limits, Malformed, Named, Place, digits, plain};
use crate::{
    base::{IpServerAddr, ServerName},
    config::Families,
};

/// What begins the labels that say how a server is used.
const PREFIX: &str = "convey.";

/// What a source names and is no server, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// How many.
    pub count: usize,
    /// The first of them, and why.
    pub first: Option<String>,
}

/// An instance that is a server at one address.
#[derive(Debug)]
pub(super) struct Instance {
    pub name: String,
    pub addr: SocketAddr,
    pub share: Share,
}

/// How a server is used, as far as labels say.
#[derive(Debug, Clone, Default)]
pub(super) struct Share {
    weight: Option<u64>,
    priority: Option<u64>,
    max_connections: Option<u64>,
    sni: Option<String>,
}

impl PassedOver {
    /// Another one.
    pub(super) fn note(&mut self, what: &str, why: &str) {
        self.count += 1;
        // of a text from outside no more than a line's worth
        let short = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect::<String>()
        };
        self.first
            .get_or_insert_with(|| format!("{}: {}", short(what), short(why)));
    }
}

impl Share {
    /// As labels say: `convey.weight`, `convey.priority`, `convey.max_connections`, `convey.sni`.
    ///
    /// # Errors
    /// One is no number.
    pub(super) fn of<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        let number = |key: &str| match label(&format!("{PREFIX}{key}")) {
            None => Ok(None),
            Some(text) => match digits(text.trim()) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("its label {PREFIX}{key} is not a whole number")),
            },
        };
        Ok(Self {
            weight: number("weight")?,
            priority: number("priority")?,
            max_connections: number("max_connections")?,
            sni: label("convey.sni").map(|sni| sni.trim().to_owned()),
        })
    }

    /// With names for which a label of another program says the server is.
    pub(super) fn or_sni(mut self, sni: Option<&str>) -> Self {
        if self.sni.is_none() {
            self.sni = sni.map(|sni| sni.trim().to_owned());
        }
        self
    }
}

/// The port of an instance: that of its label `convey.port`, or else of the configuration.
///
/// # Errors
/// There is none.
pub(super) fn port<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    configured: Option<NonZeroU16>,
) -> Result<u16, String> {
    match (label("convey.port"), configured) {
        (Some(text), _) => (text.trim().parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| "its label convey.port is not a port".to_owned()),
        (None, Some(port)) => Ok(port.get()),
        (None, None) => Err("it has no label convey.port, and the section has no port".to_owned()),
    }
}

/// The one of several addresses of an instance that is a server.
pub(super) fn choose(addresses: impl IntoIterator<Item = IpAddr>, family: Families) -> Option<IpAddr> {
    let wanted = |ip: &IpAddr| match family {
        Families::Any => true,
        Families::Ipv4 => ip.is_ipv4(),
        Families::Ipv6 => ip.is_ipv6(),
    };
    // IPv4 before IPv6, and whatever the order of an answer the same one
    addresses.into_iter().filter(wanted).min()
}

/// The answer that instances are. What cannot be a server is passed over, for who labels it may not be who configures this.
///
/// # Errors
/// There are too many.
pub(super) fn answer(
    instances: &[Instance],
    mut passed_over: PassedOver,
    limits: Limits,
) -> Result<Answer, Malformed> {
    let mut of_name: HashMap<&str, usize> = HashMap::new();
    for instance in instances {
        *of_name.entry(&instance.name).or_default() += 1;
    }
    let mut collector = Collector::new(limits);
    for (instance, number) in instances.iter().zip(1..) {
        let Instance { name, addr, share } = instance;
        let is_alone = of_name.get(name.as_str()) == Some(&1);
        let called = match (name.as_str(), is_alone) {
            ("", _) => addr.to_string(),
            (name, true) => name.to_owned(),
            (name, false) => format!("{name}@{addr}"),
        };
        // one without a name that can be said is called by its address
        let is_name = plain(&called).is_ok() && ServerName::new(&called).is_ok();
        let named = Named {
            name: is_name.then_some(called.as_str()),
            weight: share.weight,
            priority: share.priority,
            max_connections: share.max_connections,
            sni: share.sni.as_deref(),
        };
        match collector.add_at(Place::Element(number), IpServerAddr::new(*addr), &named) {
            Ok(_) => {}
            Err(Malformed::Server(_, why)) => passed_over.note(&called, &why),
            Err(error) => return Err(error),
        }
    }
    let mut answer = collector.finish();
    answer.passed_over = passed_over;
    Ok(answer)
}

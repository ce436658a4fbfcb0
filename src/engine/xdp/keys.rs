//! Keys as the path has them, and as the maps do. Pure.

use super::layout::{EndpointKey, FlowKey, OriginKey};
use crate::flow::stored::{Key, ReturnOrigin};

/// A packet's two ends as the maps have them.
#[must_use]
pub fn flow_key(key: &Key) -> FlowKey {
    FlowKey {
        from: key.from(),
        to: EndpointKey {
            addr: key.to(),
            protocol: key.protocol(),
        },
    }
}

/// A packet's two ends as the path has them.
#[must_use]
pub fn path_key(key: &FlowKey) -> Key {
    Key::new(key.to.protocol, key.from, key.to.addr)
}

/// Where a client's packets come from, as the maps have it.
#[must_use]
pub const fn origin_key(origin: &ReturnOrigin) -> OriginKey {
    OriginKey {
        ifindex: origin.ifindex,
        mac: origin.mac,
        tags: origin.tags,
        is_ipv6: origin.is_v6,
    }
}

/// The same as the path has it.
#[must_use]
pub const fn return_origin(origin: &OriginKey) -> ReturnOrigin {
    ReturnOrigin {
        ifindex: origin.ifindex,
        mac: origin.mac,
        tags: origin.tags,
        is_v6: origin.is_ipv6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Mac, Protocol},
        packet::Tags,
    };

    #[test]
    fn keys_come_back_as_they_were() {
        for (from, to) in [
            ("192.0.2.1:5", "198.51.100.1:80"),
            ("[2001:db8::1]:5", "[2001:db8::2]:80"),
        ] {
            let key = Key::new(Protocol::Udp, from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(path_key(&flow_key(&key)), key);
        }
        let origin = ReturnOrigin {
            ifindex: 7,
            mac: Mac([2, 0, 0, 0, 0, 9]),
            tags: Tags::new(&[0x81, 0, 0, 5]).unwrap(),
            is_v6: true,
        };
        assert_eq!(return_origin(&origin_key(&origin)), origin);
    }
}

//! The list of keys.

use super::*;

#[test]
fn every_key_of_a_frontend_or_backend_that_is_not_its_own_may_stand_in_defaults() {
    let keys = |list: Vec<&'static str>| list.into_iter().collect::<std::collections::BTreeSet<_>>();
    let mut expected = keys(Frontend::keys());
    expected.extend(Backend::keys());
    for own in [
        "listen_addr",
        "backend",
        "routes",
        "servers",
        "fallback",
        "discovery",
        "agent_check",
    ] {
        assert!(expected.remove(own), "{own}");
    }
    assert_eq!(keys(Defaults::keys()), expected);
}

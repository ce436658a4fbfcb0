//! Which servers can be chosen, and how many.

use super::*;

#[test]
fn a_backend_counts_the_servers_that_can_be_chosen() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1), ("s3", 1, 0), ("spare", 2, 1)]);
    let counts = |site: &mut Site| {
        let built = site.build();
        let counts = built.snapshot.backends["web"].counts;
        assert_eq!(built.snapshot.counts, counts, "the only backend");
        (counts.servers, counts.up, counts.eligible)
    };
    assert_eq!(counts(&mut site), (4, 4, 2), "no weight, and a standby");
    site.admin("s1", Some(AdminState::Draining));
    site.health("s2", ServerState::Down);
    assert_eq!(counts(&mut site), (4, 2, 1), "the standby");
    site.health("spare", ServerState::Down);
    assert_eq!(counts(&mut site), (4, 1, 0));
    site.config.frontends.clear();
    site.config.backends.clear();
    assert_eq!(site.build().snapshot.counts, ServerCounts::default());
}

#[test]
fn the_last_usable_server_is_not_ejected() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1), ("spare", 2, 1)]);
    site.eject("s1");
    assert_eq!(site.in_use(), ["s2"], "another one of its group serves");
    site.eject("s2");
    assert_eq!(site.in_use(), ["spare"], "a standby serves");
    site.health("spare", ServerState::Down);
    assert_eq!(
        site.in_use(),
        ["s1", "s2"],
        "nothing else is left, and no check of theirs fails"
    );
    assert_eq!(site.view().servers[0].state, ServerState::Down);
    site.health("s2", ServerState::Down);
    assert_eq!(site.in_use(), ["s1"], "a failing check counts");
    site.admin("s1", Some(AdminState::Draining));
    assert_eq!(site.in_use(), [""; 0], "and so does the operator");
    site.health("spare", ServerState::Up);
    site.admin("s1", None);
    assert_eq!(site.in_use(), ["spare"]);
}

#[test]
fn what_would_be_eligible_can_be_asked_before() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    site.health("s2", ServerState::Down);
    site.build();
    let pool = site.pools.get("web").unwrap();
    let drained = pool.with_override(
        "s1",
        Override {
            admin: Some(AdminState::Draining),
            weight: None,
        },
    );
    assert_eq!(site.builder.eligible(pool, site.now()), 1);
    assert_eq!(site.builder.eligible(&drained, site.now()), 0);
}

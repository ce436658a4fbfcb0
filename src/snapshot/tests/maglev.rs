//! The table that packet modes choose by.

use super::*;

/// The servers that the Maglev table names for a thousand flows.
fn chosen(view: &BackendView) -> BTreeSet<String> {
    let table = view.maglev.as_ref().unwrap();
    let choose = |flow_hash: u64| {
        let pick = Pick {
            client_hash: 0,
            flow_hash: flow_hash.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            random: 0,
            load: &|_| 0,
            usable: &|_| true,
        };
        let index = table.pick(&mut PickState::default(), &pick)?;
        Some(view.servers[index].name.to_string())
    };
    (1..=1_000).filter_map(choose).collect()
}

#[test]
fn only_a_backend_of_packet_modes_has_a_maglev_table_and_it_keeps_its_own_balance_for_proxies() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    assert!(site.view().maglev.is_none());
    let mut site = packet_site(&[("s1", 1, 1)]);
    site.backend().balance = Algorithm::RoundRobin;
    let view = site.view();
    let maglev = view.maglev.as_ref().unwrap();
    assert!(maglev.is_of(Algorithm::Maglev, view.balancer.candidates(), HashKey::default()));
    assert!(
        view.balancer
            .is_of(Algorithm::RoundRobin, maglev.candidates(), HashKey::default())
    );
    site.backend().balance = Algorithm::Maglev;
    let view = site.view();
    assert!(
        Arc::ptr_eq(view.maglev.as_ref().unwrap(), &view.balancer),
        "one table"
    );
}

#[test]
fn the_maglev_table_names_only_servers_that_get_new_connections() {
    let mut site = packet_site(&[
        ("a", 1, 1),
        ("b", 1, 3),
        ("c", 1, 1),
        ("d", 1, 0),
        ("spare", 2, 1),
    ]);
    let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(chosen(&site.view()), names(&["a", "b", "c"]));
    site.health("a", ServerState::Down);
    site.admin("b", Some(AdminState::Draining));
    assert_eq!(chosen(&site.view()), names(&["c"]));
    site.admin("c", Some(AdminState::Maintenance));
    assert_eq!(chosen(&site.view()), names(&["spare"]));
    site.health("spare", ServerState::Down);
    assert_eq!(chosen(&site.view()), names(&[]));
}

#[test]
fn the_maglev_table_is_made_anew_only_when_states_or_weights_change() {
    let mut site = packet_site(&[("a", 1, 1), ("b", 1, 1)]);
    site.backend().balance = Algorithm::RoundRobin;
    let first = site.view().maglev.clone().unwrap();
    site.seconds = 5.0;
    assert!(Arc::ptr_eq(&site.view().maglev.clone().unwrap(), &first));
    site.server("a").weight = 2;
    assert!(!Arc::ptr_eq(&site.view().maglev.clone().unwrap(), &first));
}

#[test]
fn another_hash_seed_remakes_the_tables_and_nothing_else() {
    let mut site = packet_site(&[("a", 1, 1), ("b", 1, 1)]);
    site.backend().balance = Algorithm::RoundRobin;
    let before = site.view();
    site.config.global.hash_seed = Some(HashSeed("secret".into()));
    let built = site.build();
    assert!(built.concerns_packets, "the packet modes' services choose by it");
    let after = site.view();
    assert!(
        Arc::ptr_eq(&before.balancer, &after.balancer),
        "the round goes on"
    );
    let tables = [&before, &after].map(|view| view.maglev.clone().unwrap());
    assert!(!Arc::ptr_eq(&tables[0], &tables[1]));
    let key = HashKey::of(site.config.global.hash_seed.as_ref());
    assert!(tables[1].is_of(Algorithm::Maglev, tables[0].candidates(), key));
    assert!(
        Arc::ptr_eq(&tables[1], site.view().maglev.as_ref().unwrap()),
        "the same seed"
    );
}

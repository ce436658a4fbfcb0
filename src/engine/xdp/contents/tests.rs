use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::*;
use crate::{
    base::{Protocol, ServerState},
    config::{DsrMethod, HashSeed, Mode},
    engine::xdp::layout::LOCALS,
    flow::{
        Resolution,
        testing::{CLIENT_MAC, CLIENTS, SERVERS, Site, own_mac, server_addr, server_mac},
    },
};

fn plan(site: &Site, numbers: &mut Numbers) -> Contents {
    plan_in(site, &BTreeMap::new(), (false, false), numbers)
}

/// `has`: passthrough flows, and flows of the slow path.
fn plan_in(
    site: &Site,
    attached: &BTreeMap<u32, bool>,
    has: (bool, bool),
    numbers: &mut Numbers,
) -> Contents {
    let circumstances = Circumstances {
        attached,
        has_passthrough: has.0,
        has_others: has.1,
        moved: &HashMap::new(),
        max_flows: 1_024,
    };
    Contents::plan(&site.services, &site.hops, &circumstances, numbers)
}

fn site(servers: u8) -> Site {
    Site::new(Mode::Dsr, Protocol::Tcp, servers)
}

/// The number in a slot, as the program reads it.
fn slot(elements: &[u64], slot: usize) -> u16 {
    (elements[slot / 4] >> (slot % 4 * 16)) as u16
}

#[test]
fn the_program_chooses_whom_the_path_chooses() {
    for seed in [None, Some(HashSeed("correct horse".to_owned()))] {
        let mut site = site(5);
        site.config.global.hash_seed = seed.clone();
        site.apply();
        let mut numbers = Numbers::default();
        let contents = plan(&site, &mut numbers);
        let (key, table) = contents.tables.first_key_value().expect("a table");
        assert_eq!((key.addr, key.protocol), (site.vip(), Protocol::Tcp));
        let elements: Vec<u64> = table.elements().collect();
        assert_eq!(elements.len(), TABLE_ELEMENTS);
        let service = site.services.dsr().next().unwrap();
        let maglev = service.maglev.unwrap();
        for port in 1_024..2_024 {
            let client = SocketAddr::from(([203, 0, 113, 9], port));
            let place = maglev.slot(maglev.flow_hash(client, site.vip())).unwrap();
            let owner = maglev.slots()[place] as usize;
            let target = service.targets[owner].as_ref().unwrap();
            assert_eq!(Some(slot(&elements, place)), numbers.number(target, true));
        }
        let keyed = maglev
            .key()
            .secret()
            .map_or([0; 3], |[first, second]| [1, first, second]);
        assert_eq!(keyed[0], u64::from(seed.is_some()));
        assert_eq!(elements[TABLE_FLAGS..], keyed);
        assert_eq!(
            maglev.slots().len().div_ceil(4),
            TABLE_FLAGS,
            "the last slot has an element"
        );
    }
}

#[test]
fn a_target_says_where_its_packets_go_and_whether_they_may() {
    let mut site = site(1);
    let mut numbers = Numbers::default();
    let target =
        |site: &Site, numbers: &mut Numbers| *plan(site, numbers).targets.first_key_value().unwrap().1;
    let resolved = target(&site, &mut numbers);
    assert_eq!(resolved.address, server_addr(false, 1).ip());
    assert_eq!(
        (resolved.hop, resolved.interface_mac),
        (server_mac(1), own_mac(SERVERS))
    );
    assert_eq!((resolved.ifindex, resolved.idle), (SERVERS, 900_000));
    let can_be_sent = TargetFlags {
        known: true,
        ..TargetFlags::default()
    };
    assert_eq!(resolved.flags, can_be_sent);

    site.health(1, ServerState::Down);
    site.apply();
    assert_eq!(
        target(&site, &mut numbers).flags,
        TargetFlags {
            down: true,
            ..can_be_sent
        }
    );
    site.health(1, ServerState::Up);

    let ip = server_addr(false, 1).ip();
    let hop = site.hops.servers.get_mut(&ip).unwrap();
    hop.resolution = Resolution::Unresolved { ifindex: SERVERS };
    site.apply();
    assert_eq!(target(&site, &mut numbers).flags, TargetFlags::default());
    assert_eq!(numbers.iter().count(), 1, "all the time it is one target");
}

#[test]
fn by_method_l2_a_server_behind_a_gateway_gets_nothing() {
    let mut site = site(1);
    site.backend().dsr_method = DsrMethod::L2;
    site.apply();
    let flags = |site: &Site| plan(site, &mut Numbers::default()).targets[&1].flags;
    assert_eq!(
        flags(&site),
        TargetFlags {
            known: true,
            l2: true,
            ..TargetFlags::default()
        }
    );
    site.hops.behind_gateways.insert(server_addr(false, 1).ip());
    assert_eq!(
        flags(&site),
        TargetFlags {
            l2: true,
            ..TargetFlags::default()
        }
    );
}

#[test]
fn what_the_slow_path_has_to_ask_for_has_no_table_and_its_flows_go_there() {
    let mut site = site(2);
    let mut numbers = Numbers::default();
    assert_eq!(plan(&site, &mut numbers).tables.len(), 1);
    site.per_client(3, 0);
    let limited = plan(&site, &mut numbers);
    assert!(limited.tables.is_empty());
    assert!(limited.targets.values().all(|target| target.flags.slow));
}

#[test]
fn without_servers_that_are_up_there_is_no_table() {
    let mut site = site(1);
    site.health(1, ServerState::Down);
    site.apply();
    assert!(plan(&site, &mut Numbers::default()).tables.is_empty());
}

#[test]
fn our_own_addresses_and_vips_begin_no_flows_and_absent_vips_are_left_alone() {
    let mut site = site(1);
    let (own, vip) = ("192.0.2.77".parse().unwrap(), site.vip().ip());
    site.hops.own.insert(own);
    site.hops.absent_vips.insert(vip);
    let addresses = plan(&site, &mut Numbers::default()).addresses;
    assert_eq!(addresses.get(&octets(own)), Some(&ADDRESS_OWN));
    assert_eq!(addresses.get(&octets(vip)), Some(&(ADDRESS_OWN | ADDRESS_ABSENT)));
}

#[test]
fn passthrough_flows_and_interfaces_are_said() {
    let site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let settings = plan(&site, &mut Numbers::default()).settings;
    assert!(settings.has_passthrough && !settings.any_interface && !settings.has_moved);
    assert_eq!((settings.max_flows, settings.max_half_open), (1_024, 256));
    assert_eq!(settings.nat_ports, site.services.nat_ports());
    let direct = Site::new(Mode::Dsr, Protocol::Tcp, 1);
    let of = |has| {
        let attached = BTreeMap::from([(SERVERS, true), (99, false)]);
        plan_in(&direct, &attached, has, &mut Numbers::default())
    };
    for (passthrough, others) in [(false, false), (true, false), (false, true)] {
        let settings = of((passthrough, others)).settings;
        assert_eq!(
            (settings.has_passthrough, settings.has_others),
            (passthrough, others)
        );
    }
    let known = Port {
        mac: own_mac(SERVERS),
        is_native: true,
        mtu: direct.hops.interfaces[&SERVERS].mtu,
    };
    assert_eq!(
        of((false, false)).interfaces,
        BTreeMap::from([(SERVERS, known)]),
        "one has no link address yet"
    );
}

#[test]
fn a_passthrough_target_says_by_which_addresses_and_to_which_limit_its_flows_begin() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    site.nat_ports(61_000, 61_099);
    site.ports_per_client(crate::config::PortsPerClient::Count(NonZeroU32::new(7).unwrap()));
    let mut numbers = Numbers::default();
    let contents = plan(&site, &mut numbers);
    assert_eq!(contents.tables.len(), 1, "the program chooses");
    let (number, source) = contents.sources.first_key_value().unwrap();
    let server = numbers.get(*number).unwrap().server;
    let ip = server_addr(false, 1).ip();
    let expected = SourceValue {
        locals: site.hops.servers[&ip].locals.to_vec(),
        server: server.into(),
        share: 7,
        half_of_ports: 50,
        prefixes: (32, 64),
        is_served: false,
    };
    assert_eq!(*source, expected);
    assert!(contents.targets[number].flags.known && !contents.targets[number].flags.l2);
    assert_ne!(contents.sources[&2].server, source.server);

    let hop = site.hops.servers.get_mut(&ip).unwrap();
    hop.locals = vec![IpAddr::from([10, 0, 0, 1]); LOCALS + 1].into();
    let too_many = plan(&site, &mut numbers).sources[number].clone();
    assert_eq!(
        too_many,
        SourceValue {
            locals: vec![],
            ..expected.clone()
        }
    );

    site.backend().servers.remove("s1");
    site.apply();
    let retired = plan(&site, &mut numbers);
    assert!(retired.sources[number].locals.is_empty(), "none begin there");
    assert_eq!(
        retired.sources[number].server, expected.server,
        "but some may end"
    );
    let direct = plan(&Site::new(Mode::Dsr, Protocol::Tcp, 2), &mut Numbers::default());
    assert!(direct.sources.is_empty());
}

#[test]
fn an_address_that_clients_send_to_is_told_from_those_that_are_ours_alone() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let vip = site.vip();
    site.nat_ports(vip.port(), vip.port());
    let hop = site.hops.servers.values_mut().next().unwrap();
    hop.locals = [vip.ip()].into();
    let is_served = |site: &Site| plan(site, &mut Numbers::default()).sources[&1].is_served;
    assert!(is_served(&site));
    site.nat_ports(61_000, 61_001);
    assert!(!is_served(&site));
}

#[test]
fn return_hops_that_have_moved_are_told() {
    let site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let origin = ReturnOrigin {
        ifindex: CLIENTS,
        mac: CLIENT_MAC,
        tags: crate::packet::Tags::default(),
        is_v6: false,
    };
    let link = crate::packet::LinkHeader {
        ifindex: SERVERS,
        source: own_mac(SERVERS),
        destination: server_mac(9),
    };
    let moved = HashMap::from([(origin, ReturnLink { link, mtu: 1_400 })]);
    let circumstances = Circumstances {
        attached: &BTreeMap::new(),
        has_passthrough: false,
        has_others: false,
        moved: &moved,
        max_flows: 1,
    };
    let contents = Contents::plan(
        &site.services,
        &site.hops,
        &circumstances,
        &mut Numbers::default(),
    );
    assert!(contents.settings.has_moved);
    let hop = HopValue {
        mac: server_mac(9),
        interface_mac: own_mac(SERVERS),
        ifindex: SERVERS,
        mtu: 1_400,
    };
    let key = crate::engine::xdp::keys::origin_key(&origin).to_bytes();
    assert_eq!(contents.moved, BTreeMap::from([(key, hop)]));
}

#[test]
fn of_a_table_and_a_target_only_what_has_changed_is_written() {
    let mut site = site(3);
    let mut numbers = Numbers::default();
    let before = plan(&site, &mut numbers);
    site.apply();
    let same = plan(&site, &mut numbers);
    assert_eq!(before, same, "another snapshot of the same");
    site.health(2, ServerState::Down);
    site.apply();
    let after = plan(&site, &mut numbers);
    let targets = Difference::between(&before.targets, &after.targets);
    assert_eq!((targets.put.len(), targets.gone.len()), (1, 0));
    assert_eq!(Difference::between(&before.tables, &after.tables).put.len(), 1);
    let none = BTreeMap::new();
    assert_eq!(Difference::between(&after.tables, &none).gone.len(), 1);
}

#[test]
fn what_was_taken_over_stays_as_it_was_written_until_its_way_is_known_or_it_is_configured() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    let mut before = Numbers::default();
    let written = plan(&site, &mut before);
    let nobody = crate::flow::Nobody::new(1);
    let mut numbers = Numbers::taken_over(before.noted(), |record| {
        let of = crate::flow::LeftBehind {
            frontend: record.identity.frontend.clone(),
            server: record.identity.server.clone(),
            ip: record.identity.ip,
            shift: record.identity.shift,
            has_vip: false,
            is_down: false,
            idle: std::time::Duration::from_millis(7),
        };
        FlowTarget::left_behind(of, &nobody)
    })
    .unwrap();
    let [first, second] = [1, 2];
    site.backend().servers.remove("s2");
    let hops = site.hops.clone();
    site.hops.servers.clear();
    site.apply();
    let kept = |site: &Site, numbers: &mut Numbers, written: &Contents| {
        let mut wanted = plan(site, numbers);
        wanted.keep(written, numbers);
        wanted
    };
    let wanted = kept(&site, &mut numbers, &written);
    assert!(
        !wanted.targets[&first].flags.known,
        "it is configured, and its way is not known"
    );
    assert_eq!(wanted.targets[&second], written.targets[&second]);
    let source = SourceValue {
        locals: Vec::new(),
        ..written.sources[&second].clone()
    };
    assert_eq!(wanted.sources[&second], source, "no flow begins towards it");

    let mut torn = written.clone();
    torn.targets.get_mut(&second).unwrap().version = 1;
    torn.sources.get_mut(&second).unwrap().server = 77;
    let wanted = kept(&site, &mut numbers, &torn);
    assert!(!wanted.targets[&second].flags.known);
    assert_eq!(wanted.sources[&second].server, source.server);

    site.hops = hops;
    let wanted = kept(&site, &mut numbers, &written);
    assert_eq!(
        wanted.targets[&second].idle, 7,
        "the way is known here, and nothing else newer"
    );
}

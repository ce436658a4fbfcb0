use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    base::Protocol,
    config::Mode,
    flow::{LeftBehind, Nobody, Services, testing::Site},
};

/// The targets of a site's only service.
fn targets(services: &Services) -> Vec<Arc<FlowTarget>> {
    let service = services.dsr().next().expect("a service of mode dsr");
    service.targets.iter().flatten().cloned().collect()
}

/// At the only service's address.
fn at(target: &Arc<FlowTarget>, is_dsr: bool) -> Configured<'_> {
    Configured {
        target,
        is_dsr,
        protocol: Protocol::Tcp,
        range: "198.51.100.1:80".parse().expect("an address"),
    }
}

/// These in mode dsr.
fn direct(targets: &[Arc<FlowTarget>]) -> impl Iterator<Item = Configured<'_>> {
    targets.iter().map(|target| at(target, true))
}

fn site(servers: u8) -> Vec<Arc<FlowTarget>> {
    targets(&Site::new(Mode::Dsr, Protocol::Tcp, servers).services)
}

#[test]
fn a_target_keeps_its_number_over_reloads() {
    let mut numbers = Numbers::default();
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 3);
    numbers.configure(direct(&targets(&site.services)));
    let before: Vec<_> = (targets(&site.services).iter())
        .map(|target| numbers.number(target, true))
        .collect();
    site.backend().servers.remove("s2");
    site.apply();
    let left = targets(&site.services);
    numbers.configure(direct(&left));
    assert_eq!(numbers.number(&left[0], true), before[0]);
    assert_eq!(numbers.number(&left[1], true), before[2]);
    let newest = numbers.get(before[0].unwrap()).unwrap();
    assert!(Arc::ptr_eq(&newest.target, &left[0]), "as last configured");
}

#[test]
fn a_removed_target_keeps_its_number_until_a_whole_scan_finds_no_flow_of_it() {
    let mut numbers = Numbers::default();
    let all = site(2);
    numbers.configure(direct(&all));
    let removed = numbers.number(&all[1], true).unwrap();
    numbers.scan_begins();
    numbers.configure(direct(&all[..1]));
    assert!(numbers.scan_ended(|_| false).is_empty(), "it may have missed one");
    numbers.scan_begins();
    assert!(
        numbers.scan_ended(|number| number == removed).is_empty(),
        "there is a flow"
    );
    numbers.scan_begins();
    let over = numbers.scan_ended(|_| false);
    assert_eq!(
        over.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [removed]
    );
    assert_eq!(numbers.number(&all[1], true), None);
}

#[test]
fn a_flow_of_a_target_that_had_the_number_before_names_nothing() {
    let mut numbers = Numbers::default();
    let all = site(1);
    let number = numbers.take(&all[0], true).unwrap();
    let before = numbers.get(number).unwrap().incarnation;
    numbers.scan_begins();
    assert_eq!(numbers.scan_ended(|_| false).len(), 1);
    numbers.next = number;
    assert_eq!(numbers.take(&all[0], true), Some(number));
    assert!(numbers.of_flow(number.into(), before).is_none());
    let now = numbers.get(number).unwrap().incarnation;
    assert!(numbers.of_flow(number.into(), now).is_some());
    assert!(numbers.of_flow(1 << 20, now).is_none());
}

#[test]
fn when_all_numbers_are_given_there_is_none_for_another() {
    let mut numbers = Numbers::default();
    let all = site(3);
    let first = numbers.take(&all[0], true).unwrap();
    let given = numbers.get(first).unwrap().clone();
    numbers
        .all
        .extend((1..=MAX).map(|number| (number, given.clone())));
    assert_eq!(numbers.take(&all[1], true), None);
    numbers.configure(direct(&all[1..2]));
    assert!(!numbers.is_short(), "nothing can be done about it");
    numbers.all.remove(&77);
    assert!(numbers.is_short());
    numbers.configure(direct(&all[1..2]));
    assert_eq!(numbers.number(&all[1], true), Some(77));
    assert!(!numbers.is_short());
}

#[test]
fn flows_of_the_mode_that_a_frontend_had_keep_their_number_and_their_server() {
    let mut numbers = Numbers::default();
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let target = |site: &Site| {
        let mut services = site.services.views();
        let service = services.next().expect("a service");
        (Arc::clone(service.targets[0].as_ref().unwrap()), service.is_dsr)
    };
    let (before, is_dsr) = target(&site);
    assert!(!is_dsr);
    numbers.configure([at(&before, false)]);
    let number = numbers.number(&before, false).unwrap();
    site.frontend_mut().mode = Mode::Dsr;
    site.backend().dsr_method = crate::config::DsrMethod::Nft;
    site.health(1, crate::base::ServerState::Down);
    site.apply();
    let (now, is_dsr) = target(&site);
    assert!(is_dsr && now.is_down());
    numbers.configure([at(&now, true)]);
    assert_ne!(numbers.number(&now, true), Some(number));
    let old = numbers.get(number).unwrap();
    assert!(!old.is_dsr && !old.is_configured());
    assert!(old.target.is_down(), "it is as it is now");
    let server = old.server;
    assert_eq!(
        numbers.get(numbers.number(&now, true).unwrap()).unwrap().server,
        server
    );
    numbers.scan_begins();
    assert_eq!(numbers.scan_ended(|_| false).len(), 1);
    assert!(numbers.has_server(server), "another target has it");
    numbers.configure([]);
    numbers.scan_begins();
    assert_eq!(numbers.scan_ended(|_| false).len(), 1);
    assert!(!numbers.has_server(server));
}

#[test]
fn flows_of_a_frontend_that_is_renamed_know_how_their_server_is_and_others_do_not() {
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 1);
    let before = targets(&site.services);
    let mut numbers = Numbers::default();
    numbers.configure(direct(&before));
    let number = numbers.number(&before[0], true).unwrap();
    let name = FrontendName::new("other").expect("a name");
    site.frontend_mut().name = name;
    site.health(1, crate::base::ServerState::Down);
    site.apply();
    let now = targets(&site.services);
    let elsewhere = Configured {
        range: "198.51.100.1:81".parse().expect("an address"),
        ..at(&now[0], true)
    };
    numbers.configure([elsewhere]);
    let of = |numbers: &Numbers| Arc::clone(&numbers.get(number).unwrap().target);
    assert!(!of(&numbers).is_down(), "another port's frontend is another");
    numbers.configure(direct(&now));
    assert!(of(&numbers).is_down());
    let other = numbers.number(&now[0], true).unwrap();
    assert_ne!(other, number, "new flows are counted apart");
    numbers.scan_begins();
    let over = numbers.scan_ended(|_| false);
    assert_eq!(
        over.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [number]
    );
    assert_eq!(numbers.number(&now[0], true), Some(other));
}

#[derive(Debug, Clone)]
enum Step {
    Configure(Vec<usize>),
    Take(usize),
    ScanBegins,
    ScanEnds(Vec<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || prop::collection::vec(0..6_usize, 0..6);
    let step = prop_oneof![
        some().prop_map(Step::Configure),
        (0..6_usize).prop_map(Step::Take),
        Just(Step::ScanBegins),
        some().prop_map(Step::ScanEnds),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn whatever_comes_numbers_are_of_one_target_and_incarnations_are_never_given_again(steps in steps()) {
        let all = site(6);
        let mut numbers = Numbers::default();
        // what each incarnation was of
        let mut incarnations: HashMap<u32, (u16, usize)> = HashMap::new();
        for step in steps {
            let mut kept = HashSet::new();
            match step {
                Step::Configure(which) => {
                    numbers.configure(which.iter().map(|index| at(&all[*index], true)));
                    kept.extend(which);
                }
                Step::Take(which) => {
                    prop_assert!(numbers.take(&all[which], true).is_some());
                    kept.insert(which);
                }
                Step::ScanBegins => numbers.scan_begins(),
                Step::ScanEnds(with_flows) => {
                    let found: HashSet<_> =
                        with_flows.iter().filter_map(|index| numbers.number(&all[*index], true)).collect();
                    let over = numbers.scan_ended(|number| found.contains(&number));
                    prop_assert!(over.iter().all(|(number, of)| !found.contains(number) && !of.is_configured()));
                }
            }
            for index in kept {
                prop_assert!(numbers.number(&all[index], true).is_some());
            }
            let mut seen = HashSet::new();
            for (index, target) in all.iter().enumerate() {
                let Some(number) = numbers.number(target, true) else { continue };
                prop_assert!(number != 0 && seen.insert(number), "two targets with one number");
                let numbered = numbers.get(number).expect("what has a number");
                prop_assert!(Arc::ptr_eq(&numbered.target, target));
                let first = *incarnations.entry(numbered.incarnation).or_insert((number, index));
                prop_assert_eq!(first, (number, index));
            }
        }
    }
}

/// What there is of an engine before, all of it to be configured yet.
fn taken_over(noted: Noted) -> Option<Numbers> {
    let nobody = Nobody::new(1);
    Numbers::taken_over(noted, |record| {
        let of = LeftBehind {
            frontend: record.identity.frontend.clone(),
            server: record.identity.server.clone(),
            ip: record.identity.ip,
            shift: record.identity.shift,
            has_vip: record.identity.has_vip,
            is_down: false,
            idle: Duration::from_secs(60),
        };
        FlowTarget::left_behind(of, &nobody)
    })
}

#[test]
fn numbers_that_are_taken_over_are_those_of_the_same_targets_and_of_no_others() {
    let mut before = Numbers::default();
    let all = site(3);
    before.configure(direct(&all));
    let mut numbers = taken_over(before.noted()).unwrap();
    assert!(
        numbers
            .iter()
            .all(|(_, numbered)| numbered.is_left_behind && !numbered.is_configured())
    );
    numbers.configure(direct(&all[..2]));
    let through = at(&all[2], false);
    numbers.configure(direct(&all[..2]).chain([through]));
    for target in &all[..2] {
        let number = numbers.number(target, true);
        assert_eq!(number, before.number(target, true));
        let numbered = numbers.get(number.unwrap()).unwrap();
        assert!(Arc::ptr_eq(&numbered.target, target) && !numbered.is_left_behind);
    }
    let other = numbers.number(&all[2], false).unwrap();
    assert!(
        before.get(other).is_none(),
        "another mode has a number of its own"
    );
}

#[test]
fn a_target_whose_frontend_was_renamed_meanwhile_goes_on_as_that_and_who_is_gone_until_its_flows_are() {
    let mut before = Numbers::default();
    let all = site(2);
    before.configure(direct(&all));
    let mut numbers = taken_over(before.noted()).unwrap();
    let mut renamed = Site::new(Mode::Dsr, Protocol::Tcp, 1);
    renamed.frontend_mut().name = FrontendName::new("other").expect("a name");
    renamed.apply();
    let now = targets(&renamed.services);
    numbers.configure(direct(&now));
    let of = |index: usize| before.number(&all[index], true).unwrap();
    let first = numbers.get(of(0)).unwrap();
    assert!(Arc::ptr_eq(&first.target, &now[0]) && !first.is_left_behind && !first.is_configured());
    assert!(numbers.get(of(1)).unwrap().is_left_behind);
    numbers.scan_begins();
    let over = numbers.scan_ended(|number| number == of(1));
    assert_eq!(
        over.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [of(0)]
    );
    numbers.scan_begins();
    assert_eq!(numbers.scan_ended(|_| false).len(), 1);
    assert!(!numbers.has_server(before.get(of(1)).unwrap().server));
}

#[test]
fn incarnations_that_were_given_and_not_noted_are_not_given_again() {
    let mut before = Numbers::default();
    let all = site(3);
    before.configure(direct(&all[..1]));
    let noted = before.noted();
    before.configure(direct(&all));
    let given: HashSet<_> = before.iter().map(|(_, numbered)| numbered.incarnation).collect();
    let mut numbers = taken_over(noted).unwrap();
    numbers.configure(direct(&all));
    let same = numbers.number(&all[0], true).unwrap();
    for (number, numbered) in numbers.iter() {
        assert_eq!(given.contains(&numbered.incarnation), number == same);
    }
}

#[test]
fn what_contradicts_itself_is_not_taken_over() {
    let mut before = Numbers::default();
    before.configure(direct(&site(2)));
    let right = before.noted();
    assert_eq!(taken_over(right.clone()).unwrap().noted().records, right.records);
    let wrong = |change: fn(&mut Record, &Record)| {
        let mut noted = right.clone();
        let [first, second] = &mut noted.records[..] else {
            unreachable!()
        };
        change(first, second);
        taken_over(noted).is_none()
    };
    assert!(wrong(|first, _| first.number = 0));
    assert!(wrong(|first, _| first.incarnation = 0));
    assert!(wrong(|first, _| first.server = 0));
    assert!(wrong(|first, second| first.number = second.number));
    assert!(
        wrong(|first, second| first.server = second.server),
        "two servers have it"
    );
    assert!(wrong(|first, second| first.identity = second.identity.clone()));
    assert!(
        wrong(|first, second| first.identity.server = second.identity.server.clone()),
        "a server has two"
    );
}

#[test]
fn what_is_to_be_noted_changes_when_numbers_and_places_do() {
    let mut numbers = Numbers::default();
    let all = site(2);
    let mut changes = numbers.changes();
    let mut has_changed =
        |numbers: &Numbers| std::mem::replace(&mut changes, numbers.changes()) != numbers.changes();
    numbers.configure(direct(&all));
    assert!(has_changed(&numbers));
    numbers.configure(direct(&all));
    assert!(!has_changed(&numbers));
    let elsewhere = Configured {
        range: "198.51.100.2:80".parse().unwrap(),
        ..at(&all[0], true)
    };
    numbers.configure(direct(&all).chain([elsewhere]));
    assert!(has_changed(&numbers));
    numbers.configure(direct(&all[..1]));
    let _ = has_changed(&numbers);
    numbers.scan_begins();
    assert_eq!(numbers.scan_ended(|_| false).len(), 1);
    assert!(has_changed(&numbers));
}

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::{
    base::Protocol,
    config::Mode,
    flow::{Services, testing::Site},
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
    numbers.all.remove(&77);
    assert_eq!(numbers.take(&all[2], true), Some(77));
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

//! Orders and reloads that meet, and two load balancers that share what one of them orders.

use convey::admin::views::Acme;

use crate::{
    Test,
    acme::{Ca, NAME, Site, kept, shown},
    lab::{PATIENCE, wait_until},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_reload_meanwhile_gives_an_order_up_or_leads_it_to_another_ca,
    one_load_balancer_orders_and_the_other_takes_the_files,
];

fn a_reload_meanwhile_gives_an_order_up_or_leads_it_to_another_ca() {
    let site = Site::new("acmereload");
    // it takes its time before it looks
    let ca = Ca::start(&site, "", "PEBBLE_VA_NOSLEEP= PEBBLE_VA_SLEEPTIME=15");
    let other = Ca::at(&site, &site.lab.host("ca2"), "", "");
    let tls = |names: &str| format!("acme = {{ names = [{names}] }}");
    let (cert, key) = (site.pki.path("one.pem"), site.pki.path("one.key"));
    let plain = format!("certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]\n");
    let one = format!("\"{NAME}\"");
    let of = |tls: &str, section: &str| site.config(&site.lb, &format!("{plain}{tls}"), section);
    let convey = site.lab.convey(&site.lb, &of(&tls(&one), &ca.section(&site, "")));
    let is_ordering = || {
        shown(&convey)
            .certificates
            .iter()
            .any(|one| one.ordering_seconds.is_some())
    };
    wait_until("the order is under way", PATIENCE, is_ordering);
    convey.reload(&of("", ""));
    assert_eq!(shown(&convey), Acme::default());
    assert!(
        site.served(&site.lb, NAME)
            .is_some_and(|(issuer, _)| issuer.contains("lab-ca"))
    );
    convey.reload(&of(&tls(&one), &ca.section(&site, "")));
    wait_until("the order is under way again", PATIENCE, is_ordering);
    // another CA and more names: the one under way is given up, and the new one does not wait for it
    let more = format!("\"{NAME}\", \"lab.test\"");
    convey.reload(&of(&tls(&more), &other.section(&site, "")));
    site.issued(&convey, "lab.test");
    let issued = site.served(&site.lb, NAME).expect("a certificate");
    assert!(issued.0.contains("Pebble"), "{issued:?}");
    // fewer names: the one before is served until there is another
    convey.reload(&of(&tls(&one), &other.section(&site, "")));
    assert!(
        site.served(&site.lb, NAME)
            .is_some_and(|(issuer, _)| issuer.contains("Pebble"))
    );
    wait_until("another certificate", PATIENCE, || {
        site.served(&site.lb, NAME).is_some_and(|now| now != issued)
    });
    assert!(
        site.served(&site.lb, "lab.test")
            .is_some_and(|(issuer, _)| issuer.contains("lab-ca"))
    );
}

fn one_load_balancer_orders_and_the_other_takes_the_files() {
    let site = Site::new("acmetwo");
    let ca = Ca::start(&site, "", "");
    let second = site.lab.host("second");
    let tls = format!("acme = {{ names = [\"{NAME}\"] }}");
    let leader = site
        .lab
        .convey(&site.lb, &site.config(&site.lb, &tls, &ca.section(&site, "")));
    let follower = site.lab.convey(
        &second,
        &site.config(&second, &tls, &ca.section(&site, "lead = false")),
    );
    let first = site.issued(&leader, NAME);
    assert_eq!(site.served(&second, NAME), None);
    assert!(follower.order("acme status").contains("lead = false"));
    assert_eq!(follower.cli("acme renew").status.code(), Some(64));
    let copy = || {
        let (from, to) = (kept(&leader), kept(&follower));
        let owner = "$(stat -c %u:%g";
        site.lb.run(&format!(
            "cp {from}/{NAME}.pem {to}/.new && chown {owner} {to}) {to}/.new && mv {to}/.new {to}/{NAME}.pem",
            from = from.display(),
            to = to.display()
        ));
    };
    copy();
    wait_until("the follower serves it", PATIENCE, || {
        site.served(&second, NAME)
            .is_some_and(|(_, serial)| serial == first)
    });
    leader.order("acme renew");
    wait_until("the leader has another", PATIENCE, || {
        site.served(&site.lb, NAME)
            .is_some_and(|(_, serial)| serial != first)
    });
    copy();
    wait_until("the follower has it too", PATIENCE, || {
        site.served(&second, NAME) == site.served(&site.lb, NAME)
    });
    assert_eq!(follower.status().config_generation, 1);
}

//! Servers that come by themselves, behind VIPs.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{Family, PATIENCE, servers::Witness, wait_until},
    process::rules,
    site::{Plan, Port, Site, Transport, WAYS, vip},
    talkers::Talkers,
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: servers_come_and_go_with_their_file_and_flows_of_one_that_went_live_on,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

/// Has the file name these of the servers, in both families.
fn name(site: &Site, file: &Path, of: &[usize]) {
    let lines: String = (of.iter())
        .flat_map(|index| Family::ALL.map(|family| format!("{}\n", site.servers[*index].addr_of(family, 9))))
        .collect();
    let new = file.with_extension("new");
    fs::write(&new, lines).expect("write the file of servers");
    fs::rename(new, file).expect("put it in place");
}

/// The servers that new flows come to, by each way.
fn reached(site: &Site) -> [String; 4] {
    WAYS.map(|way| {
        let meet = |_| Witness::meet(&site.client, SocketAddr::new(vip(way), 9));
        let served: Result<BTreeSet<String>, _> = (0..32).map(|turn| meet(turn).map(|w| w.server)).collect();
        let served = served.unwrap_or_else(|error| panic!("{way:?}: {error}"));
        served.into_iter().collect::<Vec<_>>().concat()
    })
}

fn servers_come_and_go_with_their_file_and_flows_of_one_that_went_live_on() {
    let site = Site::new("discovered", 3);
    let _witnesses = witnesses(&site);
    let file = site.lb.path("witness.servers");
    name(&site, &file, &[0]);
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    site.prepare_servers(&plan);
    plan.servers.clear();
    plan.backend += &format!("\ndiscovery = {{ kind = \"file\", path = {file:?}, max_removal = \"100%\" }}");
    let convey = site.convey(&plan);
    let names = |all: &str| [(); 4].map(|()| all.to_owned());
    assert_eq!(reached(&site), names("a"));
    let talkers = Talkers::start(&site.client, &everywhere(), 3);

    let wait_for = |servers: usize| {
        convey.wait_status("they are discovered", |status| {
            let of = |family: &str| {
                let backend = &status.backends[&*format!("witness-{family}")];
                backend.servers.values().filter(|server| server.eligible).count()
            };
            // the other family's are named too, and get nothing
            of("v4") == 2 * servers && of("v6") == 2 * servers
        });
    };
    name(&site, &file, &[0, 1, 2]);
    wait_for(3);
    assert_eq!(reached(&site), names("abc"));
    let b = site.servers[1].addr(9).ip().to_string();
    assert!(
        format!("{:?}", rules(&site.lb)).contains(&b),
        "rules are for b's answers too"
    );

    // the one that all flows are at goes
    name(&site, &file, &[1, 2]);
    wait_for(2);
    assert_eq!(reached(&site), names("bc"));
    talkers.expect_unbroken();

    // a reload meanwhile, and an answer that comes right after it
    convey.reload(
        &plan
            .config()
            .replace("[packet]", "[packet]\nany_interface = true"),
    );
    name(&site, &file, &[0, 2]);
    convey.reload(&plan.config());
    wait_for(2);
    wait_until("the last answer is in effect", PATIENCE, || {
        reached(&site) == names("ac")
    });
    talkers.expect_unbroken();
}

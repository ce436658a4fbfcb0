//! Replacing the configuration through the admin API.

use std::{fs, thread};

use convey::admin::views::{ConfigHistory, Reloaded};

use crate::{
    Test,
    api::{Got, ask, toml},
    lab::{Convey, PATIENCE, wait_until},
    site::{NO_CHECK, Site},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_replaced_configuration_takes_effect_and_is_rolled_back_byte_for_byte,
    single_settings_are_changed_and_comments_stay,
    of_two_writers_one_is_told_that_the_text_has_changed,
    an_edit_on_the_host_is_never_overwritten,
    a_text_that_cannot_take_effect_is_put_back,
    what_is_an_administrators_to_write_is_refused,
    a_file_that_may_not_be_written_stays_and_the_reason_is_said,
];

/// A site whose file the API may write, with a backend's settings.
pub fn text(site: &Site, settings: &str) -> String {
    let socket = site.lb.path("convey/admin.sock");
    format!(
        "# kept as it is: ä\n[admin]\nsocket = {socket:?}\nallow_config_writes = true\n[global]\nwatch_config = true\n{}",
        site.config("", &format!("{settings}\n{NO_CHECK}"))
    )
}

/// Its process may write where the file is.
pub fn writable(site: &Site) -> Convey {
    let convey = site.convey(&text(site, ""));
    site.lb.run(&format!(
        "chown nobody {0} {0}/convey.toml",
        convey.dir().display()
    ));
    convey
}

fn put(convey: &Convey, tag: &str, text: &str) -> Got {
    let sent = toml(convey, text);
    ask(
        convey,
        "PUT",
        "/v1/config",
        &format!("-H 'If-Match: {tag}' {sent}"),
    )
}

fn file(convey: &Convey) -> String {
    fs::read_to_string(convey.config_path()).expect("the file")
}

fn a_replaced_configuration_takes_effect_and_is_rolled_back_byte_for_byte() {
    let site = Site::new("api-put", 2);
    let convey = writable(&site);
    let before = file(&convey);
    let shown = ask(&convey, "GET", "/v1/config", "");
    let new = text(&site, "balance = \"random\"");
    let done: Reloaded = put(&convey, &shown.tag, &new).parse();
    assert!(
        done.changes.iter().any(|change| change.contains("random")),
        "{done:?}"
    );
    assert_eq!(file(&convey), new);
    assert_eq!(convey.status().backends["web"].balance.to_string(), "random");
    // the old tag is that of another text
    let why = put(&convey, &shown.tag, &before).refused(412);
    assert!(why.contains("read it anew"), "{why}");
    let rolled = "-H 'Content-Type: application/json' -d '{\"revision\": 1}'";
    let done: Reloaded = ask(&convey, "POST", "/v1/config/rollback", rolled).parse();
    assert!(!done.changes.is_empty());
    assert_eq!(file(&convey), before, "byte for byte");
    assert_eq!(ask(&convey, "GET", "/v1/config", "").tag, shown.tag);
    wait_until("each is kept", PATIENCE, || {
        let history: ConfigHistory = ask(&convey, "GET", "/v1/config/history", "").parse();
        history.revisions.len() == 3
    });
    let why = ask(
        &convey,
        "POST",
        "/v1/config/rollback",
        &rolled.replace("1}", "99}"),
    );
    assert!(why.refused(404).contains("no revision 99"));
}

fn single_settings_are_changed_and_comments_stay() {
    let site = Site::new("api-patch", 2);
    let convey = writable(&site);
    let before = file(&convey);
    let tag = ask(&convey, "GET", "/v1/config", "").tag;
    let patch = |tag: &str, json: &str| {
        let sent =
            format!("-H 'If-Match: {tag}' -H 'Content-Type: application/merge-patch+json' -d '{json}'");
        ask(&convey, "PATCH", "/v1/config", &sent)
    };
    let weight = "{\"backends\": {\"web\": {\"servers\": {\"a\": {\"weight\": 3}}}}}";
    let done: Reloaded = patch(&tag, weight).parse();
    assert_eq!(done.changes, ["backend web: server a: weight 1 -> 3"]);
    let after = file(&convey);
    let changed: Vec<_> = after
        .lines()
        .zip(before.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].0.contains("weight = 3"), "{changed:?}");
    assert!(patch(&tag, weight).refused(412).contains("read it anew"));
    let tag = ask(&convey, "GET", "/v1/config", "").tag;
    let why = patch(&tag, "{\"backends\": {\"web\": {\"wieght\": 3}}}").refused(422);
    assert!(why.contains("wieght"), "{why}");
    assert_eq!(file(&convey), after);
}

fn of_two_writers_one_is_told_that_the_text_has_changed() {
    let site = Site::new("api-two", 2);
    let convey = writable(&site);
    for round in 0..5 {
        let tag = ask(&convey, "GET", "/v1/config", "").tag;
        let texts =
            ["max_queue = 7", "max_queue = 8"].map(|setting| text(&site, &format!("{setting}{round}")));
        let codes = thread::scope(|scope| {
            let writers = texts.each_ref().map(|text| {
                let (convey, tag) = (&convey, tag.as_str());
                scope.spawn(move || {
                    let path = convey
                        .dir()
                        .join(format!("sent-{:?}.toml", thread::current().id()));
                    fs::write(&path, text).expect("a file");
                    let sent = format!(
                        "-H 'If-Match: {tag}' -H 'Content-Type: application/toml' --data-binary '@{}'",
                        path.display()
                    );
                    ask(convey, "PUT", "/v1/config", &sent).status
                })
            });
            writers.map(|writer| writer.join().expect("no panic"))
        });
        let mut sorted = codes;
        sorted.sort_unstable();
        assert_eq!(sorted, [200, 412], "round {round}");
        let winner = codes.iter().position(|code| *code == 200).expect("one");
        assert_eq!(file(&convey), texts[winner]);
    }
}

fn an_edit_on_the_host_is_never_overwritten() {
    let site = Site::new("api-hand", 2);
    let convey = writable(&site);
    let first = file(&convey);
    for round in 0..40_u64 {
        let tag = ask(&convey, "GET", "/v1/config", "").tag;
        let by_hand = format!("{first}# by hand {round}\n");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(std::time::Duration::from_micros(round * 400));
                convey.write_config(&by_hand);
            });
            let put = put(&convey, &tag, &format!("{first}# by the API {round}\n"));
            assert!([200, 412].contains(&put.status), "{}", put.body);
        });
        assert!(file(&convey).starts_with(&by_hand), "round {round}");
        convey.order("reload");
    }
}

fn a_text_that_cannot_take_effect_is_put_back() {
    let site = Site::new("api-back", 2);
    let convey = writable(&site);
    let before = file(&convey);
    let tag = ask(&convey, "GET", "/v1/config", "").tag;
    let _other = site
        .lb
        .inside(|| std::net::TcpListener::bind(site.lb.addr(8_080)))
        .expect("a listener");
    let frontend = format!(
        "[frontends.more]\nlisten_addr = \"{}\"\nbackend = \"web\"\n",
        site.lb.addr(8_080)
    );
    let why = put(&convey, &tag, &format!("{before}{frontend}")).refused(500);
    assert!(why.contains("8080"), "{why}");
    assert_eq!(file(&convey), before);
    assert_eq!(ask(&convey, "GET", "/v1/config", "").tag, tag);
    // what is no configuration does not get as far
    let why = put(&convey, &tag, "[frontends.x]\nlisten = 7\n").refused(422);
    assert!(why.contains("convey.toml:2:1"), "{why}");
    assert_eq!(file(&convey), before);
    assert_eq!(site.ask(4).len(), 2);
}

fn what_is_an_administrators_to_write_is_refused() {
    let site = Site::new("api-power", 2);
    let convey = writable(&site);
    let before = file(&convey);
    let tag = ask(&convey, "GET", "/v1/config", "").tag;
    for (more, what) in [
        (
            "[hooks]\non_change = [\"/bin/sh\", \"-c\", \"id\"]\n",
            "the command",
        ),
        ("[network_lists]\nl = \"/etc/shadow\"\n", "the file /etc/shadow"),
    ] {
        let why = put(&convey, &tag, &format!("{before}{more}")).refused(403);
        assert!(why.contains(what) && why.contains("on the host"), "{why}");
        assert_eq!(file(&convey), before);
    }
}

fn a_file_that_may_not_be_written_stays_and_the_reason_is_said() {
    let site = Site::new("api-rights", 2);
    let convey = site.convey(&text(&site, ""));
    site.lb.run(&format!("chmod 755 {}", convey.dir().display()));
    let before = file(&convey);
    let tag = ask(&convey, "GET", "/v1/config", "").tag;
    let why = put(&convey, &tag, &format!("{before}# more\n")).refused(500);
    assert!(why.contains("must be able to write in this directory"), "{why}");
    assert_eq!(file(&convey), before);
}

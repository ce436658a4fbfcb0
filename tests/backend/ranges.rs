//! Rules with ranges of ports.

use crate::{call, printed};

pub fn are_few_rules() {
    let printed = |method: &str, rule: &str| {
        printed(&format!(
            "print a --method {method} --interface eth0 --rule {rule}"
        ))
    };
    let nft = printed("nft", "udp,192.0.2.1,9000-9010,10.0.0.5");
    assert!(
        nft.contains("ip saddr 10.0.0.5 udp sport 9000-9010 counter ip saddr set 192.0.2.1\n"),
        "{nft}"
    );
    let mapped = printed("nft", "tcp,2001:db8::1,9000-9002,fd00::5,7000-7002");
    assert!(
        mapped.contains(
            "ip6 saddr fd00::5 tcp sport 7000-7002 counter ip6 saddr set 2001:db8::1 \
             tcp sport set tcp sport map { 7000 : 9000, 7001 : 9001, 7002 : 9002 }\n"
        ),
        "{mapped}"
    );
    // exactly the ports: 9000-9007, 9008-9009, 9010
    let tc = printed("tc", "tcp,192.0.2.1,9000-9010,10.0.0.5");
    let masks: Vec<_> = (tc.lines())
        .filter_map(|line| line.split_once("match ip sport ")?.1.split_once(" action"))
        .map(|(mask, _)| mask)
        .collect();
    assert_eq!(masks, ["9000 0xfff8", "9008 0xfffe", "9010 0xffff"]);
    for (ports, filters) in [("1-65535", 16), ("1-65534", 30), ("32768-65535", 1)] {
        let tc = printed("tc", &format!("tcp,192.0.2.1,{ports},10.0.0.5"));
        assert_eq!(tc.matches("match ip sport").count(), filters, "{ports}");
    }
    let l2 = printed("l2", "tcp,192.0.2.1,9000-9010,10.0.0.5");
    assert_eq!(l2.matches("ip address add 192.0.2.1/32").count(), 1, "{l2}");
    others_are_refused();
}

fn others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vip = "--rule tcp,192.0.2.1";
    for (status, arguments) in [
        (64, format!("{vip},90-80,10.0.0.5")),
        (64, format!("{vip},80-80,10.0.0.5")),
        (64, format!("{vip},80-,10.0.0.5")),
        (64, format!("{vip},80-81-82,10.0.0.5")),
        (64, format!("{vip},80-81,10.0.0.5,90")),
        (64, format!("{vip},80-81,10.0.0.5,90-92")),
        // answers from port 90 cannot leave from two
        (78, format!("{vip},80-90,10.0.0.6 {vip},90-91,10.0.0.6,89-90")),
        (
            78,
            format!("{vip},80-90,10.0.0.6 --rule tcp,192.0.2.2,90,10.0.0.6"),
        ),
        (0, format!("{vip},80-90,10.0.0.6 {vip},90-91,10.0.0.6")),
    ] {
        let (found, _, stderr) = call(dir.path(), &format!("print a {arguments}"));
        assert_eq!(found, status, "{arguments}: {stderr}");
    }
}

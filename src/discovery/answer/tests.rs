//! What operators rely on when a source answers.

mod platforms;

use proptest::prelude::*;

use super::*;
use crate::config::JsonPaths;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    servers: 1_000,
};

fn text(answer: &str) -> Result<Answer, String> {
    parse(&AnswerFormat::Text, answer.as_bytes(), LIMITS).map_err(|error| error.to_string())
}

fn json(answer: &str) -> Result<Answer, String> {
    parse(&AnswerFormat::Json(Box::default()), answer.as_bytes(), LIMITS).map_err(|error| error.to_string())
}

/// `name addr weight priority max_connections sni`.
fn lines(answer: Result<Answer, String>) -> Vec<String> {
    let servers = answer.unwrap().servers;
    let line = |s: &Server| {
        let sni: Vec<_> = s.sni.iter().map(HostPattern::as_str).collect();
        let most = s.max_connections.map_or(0, u32::from);
        format!(
            "{} {} {} {} {most} {}",
            s.name,
            s.addr,
            s.weight,
            s.priority,
            sni.join(",")
        )
    };
    servers.iter().map(line).collect()
}

#[test]
fn gobetweens_lines_and_awe4lbs_are_read_and_comments_are_not() {
    let answer = "# web servers\n\n10.0.0.1:8000 weight=5 priority=2 max_connections=10 sni=www.example.com\n\
        10.0.0.2:8000\t# spare\n  10.0.0.3 8000\n10.0.0.4 8000 7 3\n2001:db8::1 80\n[2001:db8::2]:80 name=six weight=0\r\n";
    assert_eq!(
        lines(text(answer)),
        [
            "10.0.0.1:8000 10.0.0.1:8000 5 2 10 www.example.com",
            "10.0.0.2:8000 10.0.0.2:8000 1 1 0 ",
            "10.0.0.3:8000 10.0.0.3:8000 1 1 0 ",
            "10.0.0.4:8000 10.0.0.4:8000 7 3 0 ",
            "[2001:db8::1]:80 [2001:db8::1]:80 1 1 0 ",
            "six [2001:db8::2]:80 0 1 0 ",
        ]
    );
}

#[test]
fn gobetweens_list_and_awe4lbs_object_are_read() {
    let bare = r#"[{"host":"10.0.0.1","port":8000,"weight":"5","priority":2,"max_connections":"10","sni":"a.example"},
        {"host":"2001:db8::1","port":"80","sni":null,"name":"six","zone":"ignored"}]"#;
    assert_eq!(
        lines(json(bare)),
        [
            "10.0.0.1:8000 10.0.0.1:8000 5 2 10 a.example",
            "six [2001:db8::1]:80 1 1 0 "
        ]
    );
    let object = r#"{"hosts":[{"addr":{"host":"10.0.0.1","port":1},"weight":1,"priority":1}]}"#;
    assert_eq!(lines(json(object)), ["10.0.0.1:1 10.0.0.1:1 1 1 0 "]);
    assert_eq!(json("[]").unwrap(), Answer::default());
}

#[test]
fn one_wrong_line_spoils_the_answer_and_is_named() {
    for (line, says) in [
        ("10.0.0.2", "line 2: `10.0.0.2` has no port"),
        ("10.0.0.2:0", "line 2: port 0"),
        ("10.0.0.2:80 weight=x", "line 2: weight `x` is not a number"),
        (
            "10.0.0.2:80 weight=70000",
            "line 2: weight is 70000, and 65535 is the most",
        ),
        ("10.0.0.2:80 wieght=1", "line 2: `wieght` is none of"),
        ("10.0.0.2:80 weight=1 weight=2", "line 2: `weight` is there twice"),
        ("10.0.0.2:80 heavy", "line 2: `heavy` is not such as"),
        ("10.0.0.2 80 5", "line 2: `5` is not such as"),
        ("web1.example.com:80", "line 2: `web1.example.com` is a host name"),
        ("web1 80", "line 2: `web1` is a host name"),
        ("[::ffff:10.0.0.1]:80", "line 2: IPv4 address in IPv6 form"),
        ("224.0.0.1:80", "line 2: multicast address"),
        ("10.0.0.2:80 sni=~.*", "line 2: sni ~.* is a regular expression"),
        ("10.0.0.2:80 sni=a*b", "line 2: sni a*b: a star"),
        (
            "10.0.0.2:80 name=one",
            "line 2: the name one is that of line 1 too",
        ),
        (
            "10.0.0.2:8\u{7}0",
            "line 2: there is a control character (\\u{7})",
        ),
    ] {
        let error = text(&format!("10.0.0.1:80 name=one\n{line}\n10.0.0.3:80\n")).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
    for (element, says) in [
        (r#"{"port":80}"#, "server 2: it has no host"),
        (r#"{"host":"10.0.0.2"}"#, "server 2: it has no port"),
        (r#"{"host":"10.0.0.2","port":70000}"#, "server 2: "),
        (
            r#"{"host":"10.0.0.2","port":-1}"#,
            "server 2: port is -1, not a whole number",
        ),
        (
            r#"{"host":"10.0.0.2","port":80.5}"#,
            "server 2: port is 80.5, not",
        ),
        (
            r#"{"host":1,"port":80}"#,
            "server 2: host is a number, not a text",
        ),
        (
            r#"{"host":"10.0.0.2","port":80,"weight":[]}"#,
            "server 2: weight is a list, not",
        ),
        (r#"{"host":"web1","port":80}"#, "server 2: `web1` is a host name"),
        (
            r#"{"host":"10.0.0.2:80\n","port":80}"#,
            "server 2: there is a control character",
        ),
        (
            r#"{"addr":"10.0.0.2:80"}"#,
            "server 2: addr is a text, not an object",
        ),
        ("5", "server 2: it is a number, not an object"),
    ] {
        let error = json(&format!(r#"[{{"host":"10.0.0.1","port":80}},{element}]"#)).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn half_and_foreign_answers_are_none() {
    for answer in [
        "",
        "[{\"host\":\"10.0.0.1\",",
        "null",
        "{}",
        "{\"hosts\":{}}",
        "<html>",
        "\"x\"",
    ] {
        let error = json(answer).unwrap_err();
        assert!(error.starts_with("the answer is"), "{error}");
    }
    assert_eq!(
        parse(&AnswerFormat::Text, b"10.0.0.1:80\n\xff\xfe", LIMITS),
        Err(Malformed::NotText)
    );
    let error = text("<html><body>404 Not Found</body></html>").unwrap_err();
    assert!(error.starts_with("line 1: "), "{error}");
    assert_eq!(text("").unwrap(), Answer::default());
    let deep = "[".repeat(100_000);
    assert!(json(&deep).is_err());
}

#[test]
fn an_address_counts_once_and_the_first_is_it() {
    let answer = text("10.0.0.1:80 weight=2\n10.0.0.1:80 weight=9\n10.0.0.1 80\n10.0.0.2:80\n").unwrap();
    assert_eq!((answer.servers.len(), answer.duplicates), (2, 2));
    assert_eq!(answer.servers[0].weight, 2);
}

#[test]
fn there_is_a_limit_of_servers_bytes_words_and_names() {
    let many: String = (0..100_000)
        .map(|n| format!("10.{}.{}.{}:80\n", n >> 16, (n >> 8) & 255, n & 255))
        .collect();
    let limits = Limits {
        bytes: 16 << 20,
        servers: 1_000,
    };
    assert_eq!(
        parse(&AnswerFormat::Text, many.as_bytes(), limits),
        Err(Malformed::TooMany(1_000))
    );
    assert_eq!(
        parse(&AnswerFormat::Text, many.as_bytes(), LIMITS),
        Err(Malformed::TooLarge(1 << 20))
    );
    let twice = "10.0.0.1:80\n".repeat(50_000);
    assert_eq!(
        text(&twice).unwrap().servers.len(),
        1,
        "those named twice count once"
    );
    let long = format!("10.0.0.1:80 name={}", "x".repeat(MAX_WORD_BYTES));
    assert!(text(&long).unwrap_err().contains("more than"));
    let names: String = (0..=MAX_NAMES)
        .map(|n| format!("10.0.{}.{}:80 sni=n{n}.example\n", n >> 8, n & 255))
        .collect();
    assert!(text(&names).unwrap_err().contains("different names"));
}

proptest! {
    #[test]
    fn no_answer_is_too_odd_to_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = of_consul(&bytes, LIMITS);
        let _ = (Containers::parse(&bytes), Slices::parse(&bytes), SlicesEvent::parse(&bytes));
        for format in [AnswerFormat::Text, AnswerFormat::Json(Box::default())] {
            match parse(&format, &bytes, LIMITS) {
                Ok(answer) => prop_assert!(answer.servers.len() <= LIMITS.servers),
                Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{error}"),
            }
        }
    }

    #[test]
    fn no_line_of_likely_words_breaks_the_reader(
        words in proptest::collection::vec(
            proptest::sample::select(vec!["10.0.0.1", "10.0.0.1:80", "80", "weight=1", "sni=*", "name=", "[::1]:80", "::1",
                "#", "\n", "=", ":", "%", "fe80::1%eth0", "[fe80::1%e]:1", "99999999999999999999", "\t"]), 0..12)
    ) {
        let text = words.join(" ");
        if let Ok(answer) = parse(&AnswerFormat::Text, text.as_bytes(), LIMITS) {
            let mut names: Vec<_> = answer.servers.iter().map(|server| server.name.clone()).collect();
            let sorted = names.clone();
            names.sort();
            names.dedup();
            prop_assert_eq!(names, sorted);
        }
    }

    #[test]
    fn the_order_of_lines_does_not_matter(mut hosts in proptest::collection::vec(1..250_u8, 1..20)) {
        let file = |hosts: &[u8]| hosts.iter().map(|host| format!("10.0.0.{host}:80\n")).collect::<String>();
        let before = text(&file(&hosts)).unwrap();
        hosts.reverse();
        prop_assert_eq!(text(&file(&hosts)).unwrap(), before);
    }
}

#[test]
fn json_of_another_shape_is_read_where_the_configuration_says() {
    let path = |text: &str| Some(text.parse().unwrap());
    let read = |paths: &JsonPaths, answer: &str| {
        parse(
            &AnswerFormat::Json(paths.clone().into()),
            answer.as_bytes(),
            LIMITS,
        )
        .map_err(|error| error.to_string())
    };
    let nested = JsonPaths {
        servers: path("data.items"),
        host: path("node.addresses[1].ip"),
        port: path("ports[0]"),
        name: path("meta.name"),
        weight: path("w"),
        ..JsonPaths::default()
    };
    let answer = r#"{"data": {"items": [
        {"node": {"addresses": [{}, {"ip": "10.0.0.1"}]}, "ports": [80], "meta": {"name": "one"}, "w": 3, "addr": 7},
        {"node": {"addresses": [{}, {"ip": "2001:db8::1"}]}, "ports": ["81"]}]}}"#;
    assert_eq!(
        lines(read(&nested, answer)),
        [
            "[2001:db8::1]:81 [2001:db8::1]:81 1 1 0 ",
            "one 10.0.0.1:80 3 1 0 "
        ]
    );
    assert_eq!(
        read(&nested, r#"{"data": []}"#).unwrap_err(),
        "the answer has no list at data.items (json.servers)"
    );
    assert_eq!(
        read(&nested, r#"{"data": {"items": [{"ports": [80]}]}}"#).unwrap_err(),
        "server 1: it has no host"
    );
    let lists = JsonPaths {
        host: path("[0]"),
        port: path("[1]"),
        ..JsonPaths::default()
    };
    assert_eq!(
        lines(read(&lists, r#"[["10.0.0.1", 80]]"#)),
        ["10.0.0.1:80 10.0.0.1:80 1 1 0 "]
    );
    assert_eq!(
        read(&lists, "[[[], 80]]").unwrap_err(),
        "server 1: host is a list, not a text"
    );
}

#[test]
fn lines_of_another_shape_are_read_by_an_expression() {
    let pattern =
        r"^\s*server (?P<name>\S+) (?P<host>[^\s:]+|\S+:\S+):(?P<port>\d+)(?: weight (?P<weight>\d+))?";
    let format = AnswerFormat::Regex(pattern.parse().unwrap());
    let read = |answer: &str| parse(&format, answer.as_bytes(), LIMITS).map_err(|error| error.to_string());
    let answer =
        "backend web\n  server one 10.0.0.1:80 weight 3\n  server two 10.0.0.2:81 check\n  # server three\n";
    assert_eq!(
        lines(read(answer)),
        ["one 10.0.0.1:80 3 1 0 ", "two 10.0.0.2:81 1 1 0 "]
    );
    assert_eq!(lines(read("nothing like it")), [""; 0]);
    let error = read("x\nserver one 10.0.0.300:80").unwrap_err();
    assert!(error.starts_with("line 2: "), "{error}");
    let large = read("server one 10.0.0.1:80 weight 99999999999999999999").unwrap_err();
    assert_eq!(large, "line 1: weight `99999999999999999999` is not a number");
}

#[test]
fn records_of_name_servers_are_servers_and_none_is_left_without_a_share() {
    let record = |addr: &str, weight, priority| Record {
        addr: addr.parse().unwrap(),
        weight,
        priority,
    };
    let records = [
        record("10.0.0.2:80", 0, 10),
        record("10.0.0.1:80", 65_535, 0),
        record("10.0.0.2:80", 7, 0),
    ];
    let answer = of_records(records, LIMITS).unwrap();
    assert_eq!(answer.duplicates, 1);
    assert_eq!(
        lines(Ok(answer)),
        [
            "10.0.0.1:80 10.0.0.1:80 65535 0 0 ",
            "10.0.0.2:80 10.0.0.2:80 1 10 0 "
        ]
    );
    let two = Limits { servers: 1, ..LIMITS };
    assert_eq!(of_records(records, two), Err(Malformed::TooMany(1)));
    let none = of_records([record("10.0.0.1:0", 1, 1)], LIMITS).unwrap_err();
    assert_eq!(none.to_string(), "server 1: 10.0.0.1:0 has port 0");
}

/// As an agent of Consul 1.15 answers, less what is of no interest: a node, a service and the checks of each instance.
const CONSUL: &str = r#"[
  {"Node": {"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "a1", "Address": "10.0.0.1", "Datacenter": "dc1",
      "TaggedAddresses": {"lan": "10.0.0.1", "wan": "10.0.0.1"}, "Meta": {"consul-network-segment": ""}},
   "Service": {"ID": "web", "Service": "web", "Tags": ["primary", "sni=www.example.com"], "Address": "", "Port": 8000,
      "Meta": null, "Weights": {"Passing": 10, "Warning": 1}, "EnableTagOverride": false, "Connect": {}},
   "Checks": [{"Node": "a1", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"}]},
  {"Node": {"Node": "a2", "Address": "10.0.0.2"},
   "Service": {"ID": "web-1", "Service": "web", "Tags": null, "Address": "2001:db8::2", "Port": 8001}, "Checks": []}
]"#;

#[test]
fn consuls_instances_are_at_their_own_address_or_at_that_of_their_node() {
    let read = |answer: &str| of_consul(answer.as_bytes(), LIMITS).map_err(|error| error.to_string());
    assert_eq!(
        lines(read(CONSUL)),
        [
            "10.0.0.1:8000 10.0.0.1:8000 10 1 0 www.example.com",
            "[2001:db8::2]:8001 [2001:db8::2]:8001 1 1 0 ",
        ]
    );
    assert_eq!(lines(read("[]")), [""; 0]);
    for (answer, why) in [
        ("{}", "the answer is no list of instances as Consul has it: "),
        (
            "rpc error: No cluster leader",
            "the answer is no list of instances as Consul has it: ",
        ),
        (
            r#"[{"Node": {"Address": "10.0.0.1"}}]"#,
            "the answer is no list of instances as Consul has it: missing field `Service`",
        ),
        (
            r#"[{"Node": {"Address": ""}, "Service": {"Port": 80}}]"#,
            "server 1: ",
        ),
        (
            r#"[{"Node": {"Address": "web1.example.com"}, "Service": {"Port": 80}}]"#,
            "server 1: `web1.example.com` is a host name",
        ),
        (
            r#"[{"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 70000}}]"#,
            "the answer is no list",
        ),
        (
            r#"[{"Node": {"Address": "10.0.0.1"}, "Service": {}}]"#,
            "server 1: ",
        ),
    ] {
        let said = read(answer).unwrap_err();
        assert!(said.starts_with(why), "{said}");
    }
}

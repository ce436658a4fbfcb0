use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Node {
    parse(text).unwrap_or_else(|error| panic!("line {}: {}\n{text}", error.line, error.message))
}

fn at<'a>(node: &'a Node, key: &str) -> &'a Node {
    let found = node
        .table()
        .and_then(|table| table.iter().find(|(known, _)| known.name == key));
    &found.unwrap_or_else(|| panic!("no {key} in {node:?}")).1
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        other => panic!("no list: {other:?}"),
    }
}

#[test]
fn json_is_read_with_the_lines_of_its_values() {
    let node =
        read("{\n\t\"a\": [1, true, null, \"x\\u00e9\\ud83d\\ude00\\n\"],\n\t\"b\" : {}, \"c\":-1.5e3\n}\n");
    let a = items(at(&node, "a"));
    assert_eq!(a[0].value, Value::Number("1".to_owned()));
    assert_eq!(a[1].value, Value::Bool(true));
    assert_eq!(a[2].value, Value::Null);
    assert_eq!(a[3].value, Value::Text("xé😀\n".to_owned()));
    assert_eq!(at(&node, "a").line, 2);
    assert_eq!(at(&node, "c").line, 3);
    assert_eq!(at(&node, "c").scalar(), Some("-1.5e3"));
}

#[test]
fn yaml_is_read_as_people_write_it() {
    let node = read(
        "# ours\n---\nid: one # two\nservers:\n- id: 'it''s'\n  addr: {host: 0.0.0.0, port: 80}\n  args: ['-z', $host,\n    $port]\n\n- id: b#c\n  \
         match:\n    - pool:\n        hosts: []\n    -\n      tls: ~\nlast: \"a: b\"\n...\n",
    );
    assert_eq!(at(&node, "id").scalar(), Some("one"));
    let servers = items(at(&node, "servers"));
    assert_eq!(servers.len(), 2);
    assert_eq!(at(&servers[0], "id").scalar(), Some("it's"));
    assert_eq!(at(at(&servers[0], "addr"), "host").scalar(), Some("0.0.0.0"));
    let args: Vec<_> = items(at(&servers[0], "args")).iter().map(Node::scalar).collect();
    assert_eq!(args, [Some("-z"), Some("$host"), Some("$port")]);
    assert_eq!(at(&servers[1], "id").scalar(), Some("b#c"));
    assert_eq!(servers[1].line, 10);
    let matches = items(at(&servers[1], "match"));
    assert!(items(at(at(&matches[0], "pool"), "hosts")).is_empty());
    assert_eq!(at(&matches[1], "tls").value, Value::Null);
    assert_eq!(at(&node, "last").scalar(), Some("a: b"));
}

#[test]
fn what_is_wrong_has_its_line() {
    for (text, line, says) in [
        ("", 1, "nothing in it"),
        ("a: 1\n b: 2\n", 2, "deeper"),
        ("a: 1\nb\n", 2, "colon"),
        ("{\"a\": 1", 1, "ends before"),
        ("{\"a\"\n: \"b}", 2, "quote"),
        ("a: &x 1\n", 1, "anchors"),
        ("a:\n\tb: 1\n", 2, "tab"),
        ("[1 2", 1, "ends before"),
        ("a: |\n  text\n", 1, "block scalars"),
        ("{} {}", 1, "more on this line"),
        ("a: \"\\q\"\n", 1, "escape"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {}", error.message);
        assert!(error.message.contains(says), "{text}: {}", error.message);
    }
}

#[test]
fn nesting_has_an_end() {
    for text in ["[".repeat(10_000), "- ".repeat(10_000), "{a: ".repeat(10_000)] {
        let error = parse(&text).expect_err("nested deeply");
        assert!(error.message.contains("nested deeper"), "{}", error.message);
    }
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "([-\\[\\]{}:,#'\"\\\\ \t\n.&|a1é]|- |: |\n  )*") {
        let _either_way = parse(&text);
    }

    #[test]
    fn what_json_writes_is_read_again(text in "\\PC*", number: i32) {
        let json = serde_json::json!({ "text": text, "list": [number, { "a": null }] });
        for written in [json.to_string(), serde_json::to_string_pretty(&json).unwrap_or_default()] {
            let node = read(&written);
            prop_assert_eq!(&at(&node, "text").value, &Value::Text(text.clone()));
            prop_assert_eq!(&items(at(&node, "list"))[0].value, &Value::Number(number.to_string()));
        }
    }
}

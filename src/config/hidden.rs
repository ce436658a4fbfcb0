//! What may be a secret in a line of the file, which no output shows whatever the finding is about.

/// What begins the names of keys whose values are one, misspelt or not.
const KEYS: [&[u8]; 3] = [b"tok", b"hmac", b"authoriz"];

/// The line with as many stars as a secret has bytes: values of tokens and keys that do not say where the secret is, and what stands
/// before the `@` of a URL.
pub fn without_secrets(line: &[u8]) -> Vec<u8> {
    let mut shown = line.to_vec();
    let mut at = 0;
    while at < line.len() {
        let is_start = at == 0 || !is_word(line[at - 1]);
        let is_key = |key: &&[u8]| {
            let word = line.get(at..at + key.len()).unwrap_or_default();
            word.eq_ignore_ascii_case(key)
        };
        if is_start && KEYS.iter().any(is_key) {
            at = hide_value(line, at, &mut shown);
            continue;
        }
        if is_start && is_header(line, at) {
            at = hide_value(line, at, &mut shown);
            continue;
        }
        if line[at] == b'@' {
            let before = line[..at].iter().rposition(|byte| b"\"' /=[,@".contains(byte));
            let from = before.map_or(0, |before| before + 1);
            if line[from..at].contains(&b':') {
                shown[from..at].fill(b'*');
            }
        }
        at += 1;
    }
    shown
}

/// Whether a key with a hyphen, which those of Convey do not have, stands at a place, and a text is its value: a header's that may
/// be a secret.
fn is_header(line: &[u8], at: usize) -> bool {
    let rest = line.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
    let (key, after) = rest.split_at(end);
    let after = after.strip_prefix(b"\"").unwrap_or(after).trim_ascii_start();
    let value = after
        .strip_prefix(b"=")
        .map(<[u8]>::trim_ascii_start)
        .unwrap_or_default();
    // a list of networks may have such a name, and is a path
    let is_text = value.starts_with(b"\"") || value.starts_with(b"'");
    let has = |part: &[u8]| {
        key.windows(part.len())
            .any(|piece| piece.eq_ignore_ascii_case(part))
    };
    let is_secret = has(b"x-")
        || [&b"-key"[..], b"-token", b"-secret", b"-auth"]
            .into_iter()
            .any(has);
    is_secret && is_text && value.get(1) != Some(&b'/')
}

/// Hides the value of the key at a place, if it is one; where to go on: each byte is looked at a few times at most.
fn hide_value(line: &[u8], key: usize, shown: &mut [u8]) -> usize {
    let past = |from: usize, is: fn(u8) -> bool| {
        let rest = line.get(from..).unwrap_or_default();
        rest.iter()
            .position(|byte| !is(*byte))
            .map_or(line.len(), |length| from + length)
    };
    let end = past(key, |byte| is_word(byte) || byte == b'"');
    let equals = past(end, |byte| byte == b' ' || byte == b'\t');
    // `tokens_file` says where they are
    let word = line.get(key..end).unwrap_or_default();
    let names_a_file = word.strip_suffix(b"\"").unwrap_or(word).ends_with(b"_file");
    if line.get(equals) != Some(&b'=') || names_a_file {
        return end;
    }
    let from = past(equals + 1, |byte| b" \t\"'[".contains(&byte));
    let to = past(from, |byte| !b"\"',]#".contains(&byte));
    let value = line[from..to].trim_ascii_end();
    let says_where = value.starts_with(b"file:/") || (value.starts_with(b"${") && value.ends_with(b"}"));
    if !says_where {
        shown[from..from + value.len()].fill(b'*');
    }
    to
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_excerpt_whatever_is_wrong_with_the_line() {
        for (line, shown) in [
            (r#"token = "hunter2""#, r#"token = "*******""#),
            (r#"tokens_file = "/etc/tokens""#, r#"tokens_file = "/etc/tokens""#),
            (
                r#""tokens_file" = "/etc/tokens""#,
                r#""tokens_file" = "/etc/tokens""#,
            ),
            (
                r#"discovery = { kind = "htp", token='a b' }"#,
                r#"discovery = { kind = "htp", token='***' }"#,
            ),
            (r#"tokn = "x"  # why"#, r#"tokn = "*"  # why"#),
            ("token = hunter2", "token = *******"),
            (
                r#"Authorization = "Bearer a b""#,
                r#"Authorization = "**********""#,
            ),
            (
                r#"headers = { "x-api-key" = "hunter2", x-org="7" }"#,
                r#"headers = { "x-api-key" = "*******", x-org="*" }"#,
            ),
            ("token = 552255 # a", "token = ****** # a"),
            (r#"token = ["abc"]"#, r#"token = ["***"]"#),
            (r#"token = "${abc""#, r#"token = "*****""#),
            (r#"a.token="x", b = 1"#, r#"a.token="*", b = 1"#),
            (
                r#"url = "htps://joe:secret@a/x""#,
                r#"url = "htps://**********@a/x""#,
            ),
            (r#"url = ["joe:secret@a/x"]"#, r#"url = ["**********@a/x"]"#),
        ] {
            assert_eq!(
                String::from_utf8(without_secrets(line.as_bytes())).unwrap(),
                shown
            );
        }
        for line in [
            r#"token = "file:/etc/convey/token""#,
            r#"token = "${TOKEN}""#,
            r#"addr = "unix@/run/app.sock""#,
            "# a token of gratitude",
            r#"x-api-key = "file:/etc/convey/otlp.key""#,
            r#"x-office = "/etc/convey/two.list""#,
            r#"stick-table = "type ip""#,
            r#"web-1 = { addr = "10.0.0.1:80" }"#,
            "tokens",
            "token =",
            "server1@10.0.0.1",
            "",
        ] {
            assert_eq!(without_secrets(line.as_bytes()), line.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_odd(line in "[tok\"' =\\[\\],:@/#${}a-z]{0,40}") {
            proptest::prop_assert_eq!(without_secrets(line.as_bytes()).len(), line.len());
        }
    }
}

//! How the answer of a source is written.

use std::{fmt, str::FromStr};

/// Most steps of a path.
const MAX_STEPS: usize = 16;

/// Longest path and expression in bytes.
const MAX_BYTES: usize = 1_024;

/// Most memory that a compiled expression may take, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// `format` of an answer, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerFormat {
    /// A server a line.
    Text,
    /// A list of objects, or an object with one in `hosts`.
    Json(Box<JsonPaths>),
    /// A server a line, which an expression reads; lines that it does not match count for nothing.
    Regex(LinePattern),
}

/// `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormatKind {
    /// [`AnswerFormat::Text`].
    Text,
    /// [`AnswerFormat::Json`].
    Json,
    /// [`AnswerFormat::Regex`].
    Regex,
}

/// `json`: where in an answer what is. `None`: as gobetween and awe4lb have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonPaths {
    /// The list of servers, from the top.
    pub servers: Option<JsonPath>,
    /// From an element of the list: the address.
    pub host: Option<JsonPath>,
    /// The port.
    pub port: Option<JsonPath>,
    /// The name.
    pub name: Option<JsonPath>,
    /// The weight.
    pub weight: Option<JsonPath>,
    /// The priority.
    pub priority: Option<JsonPath>,
    /// Most connections.
    pub max_connections: Option<JsonPath>,
    /// The names that it is for.
    pub sni: Option<JsonPath>,
}

/// A way into a JSON document: keys with dots between them, and numbers of elements in brackets: `nodes[0].ip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    text: Box<str>,
    steps: Box<[JsonStep]>,
}

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonStep {
    /// To what an object has by a key.
    Key(Box<str>),
    /// To an element of a list, from 0.
    Index(usize),
}

/// Why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAJsonPath {
    /// It begins as those of another language do.
    #[error("it begins with a key, and not with `$`")]
    Root,
    /// A key is empty.
    #[error("nothing is between two dots")]
    Empty,
    /// A bracket that does not hold a number.
    #[error("between brackets is the number of an element, from 0")]
    Index,
    /// It is too long.
    #[error("it has more than {MAX_STEPS} steps or {MAX_BYTES} bytes")]
    TooLong,
}

/// An expression with the names of what it finds: `(?P<host>\S+):(?P<port>\d+)`.
#[derive(Debug, Clone)]
pub struct LinePattern(regex::bytes::Regex);

/// Why a text is no such expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotALinePattern {
    /// It cannot be read.
    #[error("it is no regular expression: {0}")]
    Regex(String),
    /// It lacks a name.
    #[error("it has no group (?P<{0}>…)")]
    Missing(&'static str),
    /// It has a name that means nothing.
    #[error("its group `{0}` is none of host, port, name, weight, priority, max_connections, sni")]
    Unknown(String),
    /// It is too long.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
}

impl AnswerFormat {
    /// `format`.
    #[must_use]
    pub const fn kind(&self) -> FormatKind {
        match self {
            Self::Text => FormatKind::Text,
            Self::Json(_) => FormatKind::Json,
            Self::Regex(_) => FormatKind::Regex,
        }
    }
}

impl JsonPath {
    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[JsonStep] {
        &self.steps
    }
}

impl FromStr for JsonPath {
    type Err = NotAJsonPath;

    fn from_str(text: &str) -> Result<Self, NotAJsonPath> {
        if text.len() > MAX_BYTES {
            return Err(NotAJsonPath::TooLong);
        }
        if text == "$" || text.starts_with("$.") || text.starts_with("$[") {
            return Err(NotAJsonPath::Root);
        }
        let mut steps = Vec::new();
        for (index, part) in text.split('.').enumerate() {
            let (key, rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            match key {
                // the top may be a list: `[0].servers`
                "" if index == 0 && !rest.is_empty() => {}
                "" => return Err(NotAJsonPath::Empty),
                key => steps.push(JsonStep::Key(key.into())),
            }
            let Some(rest) = rest.strip_prefix('[') else {
                continue;
            };
            let inner = rest.strip_suffix(']').ok_or(NotAJsonPath::Index)?;
            for number in inner.split("][") {
                let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| number.parse().ok()).flatten();
                steps.push(JsonStep::Index(number.ok_or(NotAJsonPath::Index)?));
            }
        }
        if steps.len() > MAX_STEPS {
            return Err(NotAJsonPath::TooLong);
        }
        Ok(Self {
            text: text.into(),
            steps: steps.into(),
        })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl LinePattern {
    /// What it finds in a line, by the names of its groups; `None` if it does not match.
    #[must_use]
    pub fn find<'a>(&self, line: &'a str) -> Option<impl Fn(&str) -> Option<&'a str> + use<'a>> {
        let found = self.0.captures(line.as_bytes())?;
        // a part of a character is no text
        Some(move |name: &str| std::str::from_utf8(found.name(name)?.as_bytes()).ok())
    }

    /// The expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for LinePattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for LinePattern {}

impl FromStr for LinePattern {
    type Err = NotALinePattern;

    fn from_str(text: &str) -> Result<Self, NotALinePattern> {
        if text.len() > MAX_BYTES {
            return Err(NotALinePattern::TooLong);
        }
        let mut builder = regex::bytes::RegexBuilder::new(text);
        let built = builder.size_limit(MAX_REGEX_BYTES).unicode(false).build();
        let pattern = built.map_err(|error| NotALinePattern::Regex(reason(&error)))?;
        const KNOWN: [&str; 7] = [
            "host",
            "port",
            "name",
            "weight",
            "priority",
            "max_connections",
            "sni",
        ];
        let names: Vec<&str> = pattern.capture_names().flatten().collect();
        if let Some(unknown) = names.iter().find(|name| !KNOWN.contains(name)) {
            return Err(NotALinePattern::Unknown((*unknown).to_owned()));
        }
        for needed in ["host", "port"] {
            if !names.contains(&needed) {
                return Err(NotALinePattern::Missing(needed));
            }
        }
        Ok(Self(pattern))
    }
}

/// The last line of regex's drawing, which says what is wrong.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_by_keys_and_numbers() {
        let path: JsonPath = "nodes[0][12].ip".parse().unwrap();
        let key = |key: &str| JsonStep::Key(key.into());
        let steps = [key("nodes"), JsonStep::Index(0), JsonStep::Index(12), key("ip")];
        assert_eq!(
            (path.steps(), path.to_string().as_str()),
            (&steps[..], "nodes[0][12].ip")
        );
        assert_eq!(
            "[1].a".parse::<JsonPath>().unwrap().steps(),
            [JsonStep::Index(1), key("a")]
        );
        let many = vec!["a"; 17].join(".");
        for (text, why) in [
            ("", NotAJsonPath::Empty),
            ("$.a", NotAJsonPath::Root),
            ("$[0]", NotAJsonPath::Root),
            ("a..b", NotAJsonPath::Empty),
            ("a.[0]", NotAJsonPath::Empty),
            ("a[x]", NotAJsonPath::Index),
            ("a[0", NotAJsonPath::Index),
            ("a[0]b", NotAJsonPath::Index),
            ("a[-1]", NotAJsonPath::Index),
            ("a[99999999999999999999]", NotAJsonPath::Index),
            (&*many, NotAJsonPath::TooLong),
        ] {
            assert_eq!(text.parse::<JsonPath>(), Err(why), "{text}");
        }
    }

    #[test]
    fn an_expression_names_host_and_port() {
        let pattern: LinePattern = r"^server (?P<host>\S+):(?P<port>\d+)".parse().unwrap();
        let found = pattern.find("server 10.0.0.1:80 up").unwrap();
        assert_eq!(
            (found("host"), found("port"), found("name")),
            (Some("10.0.0.1"), Some("80"), None)
        );
        assert!(pattern.find("# nothing").is_none());
        for (text, why) in [
            (r"(?P<host>\S+)", "it has no group (?P<port>…)"),
            (
                r"(?P<host>.)(?P<port>.)(?P<zone>.)",
                "its group `zone` is none of host, port, name, weight, priority, max_connections, sni",
            ),
            (
                r"(?P<host>.(?P<port>.)",
                "it is no regular expression: unclosed group",
            ),
        ] {
            assert_eq!(text.parse::<LinePattern>().unwrap_err().to_string(), why);
        }
        assert!(matches!(
            r"((\w{50}){50}){50}".parse::<LinePattern>(),
            Err(NotALinePattern::Regex(_))
        ));
    }
}

//! `tcp-check` as a probe: what is sent is sent at once, and what is expected must come in its order.

use crate::import::{
    At, SectionId, Value,
    haproxy::{Context, file::Line, proxies::Proxy},
};

/// Translates the steps of a check.
pub fn translate(proxy: &Proxy, section: SectionId, context: &mut Context<'_>) {
    let lines: Vec<&Line> = proxy
        .lines
        .iter()
        .filter(|line| line.name() == "tcp-check")
        .collect();
    for line in &lines {
        context.draft.translated(line.id);
    }
    let is_plain_connect = |line: &Line| line.word(1) == "connect" && line.words.len() == 2;
    let real: Vec<&Line> = lines
        .into_iter()
        .filter(|line| line.word(1) != "comment")
        // the connection that there is anyway
        .skip_while(|line| is_plain_connect(line))
        .collect();
    let Some(first) = real.first() else { return };
    let place = |line: &Line| match line.is_inherited {
        true => At::Top,
        false => At::In(section),
    };
    let mut steps = Vec::new();
    for line in &real {
        let Some(step) = step(line) else {
            let why = "a probe sends text or bytes and finds text, bytes or an expression: servers have to accept a connection \
                       only. See the kinds \"redis\", \"postgresql\", \"mysql\", \"smtp\", and \"exec\" for a command of your own";
            return context.draft.no_equal(line.id, place(line), why);
        };
        steps.push((*line, step));
    }
    let mut probe = Probe::default();
    let is_anchored = steps.iter().any(|(_, step)| step.is_anchored());
    for (line, step) in steps {
        if is_anchored && !probe.expected.is_empty() {
            let why = "an expression is about where one of several answers begins or ends, and all are one here: what comes behind \
                       the first answer is neither sent nor looked for";
            context.draft.no_equal(line.id, place(line), why);
            break;
        }
        probe.take(step);
    }
    if probe.turns > 0 {
        let text = "the steps of tcp-check: all is sent at once here, and the answers must come in their order. A server that wants \
                    to be asked one after another needs another kind of check";
        context.draft.differs(first.id, place(first), text);
    } else if probe.expected.len() > 1 {
        let text = "what is expected must come in this order here, each behind the one before";
        context.draft.differs(first.id, place(first), text);
    }
    probe.set(section, context);
}

/// What a check comes to.
#[derive(Default)]
struct Probe {
    sent: Vec<u8>,
    has_bytes: bool,
    expected: Vec<String>,
    /// How often something is sent after an answer.
    turns: usize,
}

impl Probe {
    fn take(&mut self, step: Step) {
        match step {
            Step::Send(bytes, is_text) => {
                self.sent.extend(bytes);
                self.has_bytes |= !is_text;
                self.turns += usize::from(!self.expected.is_empty());
            }
            Step::Expect { pattern, .. } => self.expected.push(pattern),
        }
    }

    fn set(self, section: SectionId, context: &mut Context<'_>) {
        context.draft.set(section, &["kind"], "probe");
        match String::from_utf8(self.sent) {
            Ok(text) if text.is_empty() => {}
            Ok(text) if !self.has_bytes => context.draft.set(section, &["send"], text),
            Ok(text) => context.draft.set(section, &["send"], hex(text.as_bytes())),
            Err(error) => context.draft.set(section, &["send"], hex(error.as_bytes())),
        }
        let pattern = match <[String; 1]>::try_from(self.expected) {
            Ok([one]) => one,
            Err(all) if all.is_empty() => return,
            Err(all) => format!("(?s){}", all.join(".*?")),
        };
        let expect = Value::table([("regex", pattern)]);
        context.draft.set(section, &["expect"], expect);
    }
}

fn hex(bytes: &[u8]) -> Value {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Value::table([("hex", digits)])
}

enum Step {
    /// What, and whether it was written as text.
    Send(Vec<u8>, bool),
    /// An expression that finds it anywhere in an answer.
    Expect {
        pattern: String,
        /// It also says where that is.
        is_anchored: bool,
    },
}

impl Step {
    fn is_anchored(&self) -> bool {
        matches!(
            self,
            Self::Expect {
                is_anchored: true,
                ..
            }
        )
    }
}

/// What a line of `tcp-check` does; `None` if a probe cannot.
fn step(line: &Line) -> Option<Step> {
    let found = |pattern| Step::Expect {
        pattern,
        is_anchored: false,
    };
    let words: Vec<&str> = line.from(1).iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", text] | ["send", text, "comment", _] => Some(Step::Send(text.as_bytes().to_vec(), true)),
        ["send-binary", digits] | ["send-binary", digits, "comment", _] => {
            Some(Step::Send(bytes(digits)?, false))
        }
        ["expect", "string", text] => Some(found(regex::escape(text))),
        ["expect", "rstring", text] if regex::bytes::Regex::new(text).is_ok() => Some(Step::Expect {
            pattern: format!("(?:{text})"),
            is_anchored: is_anchored(text),
        }),
        ["expect", "binary", digits] => {
            let pattern: String = bytes(digits)?
                .iter()
                .map(|byte| format!("\\x{byte:02x}"))
                .collect();
            Some(found(format!("(?-u:{pattern})")))
        }
        _ => None,
    }
}

/// The bytes that hexadecimal digits stand for.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len())
        .step_by(2)
        .map(|at| pair(at).filter(|_| is_hex))
        .collect()
}

/// Whether an expression says where an answer begins or ends.
fn is_anchored(pattern: &str) -> bool {
    let (mut is_escaped, mut is_class) = (false, false);
    for c in pattern.chars() {
        if is_escaped {
            is_escaped = false;
            if matches!(c, 'A' | 'z') {
                return true;
            }
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '[' => is_class = true,
            ']' => is_class = false,
            '^' | '$' if !is_class => return true,
            _ => {}
        }
    }
    false
}

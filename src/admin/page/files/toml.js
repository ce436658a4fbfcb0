// TOML in pieces, for colours. Pure: a line and what was open before it, to pieces and what is open after it.

const RULES = {
  comment: /#.*/y,
  table: /\[\[?[^\]\n]*\]?\]?/y,
  key: /[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'/y,
  string: /"(?:[^"\\]|\\.)*"?|'[^']*'?/y,
  number: /[+-]?(?:0x[\da-fA-F_]+|0o[0-7_]+|0b[01_]+|\d[\d_]*(?:\.[\d_]+)?(?:[eE][+-]?\d+)?|inf|nan)\b/y,
  word: /\b(?:true|false)\b/y,
  mark: /[=,{}[\].]/y,
  space: /\s+/y,
  other: /[^\s#"'=,{}[\].]+|./y,
};

/** What may come where a key is wanted, and where a value is. */
const BEFORE_EQUALS = ["comment", "space", "key", "mark", "other"];
const AFTER_EQUALS = ["comment", "space", "string", "number", "word", "mark", "other"];

const MANY = { '"""': /"""/g, "'''": /'''/g };

const START = { quotes: null, open: "" };

/**
 * The pieces of a line, `[kind, text]`, and the state after it: the quotes of a string over several lines that is open, and
 * the brackets that are.
 */
export function pieces(line, state = START) {
  const found = [];
  let { quotes, open } = state;
  let at = 0;
  const add = (kind, end) => {
    found.push([kind, line.slice(at, end)]);
    at = end;
  };
  const isKeyNext = () => open === "" || open.endsWith("{");
  let wantsKey = isKeyNext() && !quotes;
  if (quotes) {
    const end = closing(line, quotes, 0);
    if (line.length > 0) add("string", end ?? line.length);
    if (end === null) return { pieces: found, state: { quotes, open } };
    quotes = null;
  } else if (open === "" && /^\s*\[/.test(line)) {
    const [space] = /^\s*/.exec(line);
    if (space) add("space", space.length);
    add("table", match("table", line, at));
  }
  while (at < line.length) {
    const opening = line.slice(at, at + 3);
    if (MANY[opening]) {
      const end = closing(line, opening, at + 3);
      add("string", end ?? line.length);
      if (end === null) return { pieces: found, state: { quotes: opening, open } };
      continue;
    }
    const kind = (wantsKey ? BEFORE_EQUALS : AFTER_EQUALS).find((one) => match(one, line, at) !== null) ?? "other";
    const [mark] = line.slice(at, at + 1);
    if (kind === "mark") {
      if (mark === "[" || mark === "{") open += mark;
      if (mark === "]" || mark === "}") open = open.slice(0, -1);
      wantsKey = mark === "{" || (mark === "," && isKeyNext()) || (mark === "." && wantsKey);
    }
    add(kind, match(kind, line, at) ?? at + 1);
  }
  return { pieces: found, state: { quotes, open } };
}

/** Where a rule that begins there ends; `null` if it does not match. */
function match(kind, line, at) {
  const rule = RULES[kind];
  rule.lastIndex = at;
  return rule.exec(line) && rule.lastIndex > at ? rule.lastIndex : null;
}

function closing(line, quotes, from) {
  const rule = MANY[quotes];
  rule.lastIndex = from;
  return rule.exec(line) ? rule.lastIndex : null;
}

/** Whether two states colour what follows alike. */
export function isSame(one, other) {
  return one.quotes === other.quotes && one.open === other.open;
}

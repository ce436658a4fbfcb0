// TOML in pieces, for colours. Pure: a line and what was open before it, to pieces and what is open after it.

const RULES = [
  ["comment", /#.*/y],
  ["table", /\[\[?[^\]\n]*\]?\]?/y],
  ["string", /"(?:[^"\\]|\\.)*"?|'[^']*'?/y],
  ["number", /[+-]?(?:0x[\da-fA-F_]+|0o[0-7_]+|0b[01_]+|\d[\d_]*(?:\.[\d_]+)?(?:[eE][+-]?\d+)?|inf|nan)\b/y],
  ["word", /\b(?:true|false)\b/y],
  ["key", /[A-Za-z0-9_-]+(?=\s*(?:\.|=))|"(?:[^"\\]|\\.)*"(?=\s*(?:\.|=))/y],
  ["mark", /[=,{}[\].]/y],
  ["space", /\s+/y],
  ["other", /[^\s#"'=,{}[\].]+|./y],
];

const MANY = { '"""': /"""/g, "'''": /'''/g };

/**
 * The pieces of a line, `[kind, text]`, and the state after it: the quotes of a string over several lines that is open, or
 * the depth of arrays that are.
 */
export function pieces(line, state = { quotes: null, depth: 0 }) {
  const found = [];
  let { quotes, depth } = state;
  let at = 0;
  let isStart = true;
  const add = (kind, end) => {
    if (end > at) found.push([kind, line.slice(at, end)]);
    at = end;
  };
  if (quotes) {
    const end = closing(line, quotes, 0);
    add("string", end ?? line.length);
    if (end === null) return { pieces: found, state: { quotes, depth } };
    quotes = null;
    isStart = false;
  }
  while (at < line.length) {
    const opening = line.slice(at, at + 3);
    if (MANY[opening]) {
      const end = closing(line, opening, at + 3);
      add("string", end ?? line.length);
      if (end === null) return { pieces: found, state: { quotes: opening, depth } };
      continue;
    }
    const [kind, end] = next(line, at, isStart && depth === 0);
    if (kind === "mark") {
      const mark = line[at];
      if (mark === "[") depth += 1;
      if (mark === "]") depth = Math.max(0, depth - 1);
    }
    if (kind !== "space") isStart = false;
    add(kind, end);
  }
  return { pieces: found, state: { quotes, depth } };
}

function next(line, at, mayBeTable) {
  // a key in quotes is one before it is a string
  const order = RULES.filter(([kind]) => kind !== "table" || mayBeTable);
  const key = RULES.find(([kind]) => kind === "key")[1];
  key.lastIndex = at;
  const named = key.exec(line);
  if (named) return ["key", key.lastIndex];
  for (const [kind, rule] of order) {
    rule.lastIndex = at;
    if (rule.exec(line) && rule.lastIndex > at) return [kind, rule.lastIndex];
  }
  return ["other", at + 1];
}

function closing(line, quotes, from) {
  const rule = MANY[quotes];
  rule.lastIndex = from;
  return rule.exec(line) ? rule.lastIndex : null;
}

/** Whether two states colour what follows alike. */
export function isSame(one, other) {
  return one.quotes === other.quotes && one.depth === other.depth;
}

// An editor: a text area that is plain to every keyboard and screen reader, over lines in colours that only eyes have.

import { attr, el, replace, text, unseen } from "./dom.js";
import { isSame, pieces } from "./toml.js";

/** A text with more lines than this is left without colours: they would be slower than the typing. */
const COLOURED = 20_000;

export class Editor {
  /** `changed(value)` is called at each change by the keyboard. */
  constructor({ label, changed }) {
    this.lines = [];
    this.marks = new Map();
    this.area = el("textarea", {
      class: "editor-area",
      id: "editor",
      "aria-label": label,
      spellcheck: "false",
      autocapitalize: "off",
      autocomplete: "off",
      wrap: "off",
      "aria-describedby": "editor-findings",
      oninput: () => {
        this.paint();
        changed(this.area.value);
      },
      onscroll: () => this.follow(),
      onkeydown: (event) => this.onKey(event),
    });
    this.coloured = el("div", { class: "editor-lines", "aria-hidden": "true" });
    this.numbers = el("div", { class: "editor-numbers", "aria-hidden": "true" });
    this.node = el(
      "div",
      { class: "editor" },
      el("div", { class: "editor-gutter" }, this.numbers),
      el("div", { class: "editor-text" }, el("div", { class: "editor-back" }, this.coloured), this.area),
    );
  }

  get value() {
    return this.area.value;
  }

  set value(value) {
    this.area.value = value;
    this.paint();
  }

  set isReadOnly(value) {
    this.area.readOnly = value;
  }

  /** Tab indents; Escape and then Tab leaves, as the help says. */
  onKey(event) {
    if (event.key === "Escape") this.mayLeave = true;
    else if (event.key === "Tab" && !event.shiftKey && !this.mayLeave && !this.area.readOnly) {
      event.preventDefault();
      document.execCommand("insertText", false, "  ");
    } else if (event.key !== "Shift") this.mayLeave = false;
  }

  /** Colours what has changed: lines at the beginning and at the end that stay are left as they are. */
  paint() {
    const wanted = this.area.value.split("\n");
    const before = this.lines;
    let first = 0;
    while (first < wanted.length && first < before.length && wanted[first] === before[first].source) first += 1;
    let tail = 0;
    while (
      tail < wanted.length - first &&
      tail < before.length - first &&
      wanted.at(-1 - tail) === before.at(-1 - tail).source
    )
      tail += 1;
    let state = first > 0 ? before[first - 1].state : undefined;
    const middle = wanted.slice(first, wanted.length - tail).map((source) => {
      const line = coloured(source, state, wanted.length <= COLOURED);
      state = line.state;
      return line;
    });
    const rest = before.slice(before.length - tail);
    for (const line of before.slice(first, before.length - tail)) line.node.remove();
    const next = rest[0]?.node ?? null;
    for (const line of middle) this.coloured.insertBefore(line.node, next);
    // what was opened or closed above may colour the rest in another way
    for (const line of rest) {
      const again = coloured(line.source, state, wanted.length <= COLOURED);
      const isEqual = line.state && again.state && isSame(again.state, line.state);
      state = again.state;
      replace(line.node, [...again.node.childNodes]);
      line.state = again.state;
      if (isEqual) break;
    }
    this.lines = [...before.slice(0, first), ...middle, ...rest];
    this.number();
    this.follow();
  }

  number() {
    const { length } = this.lines;
    while (this.numbers.children.length > length) this.numbers.lastChild.remove();
    while (this.numbers.children.length < length)
      this.numbers.append(el("div", { class: "editor-number" }, this.numbers.children.length + 1));
    this.mark();
  }

  /** Marks lines that something is wrong with: `[{ line, severity, message }]`. */
  set findings(findings) {
    this.marks = new Map();
    for (const { line, severity } of findings) {
      if (line > 0 && this.marks.get(line) !== "error") this.marks.set(line, severity);
    }
    this.mark();
  }

  mark() {
    this.lines.forEach(({ node }, at) => {
      const severity = this.marks.get(at + 1) ?? null;
      attr(node, "data-severity", severity);
      const number = this.numbers.children[at];
      if (number) attr(number, "data-severity", severity);
    });
  }

  follow() {
    this.coloured.style.transform = `translate(${-this.area.scrollLeft}px, ${-this.area.scrollTop}px)`;
    this.numbers.style.transform = `translateY(${-this.area.scrollTop}px)`;
  }

  /** Puts the cursor at a line and column, both from 1, and shows it. */
  jump(line, column) {
    const lines = this.area.value.split("\n");
    const at = lines.slice(0, line - 1).reduce((sum, before) => sum + before.length + 1, 0);
    const inLine = [...(lines[line - 1] ?? "")].slice(0, Math.max(0, column - 1)).join("").length;
    this.area.focus();
    this.area.setSelectionRange(at + inLine, at + inLine);
    const height = this.area.scrollHeight / Math.max(1, lines.length);
    this.area.scrollTop = Math.max(0, (line - 1) * height - this.area.clientHeight / 2);
    this.follow();
  }
}

function coloured(source, state, isColoured) {
  const node = el("div", { class: "editor-line" });
  if (!isColoured) {
    text(node, source || " ");
    return { source, state, node };
  }
  const found = pieces(source, state);
  for (const [kind, piece] of found.pieces)
    node.append(kind === "space" || kind === "other" ? piece : el("span", { class: `t-${kind}` }, piece));
  if (found.pieces.length === 0) node.append(" ");
  return { source, state: found.state, node };
}

/** A text in colours that nobody can change. */
export function listing(source) {
  const lines = [];
  let state;
  for (const line of source.replace(/\n$/, "").split("\n")) {
    const made = coloured(line, state, true);
    state = made.state;
    lines.push(made.node);
  }
  return el("pre", { class: "listing", tabindex: "0", role: "region", "aria-label": "Text" }, lines);
}

/** A unified diff in colours; each line says what it is to screen readers, too. */
export function difference(lines) {
  if (lines.trim() === "") return el("p", { class: "section-note" }, "The text is the same.");
  const rows = lines
    .replace(/\n$/, "")
    .split("\n")
    .filter((line) => !/^(---|\+\+\+) /.test(line) && !line.startsWith("\\"));
  const kinds = { "+": "added", "-": "removed", "@": "place" };
  return el(
    "pre",
    { class: "listing diff", tabindex: "0", role: "region", "aria-label": "Differences" },
    rows.map((line) => {
      const kind = kinds[line[0]];
      return el(
        "div",
        { class: "diff-line", "data-kind": kind },
        kind === "added" || kind === "removed" ? unseen(`${kind}: `) : null,
        line || " ",
      );
    }),
  );
}

// The table of frontends, backends and servers. There may be ten thousand lines: only those in sight are elements, and an
// element changes only where its text does.

import { attr, el, style, text, unseen } from "./dom.js";
import { byteRate, count, duration, list, percent, rate, words } from "./format.js";
import { Badge, Meter, icon } from "./marks.js";
import { panelAddress } from "./router.js";

/** Lines above and below those in sight. */
const MARGIN = 8;

const COLUMNS = ["Name", "State", "Weight", "Share", "New", "Errors", "From clients", "To clients", "Open"];

export class TreeView {
  /** `toggle(id, isOpen)` is called when somebody opens or closes a line. */
  constructor(toggle) {
    this.toggle = toggle;
    this.lines = [];
    this.rows = new Map();
    const heads = COLUMNS.map((name, at) => el("span", { role: "columnheader", class: `cell c${at}` }, name));
    this.head = el(
      "div",
      { role: "rowgroup" },
      el("div", { role: "row", class: "tree-head", "aria-rowindex": 1 }, heads),
    );
    this.body = el("div", { role: "rowgroup", class: "tree-body" });
    this.node = el(
      "div",
      { role: "table", class: "tree", "aria-label": "Frontends, backends and servers" },
      this.head,
      this.body,
    );
    this.body.addEventListener("keydown", (event) => this.onKey(event));
    this.onScroll = () => this.paint();
    window.addEventListener("scroll", this.onScroll, { passive: true });
    window.addEventListener("resize", this.onScroll);
  }

  destroy() {
    window.removeEventListener("scroll", this.onScroll);
    window.removeEventListener("resize", this.onScroll);
  }

  update(lines) {
    this.lines = lines;
    attr(this.node, "aria-rowcount", lines.length + 1);
    this.paint();
  }

  paint() {
    // as CSS has it: a line is higher on a phone
    const height = parseFloat(getComputedStyle(this.node).getPropertyValue("--row")) * rem();
    style(this.body, "height", `${this.lines.length * height}px`);
    const { top } = this.body.getBoundingClientRect();
    const first = Math.max(0, Math.floor(-top / height) - MARGIN);
    const end = Math.min(this.lines.length, Math.ceil((window.innerHeight - top) / height) + MARGIN);
    const wanted = new Set();
    for (let at = first; at < end; at += 1) wanted.add(this.lines[at].id);
    for (const [id, row] of this.rows) {
      // what has the focus stays, wherever it is
      if (wanted.has(id) || row.node.contains(document.activeElement)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    let before = null;
    for (let at = first; at < end; at += 1) {
      const line = this.lines[at];
      let row = this.rows.get(line.id);
      if (!row) {
        row = new Row(line.kind, () => this.toggle(row.line.id, !row.line.isOpen));
        this.rows.set(line.id, row);
      }
      row.update(line, at);
      style(row.node, "transform", `translateY(${at * height}px)`);
      const next = before ? before.nextSibling : this.body.firstChild;
      if (row.node !== next) this.body.insertBefore(row.node, next);
      before = row.node;
    }
  }

  /** Up and down go from line to line, left and right close and open. */
  onKey(event) {
    const node = event.target.closest(".tree-row");
    const row = [...this.rows.values()].find((candidate) => candidate.node === node);
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const opens = { ArrowRight: true, ArrowLeft: false }[event.key];
    if (step) {
      const next = this.rows.get(this.lines[row.at + step]?.id);
      next?.link.focus();
      event.preventDefault();
    } else if (opens !== undefined && row.line.hasMore && Boolean(row.line.isOpen) !== opens) {
      this.toggle(row.line.id, opens);
      event.preventDefault();
    }
  }
}

function rem() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

const KINDS = { frontend: "Frontend", backend: "Backend", server: "Server" };

class Row {
  constructor(kind, toggle) {
    this.kind = kind;
    this.opener =
      kind === "server" ? null : el("button", { type: "button", class: "opener", onclick: toggle }, icon("chevron"));
    this.link = el("a", { class: "tree-name" });
    this.about = el("span", { class: "tree-about" });
    this.badge = new Badge();
    this.since = el("span", { class: "tree-since" });
    this.share = kind === "server" ? new Meter() : null;
    this.cells = COLUMNS.map((_, at) =>
      el("span", { role: "cell", class: `cell c${at}${at >= 4 || at === 2 ? " number" : ""}` }),
    );
    this.cells[0].append(...[this.opener, unseen(`${KINDS[kind]} `), this.link].filter(Boolean));
    this.cells[1].append(this.badge.node, this.since);
    if (this.share) {
      this.cells[0].append(this.about);
      this.cells[3].append(this.share.node);
    } else {
      // neither weight nor share: there is room to say what it is
      this.cells[2].append(this.about);
      attr(this.cells[2], "class", "cell c2 wide");
      attr(this.cells[2], "aria-colspan", 2);
    }
    this.node = el(
      "div",
      { role: "row", class: "tree-row", "data-kind": kind },
      this.cells.filter((_, at) => this.share || at !== 3),
    );
    this.node.addEventListener("click", (event) => {
      if (!event.target.closest("a, button") && !window.getSelection().toString()) this.link.click();
    });
  }

  update(line, at) {
    this.line = line;
    this.at = at;
    attr(this.node, "aria-rowindex", at + 2);
    attr(this.node, "data-level", line.level);
    const name = line.names.at(-1);
    text(this.link, name);
    attr(this.link, "href", panelAddress(line.kind, ...line.names));
    if (this.opener) {
      attr(this.opener, "aria-expanded", line.isOpen ? "true" : "false");
      attr(this.opener, "aria-label", `${line.isOpen ? "Close" : "Open"} ${line.kind} ${name}`);
      attr(this.opener, "disabled", !line.hasMore);
    }
    const { view } = line;
    this[line.kind](view, line);
    const { rates, traffic } = view;
    text(this.cells[4], rate(rates.connections["10s"]));
    text(this.cells[5], rate(rates.failures["10s"]));
    attr(this.cells[5], "data-tone", rates.failures["10s"] > 0 ? "bad" : null);
    text(this.cells[6], byteRate(rates.bytes_in["10s"]));
    text(this.cells[7], byteRate(rates.bytes_out["10s"]));
    text(this.cells[8], count(traffic.connections_current));
  }

  frontend(view) {
    text(this.about, `${list(view.listen, 1)}${view.protocol === "udp" ? " udp" : ""} · ${view.mode}`);
    const waiting = Object.keys(view.waiting).length > 0;
    if (waiting) this.badge.update("waiting");
    else if (view.serves) this.badge.update("live", "serves");
    else this.badge.update("down", "no server");
  }

  backend(view, line) {
    text(this.about, words(view.balance));
    const all = `${view.eligible} of ${line.count} eligible`;
    if (line.count === 0) this.badge.update("down", "no servers");
    else if (view.eligible === 0) this.badge.update("down", all);
    else this.badge.update(line.unwell > 0 ? "warning" : "up", all);
  }

  server(view, line) {
    text(this.about, view.addr === line.names[1] ? "" : view.addr);
    this.badge.update(view.state);
    text(this.since, view.state_seconds === null ? "" : duration(view.state_seconds).split(" ").slice(0, 2).join(" "));
    attr(this.badge.node, "title", view.state_reason);
    const slow = view.eligible && view.effective_percent < 100 && view.weight > 0;
    text(this.cells[2], slow ? `${view.weight} at ${view.effective_percent} %` : view.weight);
    attr(this.cells[2], "data-changed", view.weight !== view.configured_weight);
    this.share.update(line.share, line.share === null ? "–" : percent(line.share, 1));
  }
}

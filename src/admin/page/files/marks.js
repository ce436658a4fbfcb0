// Marks: a state is a shape and a word, and only then a colour.

import { attr, el, svg, text } from "./dom.js";

/** An icon of index.html. Decoration: what it says stands beside it. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

/** How each state of a server looks: its tone, and the shape of that tone. */
const TONES = {
  up: "good",
  live: "good",
  valid: "good",
  running: "good",
  resolved: "good",
  passed: "good",
  draining: "drain",
  maintenance: "hold",
  checking: "wait",
  starting: "wait",
  unresolved: "wait",
  not_made: "wait",
  waiting: "warn",
  warning: "warn",
  missing: "warn",
  stopping: "warn",
  down: "bad",
  error: "bad",
  expired: "bad",
  failed: "bad",
  no_route: "bad",
  info: "idle",
};

export function toneOf(label) {
  return TONES[label] ?? "idle";
}

/** A state as a shape and a word, which can change: `badge.update("down")`, or with other words or tone. */
export class Badge {
  constructor() {
    this.use = svg("use", {});
    this.word = el("span", {});
    this.node = el(
      "span",
      { class: "badge" },
      svg("svg", { class: "icon", "aria-hidden": "true" }, this.use),
      this.word,
    );
  }

  update(label, words = String(label).replaceAll("_", " "), tone = toneOf(label)) {
    attr(this.use, "href", `#i-${tone}`);
    attr(this.node, "data-tone", tone);
    text(this.word, words);
  }
}

/** The same, once. */
export function badge(label, words, tone) {
  const made = new Badge();
  made.update(label, words, tone);
  return made.node;
}

/** A share as a bar with its number. */
export class Meter {
  constructor() {
    this.bar = el("span", { class: "meter-bar" });
    this.label = el("span", { class: "meter-label" });
    this.node = el(
      "span",
      { class: "meter" },
      el("span", { class: "meter-track", "aria-hidden": "true" }, this.bar),
      this.label,
    );
  }

  /** `fraction`: 0 to 1, or `null` for none. */
  update(fraction, words, tone) {
    const width = `${Math.round(Math.min(1, Math.max(0, fraction ?? 0)) * 1000) / 10}%`;
    if (this.width !== width) this.bar.style.width = this.width = width;
    attr(this.node, "data-tone", tone ?? null);
    attr(this.node, "data-none", fraction === null);
    text(this.label, words);
  }
}

export function meter(fraction, words, tone) {
  const made = new Meter();
  made.update(fraction, words, tone);
  return made.node;
}

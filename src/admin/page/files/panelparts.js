// What several panels show: times, settings in effect.

import { Problem, ask } from "./api.js";
import { el, facts, replace, table } from "./dom.js";
import { count, millis, words } from "./format.js";
import { may } from "./session.js";

/** Percentiles: `[[words, percentiles], …]`; nothing if there are none. */
export function timesTable(lines) {
  const known = lines.filter(([, times]) => times);
  if (known.length === 0) return [];
  const rows = known.map(([label, { p50, p90, p99, count: number }]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, label),
      [p50, p90, p99].map((time) => el("td", { class: "number" }, millis(time))),
      el("td", { class: "number" }, count(number)),
    ),
  );
  return el(
    "section",
    { class: "panel-section" },
    el("h3", {}, "How long things take"),
    table(
      "How long things take",
      ["Of what", "#Half within", "#9 of 10", "#99 of 100", "#Count"],
      el("tbody", {}, rows),
    ),
  );
}

/** Every setting in effect of a frontend or backend, once it is known. */
export function settings(kind, name) {
  const place = el("div", {}, el("p", { class: "section-note" }, "Loading…"));
  const node = el(
    "details",
    { class: "panel-section settings" },
    el("summary", {}, el("h3", {}, "Settings in effect")),
    place,
  );
  node.addEventListener("toggle", () => node.open && load(), { once: true });
  async function load() {
    if (!may("operate")) {
      replace(
        place,
        el("p", { class: "section-note" }, "The configuration is shown to the roles operate and configure."),
      );
      return;
    }
    try {
      const resolved = await ask("GET", "/v1/config/resolved");
      replace(place, tree(resolved[kind]?.[name] ?? {}));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      replace(place, el("p", { class: "form-error" }, problem.message));
    }
  }
  return node;
}

/** Settings as terms and values, tables of settings below. */
function tree(value) {
  const plain = [];
  const nested = [];
  for (const [key, inner] of Object.entries(value)) {
    if (inner !== null && typeof inner === "object" && !Array.isArray(inner)) nested.push([key, inner]);
    else if (Array.isArray(inner) && inner.some((item) => typeof item === "object"))
      inner.forEach((item, at) => nested.push([`${key} ${at + 1}`, typeof item === "object" ? item : { value: item }]));
    else plain.push([key, el("code", {}, shown(inner))]);
  }
  return [
    facts(plain),
    nested
      .filter(([key]) => key !== "servers")
      .map(([key, inner]) => el("section", { class: "setting" }, el("h4", {}, words(key)), tree(inner))),
  ];
}

function shown(value) {
  return Array.isArray(value) ? value.join(", ") || "none" : String(value);
}

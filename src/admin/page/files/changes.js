// What a text of the configuration would change, for people: in words, with what it would cost, and line by line.

import { el } from "./dom.js";
import { difference } from "./editor.js";
import { many } from "./format.js";
import { badge } from "./marks.js";

/** Of an answer of /v1/config/diff. */
export function changeSummary({ changes, needs_restart: needed, lines, draining, cut, warnings }) {
  const list = (heading, items) =>
    items.length
      ? el(
          "section",
          { class: "change" },
          el("h3", {}, heading),
          el(
            "ul",
            {},
            items.map((item) => el("li", {}, item)),
          ),
        )
      : null;
  return el(
    "div",
    { class: "changes" },
    cut
      ? el(
          "p",
          { class: "reason", "data-tone": "bad" },
          badge("down", "Cuts connections"),
          ` ${many(cut.connections, "connection")}: ${cut.why}`,
        )
      : null,
    list("What changes", changes.length ? changes : ["Nothing: only comments or layout differ."]),
    list(
      "Goes once its connections have ended",
      draining.map(({ what, connections }) => `${what} (${many(connections, "open connection")})`),
    ),
    list("Needs a restart", needed),
    list(
      "Warnings",
      warnings.map(({ line, message }) => (line > 0 ? `Line ${line}: ${message}` : message)),
    ),
    el("section", { class: "change" }, el("h3", {}, "Line by line"), difference(lines)),
  );
}

// Events as a list, the newest first.

import { el, keyed, unseen } from "./dom.js";
import { clock } from "./format.js";
import { icon, toneOf } from "./marks.js";
import { panelAddress } from "./router.js";

/** A list of events that can be updated: `update(events)`, oldest first, as the API has them. */
export function eventList({ most = 200 } = {}) {
  const node = el("ol", { class: "events" });
  const set = keyed(node, (event) => event.id, item);
  return { node, update: (events) => set(events.slice(-most).reverse()) };
}

function item(event) {
  const at = new Date(event.at);
  const node = el(
    "li",
    { class: "event", "data-level": event.level },
    el("time", { datetime: event.at, title: event.at }, clock(at)),
    mark(event.level),
    el("span", { class: "event-text" }, sentenceOf(event), " ", link(event)),
  );
  return { node, update() {} };
}

/** The shape says how much it matters; screen readers hear the word. */
function mark(level) {
  if (level === "info") return el("span", { class: "event-dot", "aria-hidden": "true" });
  return el("span", { class: "badge", "data-tone": toneOf(level), title: level }, icon(toneOf(level)), unseen(level));
}

/** Several lines are long reasons: the first says what it is. */
function sentenceOf(event) {
  const [first, ...more] = event.message.split("\n");
  if (more.length === 0) return first;
  return el("details", {}, el("summary", {}, first), el("pre", {}, more.join("\n")));
}

/** To what the event names. */
function link({ fields }) {
  const { frontend, backend, server } = fields;
  const to = (words, ...panel) => el("a", { class: "event-link", href: panelAddress(...panel) }, words);
  if (backend && server) return to(`${backend}/${server}`, "server", backend, server);
  if (backend) return to(backend, "backend", backend);
  if (frontend) return to(frontend, "frontend", frontend);
  return null;
}

/** Whether an event is for people who watch: requests of scripts and checks that pass are not. */
export function isNotable(event) {
  return event.level !== "info" || !QUIET.has(event.event);
}

const QUIET = new Set([
  "admin",
  "overrides_saved",
  "rules_checked",
  "tested",
  "probe",
  "listening",
  "privileges_dropped",
  "scripts_written",
]);

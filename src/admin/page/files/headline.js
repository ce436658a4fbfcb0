// The line that people read first, and what is behind it; on every view.

import { connection, retry } from "./api.js";
import { attr, button, el, replace, show, text } from "./dom.js";
import { rough } from "./format.js";
import { watch } from "./live.js";
import { Badge, icon } from "./marks.js";
import { say } from "./notices.js";
import { address, panelAddress } from "./router.js";
import { issuesOf, verdictOf } from "./verdict.js";

const EVERY = 5000;

/** Issues that are listed before somebody asks for the rest. */
const FEW = 4;

const TONES = { bad: "bad", warn: "warn", note: "idle" };

const node = document.getElementById("headline");
const line = document.getElementById("headline-line");
const below = document.getElementById("headline-below");
const list = document.getElementById("headline-issues");
const banner = document.getElementById("banner");

let certificates = null;
let known = "";
let said = "";
let showsAll = false;
let stops = [];
let ticking = 0;
let last = null;

/** Begins to judge. */
export function begin() {
  stops = [
    watch("/v1/status", EVERY, judge),
    watch("/v1/certificates", 60_000, (answer) => {
      certificates = answer;
      if (last) judge(last);
    }),
  ];
}

export function end() {
  for (const stop of stops) stop();
  stops = [];
  last = null;
}

function judge(status) {
  last = status;
  const issues = issuesOf(status, certificates);
  const verdict = verdictOf(status, issues);
  put(verdict);
  if (said !== verdict.line) {
    if (said) say(verdict.line);
    said = verdict.line;
  }
  draw(issues, verdict);
}

function put(verdict) {
  show(node, true);
  attr(node, "data-tone", verdict.tone);
  attr(node.querySelector("use"), "href", `#i-${verdict.tone}`);
  text(line, verdict.line);
  text(below, verdict.below);
  document.title = `${verdict.tone === "good" ? "" : "● "}${verdict.line} · Convey`;
}

function draw(issues, verdict) {
  // what the line says already is not said again, unless there is more to it
  const listed = issues.filter((issue) => !(verdict.line.endsWith(issue.text) && !issue.detail && issues.length === 1));
  const key = JSON.stringify([listed, showsAll, location.hash]);
  if (key === known) return;
  known = key;
  const shown = showsAll ? listed : listed.slice(0, FEW);
  const more = listed.length - shown.length;
  replace(
    list,
    shown.map(item),
    more > 0
      ? el(
          "li",
          {},
          button(`${more} more`, () => expand(true), "link"),
        )
      : null,
    showsAll && listed.length > FEW
      ? el(
          "li",
          {},
          button("Fewer", () => expand(false), "link"),
        )
      : null,
  );
  show(list, listed.length > 0);
}

function expand(all) {
  showsAll = all;
  if (last) judge(last);
}

function item({ level, text: words, detail, panel, view, params }) {
  const mark = new Badge();
  mark.update(level, { bad: "Problem", warn: "Attention", note: "Note" }[level], TONES[level]);
  const href = panel ? panelAddress(...panel) : address(view, params);
  const [first] = (detail ?? "").split("\n");
  return el(
    "li",
    { class: "issue" },
    mark.node,
    el("span", {}, el("a", { href }, words), first ? el("span", { class: "issue-detail" }, ` ${first}`) : null),
  );
}

/** Says that nobody answers, how long already, and when the page asks next. */
function lost() {
  clearInterval(ticking);
  const isLost = !connection.isUp;
  show(banner, isLost);
  attr(document.body, "data-stale", isLost);
  if (!isLost) {
    if (banner.childNodes.length > 0) say("Convey answers again.");
    banner.replaceChildren();
    return;
  }
  if (banner.childNodes.length === 0) say("Convey does not answer. What is shown is from before.");
  if (last) {
    put({ tone: "bad", line: "Convey does not answer.", below: "Nobody knows how it is now." });
    show(list, false);
    known = "";
  }
  const since = el("span", { class: "banner-since" });
  const next = el("span", { class: "banner-next" });
  const tick = () => {
    const now = performance.now();
    text(since, rough((now - connection.since) / 1000));
    const wait = Math.ceil((connection.next - now) / 1000);
    text(next, wait > 0 ? `Next attempt in ${wait} s.` : "Trying…");
  };
  tick();
  ticking = setInterval(tick, 500);
  replace(
    banner,
    icon("bad"),
    el("p", {}, el("strong", {}, "Convey does not answer"), " since ", since, ". What you see is from before. ", next),
    button("Try now", retry),
  );
}

connection.listeners.add(lost);

// Where servers come from that are not in the configuration.

import { el, empty, replace, table } from "./dom.js";
import { ago, count, sentence, words } from "./format.js";
import { watch } from "./live.js";
import { badge } from "./marks.js";
import { panelAddress } from "./router.js";

export const title = "Discovery";

export function mount(main) {
  const place = el("div", {});
  main.append(
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el("header", { class: "section-head" }, el("h2", { id: "h-view" }, "Sources of servers")),
      place,
    ),
  );
  return watch("/v1/discovery", 5000, (sources) => replace(place, sourcesOf(Object.entries(sources))));
}

function sourcesOf(sources) {
  if (sources.length === 0)
    return empty(
      "No sources.",
      "All servers stand in the configuration. A backend with ",
      el("code", {}, "discovery"),
      " gets them from DNS, a file, a command, Docker, Consul, Kubernetes or LXD.",
    );
  const rows = sources.map(([backend, it]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: panelAddress("backend", backend) }, backend)),
      el("td", {}, words(it.kind), el("span", { class: "sub" }, it.source)),
      el("td", {}, stateOf(it)),
      el("td", { class: "number" }, count(it.servers)),
      el("td", { class: "number" }, it.answered_seconds === null ? "never" : ago(it.answered_seconds)),
      el("td", { class: "number" }, count(it.left_out)),
      el("td", { class: "number" }, count(it.duplicates)),
    ),
  );
  return table(
    "Sources of servers",
    ["Backend", "Source", "State", "#Servers", "#Answered", "#Left out", "#Named twice"],
    el("tbody", {}, rows),
  );
}

function stateOf({ problem }) {
  if (!problem) return badge("up", "answers");
  const what = problem.held ? badge("waiting", "held") : badge("down", "does not answer");
  return [what, el("span", { class: "sub problem" }, `${sentence(problem.text)} (${ago(problem.seconds)})`)];
}

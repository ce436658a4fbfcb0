// The first screen: what goes on, who serves whom, what happened last.

import { attr, button, el, empty, replace, show } from "./dom.js";
import { eventList, isNotable } from "./eventlist.js";
import { many } from "./format.js";
import { plots } from "./history.js";
import { watch } from "./live.js";
import { address, here, remember } from "./router.js";
import { stream } from "./stream.js";
import { linesOf } from "./tree.js";
import { TreeView } from "./treeview.js";

const EVERY = 3000;

/** What somebody has opened and closed, kept while the page is there. */
const open = new Map();

export const title = "Overview";

export function mount(main) {
  const history = plots();
  let status = null;
  let filter = here().params.find ?? "";
  let problems = here().params.show === "problems";

  const tree = new TreeView((id, isOpen) => {
    open.set(id, isOpen);
    draw();
  });
  const search = el("input", {
    type: "search",
    id: "filter",
    placeholder: "Name or address",
    "aria-label": "Filter by name or address",
    value: filter,
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      filter = search.value;
      note();
      draw();
    },
  });
  const only = el("input", {
    type: "checkbox",
    checked: problems,
    onchange: () => {
      problems = only.checked;
      note();
      draw();
    },
  });
  const summary = el("p", { class: "section-note" });
  const nothing = el("div", { hidden: true });
  const events = eventList({ most: 60 });
  const noEvents = el("p", { class: "section-note" }, "Nothing has happened yet.");

  function note() {
    remember(address("overview", { ...here().params, find: filter, show: problems ? "problems" : null }));
  }

  function draw() {
    if (!status) return;
    const lines = linesOf(status, { open, filter, problems });
    show(tree.node, lines.length > 0);
    show(nothing, lines.length === 0);
    if (lines.length === 0) replace(nothing, absent(status, filter, problems));
    tree.update(lines);
    const [frontends, backends] = [Object.keys(status.frontends).length, Object.keys(status.backends).length];
    summary.textContent = `${many(frontends, "frontend")}, ${many(backends, "backend")}`;
  }

  const all = (isOpen) => {
    for (const line of linesOf(status, { open, filter, problems }))
      if (line.kind === "backend") open.set(line.id, isOpen);
    draw();
  };
  const tools = el(
    "div",
    { class: "tools" },
    search,
    el("label", { class: "check-row" }, only, "Only problems"),
    button("Open all", () => status && all(true), "quiet"),
    button("Close all", () => status && all(false), "quiet"),
  );

  main.append(
    el(
      "section",
      { class: "section", "aria-labelledby": "h-traffic" },
      el("h2", { id: "h-traffic", class: "unseen" }, "Traffic of the last 15 minutes"),
      history.node,
    ),
    el(
      "div",
      { class: "overview-lower" },
      el(
        "section",
        { class: "section card", "aria-labelledby": "h-servers" },
        el("header", { class: "section-head" }, el("h2", { id: "h-servers" }, "Who serves whom"), summary, tools),
        tree.node,
        nothing,
      ),
      el(
        "section",
        { class: "section card overview-events", "aria-labelledby": "h-last" },
        el(
          "header",
          { class: "section-head" },
          el("h2", { id: "h-last" }, "What happened last"),
          el("a", { href: "#/events" }, "All events"),
        ),
        noEvents,
        el("div", { class: "events-scroll", tabindex: "0", role: "region", "aria-label": "Last events" }, events.node),
      ),
    ),
  );
  const stops = [
    history.stop,
    watch("/v1/status", EVERY, (answer) => {
      status = answer;
      draw();
    }),
    stream.listen(({ events: heard }) => {
      const notable = heard.filter(isNotable);
      attr(noEvents, "hidden", notable.length > 0);
      events.update(notable);
    }),
    () => tree.destroy(),
  ];
  return () => stops.forEach((stop) => stop());
}

function absent(status, filter, problems) {
  if (Object.keys(status.frontends).length === 0 && Object.keys(status.backends).length === 0) {
    return empty(
      "No frontends yet.",
      "Add one to ",
      el("code", {}, status.config_file),
      " and save it, or ",
      el("a", { href: "#/config" }, "write it here"),
      ".",
    );
  }
  if (problems && !filter)
    return empty("No problems.", "Every frontend serves, and every server that should be up is.");
  return empty(
    "Nothing matches.",
    `No frontend, backend or server has “${filter}” in its name or address${problems ? " and a problem" : ""}.`,
  );
}

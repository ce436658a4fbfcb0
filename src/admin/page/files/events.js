// What has happened, and what happens.

import { attr, el, replace, text } from "./dom.js";
import { eventList } from "./eventlist.js";
import { folded, many } from "./format.js";
import { watch } from "./live.js";
import { processFacts } from "./process.js";
import { stream } from "./stream.js";

const ORDER = ["info", "warning", "error"];

export const title = "Events";

export function mount(main) {
  const list = eventList({ most: 500 });
  const search = el("input", {
    id: "filter",
    type: "search",
    placeholder: "Text, name or event",
    "aria-label": "Filter by text, name or event",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => draw(),
  });
  const levels = { info: "Everything", warning: "Warnings and errors", error: "Errors" };
  const level = el(
    "select",
    { "aria-label": "How much it matters", onchange: () => draw() },
    Object.entries(levels).map(([value, label]) => el("option", { value }, label)),
  );
  const total = el("p", { class: "section-note" });
  const gap = el(
    "p",
    { class: "section-note", hidden: true },
    "Some events came while nobody listened, and are kept no more: the journal has them.",
  );

  const process = el("div", {});

  function matches(event) {
    const wanted = folded(search.value.trim());
    const isLoud = ORDER.indexOf(event.level) >= ORDER.indexOf(level.value);
    return (
      isLoud &&
      (wanted === "" ||
        [event.message, event.event, ...Object.values(event.fields)].some((part) => folded(part).includes(wanted)))
    );
  }

  function draw() {
    const shown = stream.events.filter(matches);
    list.update(shown);
    const all = stream.events.length;
    text(
      total,
      shown.length === all ? `${many(all, "event")}, the newest first` : `${many(shown.length, "event")} of ${all}`,
    );
    attr(gap, "hidden", !stream.hasGap);
  }

  main.append(
    el("details", { class: "section card settings" }, el("summary", {}, el("h2", {}, "The process")), process),
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el(
        "header",
        { class: "section-head" },
        el("h2", { id: "h-view" }, "Events"),
        total,
        el("div", { class: "tools" }, search, level),
      ),
      gap,
      list.node,
    ),
  );
  const stops = [stream.listen(draw), watch("/v1/status", 10_000, (status) => replace(process, processFacts(status)))];
  return () => stops.forEach((stop) => stop());
}

// What operators have set at run time, and when.

import { ask, path } from "./api.js";
import { confirm } from "./dialog.js";
import { attr, button, el, empty, replace, table } from "./dom.js";
import { eventList } from "./eventlist.js";
import { actOnServer } from "./actions.js";
import { many, words } from "./format.js";
import { refresh, watch } from "./live.js";
import { failed, notify } from "./notices.js";
import { panelAddress } from "./router.js";
import { refusal } from "./session.js";

export const title = "Overrides";

export function mount(main) {
  const place = el("div", {});
  const past = eventList({ most: 200 });
  const nothing = el("p", { class: "section-note" }, "None was set or cleared since the start.");
  let overrides = [];
  const clearAll = button("Clear all…", () => clear(overrides));
  main.append(
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el("header", { class: "section-head" }, el("h2", { id: "h-view" }, "Overrides in effect"), clearAll),
      place,
    ),
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-past" },
      el("header", { class: "section-head" }, el("h2", { id: "h-past" }, "Set and cleared since the start")),
      past.node,
      nothing,
    ),
  );
  const stops = [
    watch("/v1/overrides", 3000, (answer) => {
      ({ overrides } = answer);
      const why = refusal("operate");
      attr(clearAll, "disabled", Boolean(why) || overrides.length === 0);
      attr(clearAll, "title", why);
      replace(place, listOf(overrides, why));
    }),
    watch("/v1/overrides/history", 5000, ({ events }) => {
      past.update(events);
      attr(nothing, "hidden", events.length > 0);
    }),
  ];
  return () => stops.forEach((stop) => stop());
}

function listOf(overrides, why) {
  if (overrides.length === 0) return empty("No overrides.", "Health checks and configured weights apply everywhere.");
  const rows = overrides.map(({ backend, server, overridden }) => {
    const back = button("Clear…", () => clearOne(backend, server), "quiet", {
      title: why,
      "aria-label": `Clear the override of ${backend}/${server}`,
    });
    attr(back, "disabled", Boolean(why));
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: panelAddress("server", backend, server) }, `${backend}/${server}`)),
      el("td", {}, words(overridden)),
      el("td", { class: "number" }, back),
    );
  });
  return table("Overrides", ["Server", "Set to", "#Action"], el("tbody", {}, rows));
}

async function clearOne(backend, server) {
  try {
    const { servers } = await ask("GET", path("backends", backend));
    await actOnServer("ready", { backend, server, view: servers[server], siblings: servers });
  } catch (problem) {
    failed(problem);
  }
}

function clear(overrides) {
  return confirm({
    title: `Clear ${many(overrides.length, "override")}?`,
    body: el(
      "p",
      {},
      "Health checks and configured weights apply again everywhere. This cannot be undone here; the list of events says what was set.",
    ),
    verb: "Clear all",
    kind: "danger",
    act: async () => {
      await ask("DELETE", "/v1/overrides");
      refresh();
      notify("All overrides are cleared.");
    },
  });
}

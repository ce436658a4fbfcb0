// The last 15 minutes, which the daemon keeps: of everything, of a frontend, a backend or a server.

import { el } from "./dom.js";
import { byteRate, count, rate } from "./format.js";
import { watch } from "./live.js";
import { Plot } from "./plot.js";

const EVERY = 5000;

/** What is plotted, in the order of the page. */
const PLOTS = {
  throughput: {
    title: "Throughput",
    format: byteRate,
    least: 1000,
    series: [
      { key: "bytes_in", label: "from clients", tone: "in" },
      { key: "bytes_out", label: "to clients", tone: "out" },
    ],
  },
  connections: {
    title: "New connections",
    format: rate,
    least: 1,
    series: [{ key: "connections", label: "begun", tone: "in" }],
  },
  failures: {
    title: "Errors",
    format: rate,
    least: 1,
    series: [{ key: "failures", label: "failed or refused", tone: "bad" }],
  },
  open: {
    title: "Open connections",
    format: count,
    least: 2,
    series: [{ key: "open", label: "open", tone: "out" }],
  },
};

/** The path of a history: of all, or of `frontend`, `backend`, or `server` with its backend. */
export function historyPath({ frontend, backend, server } = {}) {
  const of = new URLSearchParams();
  if (frontend !== undefined) of.set("frontend", frontend);
  if (backend !== undefined) of.set("backend", backend);
  if (server !== undefined) of.set("server", server);
  const query = of.toString();
  return `/v1/history${query ? `?${query}` : ""}`;
}

/** Plots that stay up to date. `stop()` ends that. */
export function plots(of, wanted = Object.keys(PLOTS), { isSmall = false } = {}) {
  const made = wanted.map((name) => new Plot({ ...PLOTS[name], isSmall }));
  const stop = watch(historyPath(of), EVERY, (history) => {
    for (const plot of made) plot.update(history, Date.now());
  });
  return { node: el("div", { class: isSmall ? "plots small" : "plots" }, made.map((plot) => plot.node)), stop };
}

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

/** Of the packet modes, which only the whole has. */
const PACKET_PLOTS = {
  forwarded: {
    title: "Packets forwarded",
    format: rate,
    least: 10,
    series: [{ key: "forwarded", label: "to servers and clients", tone: "in" }],
  },
  refused: {
    title: "Packets not forwarded",
    format: rate,
    least: 1,
    series: [{ key: "refused", label: "answered or dropped", tone: "bad" }],
  },
  flows: {
    title: "Flows",
    format: count,
    least: 10,
    series: [{ key: "flows", label: "in the table", tone: "out" }],
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

/** Those of the packet modes. */
export function packetPlots() {
  const made = Object.values(PACKET_PLOTS).map((spec) => new Plot(spec));
  const stop = watch(historyPath(), EVERY, ({ step_seconds, packets }) => {
    for (const plot of made) if (packets) plot.update({ step_seconds, ...packets }, Date.now());
  });
  return {
    node: el(
      "div",
      { class: "plots three" },
      made.map((plot) => plot.node),
    ),
    stop,
  };
}

/** Plots that stay up to date. `stop()` ends that. */
export function plots(of, wanted = Object.keys(PLOTS), { isSmall = false } = {}) {
  const made = wanted.map((name) => new Plot({ ...PLOTS[name], isSmall }));
  const stop = watch(historyPath(of), EVERY, (history) => {
    for (const plot of made) plot.update(history, Date.now());
  });
  return {
    node: el(
      "div",
      { class: isSmall ? "plots small" : "plots" },
      made.map((plot) => plot.node),
    ),
    stop,
  };
}

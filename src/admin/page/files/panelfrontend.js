// A frontend: where it listens, where its connections go, whom it refused.

import { path } from "./api.js";
import { el, facts, replace, table } from "./dom.js";
import { bytes, count, rate } from "./format.js";
import { plots } from "./history.js";
import { Badge } from "./marks.js";
import { settings, timesTable } from "./panelparts.js";
import { address, panelAddress } from "./router.js";
import { datagramWords, endingWords, refusalWords } from "./words.js";

export function frontendPanel(name) {
  const state = new Badge();
  const waiting = el("div", {});
  const details = el("div", {});
  const counts = el("div", {});
  const times = el("div", {});
  const history = plots({ frontend: name }, ["connections", "throughput", "failures", "open"], { isSmall: true });

  function update(view) {
    const waits = Object.entries(view.waiting);
    if (waits.length > 0) state.update("waiting");
    else
      state.update(
        view.serves ? "live" : "down",
        view.serves ? "serves clients" : "no eligible server: clients are turned away",
      );
    replace(
      waiting,
      waits.map(([at, why]) => el("p", { class: "reason", "data-tone": "warn" }, `${at}: ${why}`)),
    );
    replace(details, factsOf(view));
    replace(
      times,
      timesTable([
        ["Whole connection", view.session_time],
        ["TLS handshake", view.handshake_time],
      ]),
    );
    replace(
      counts,
      table_of("How connections ended", view.traffic.ended, endingWords),
      table_of("Refused", view.refused, refusalWords),
      table_of("Dropped datagrams", view.datagrams_dropped, datagramWords),
    );
  }

  const node = el(
    "div",
    {},
    el("div", { class: "panel-state" }, state.node),
    waiting,
    details,
    history.node,
    el("p", {}, el("a", { href: address("connections", { frontend: name }) }, "Its connections")),
    times,
    counts,
    settings("frontends", name),
  );
  return { kind: "Frontend", title: name, node, watches: [[path("frontends", name), update]], stops: [history.stop] };
}

function factsOf(view) {
  const { traffic } = view;
  const to = (backend) => el("a", { href: panelAddress("backend", backend) }, backend);
  return facts([
    ["Listens at", view.listen.map((at) => el("code", { class: "line" }, at))],
    ["Mode", `${view.mode}, ${view.protocol}`],
    ["Backend", to(view.backend)],
    [
      "Backends of its routes",
      view.route_backends.length ? view.route_backends.map((backend) => [to(backend), " "]) : null,
    ],
    [
      "Open connections",
      view.max_connections
        ? `${count(traffic.connections_current)} of at most ${count(view.max_connections)}`
        : count(traffic.connections_current),
    ],
    ["New connections", rate(view.rates.connections["10s"])],
    ["Connections so far", count(traffic.connections_total)],
    ["From clients", bytes(traffic.bytes_in)],
    ["To clients", bytes(traffic.bytes_out)],
    [
      "Datagrams",
      traffic.datagrams_in + traffic.datagrams_out > 0
        ? `${count(traffic.datagrams_in)} in, ${count(traffic.datagrams_out)} out`
        : null,
    ],
    ["Accept errors", view.accept_errors > 0 ? count(view.accept_errors) : null],
    ["TLS secrets", view.logs_tls_keys ? "are written to a file (key_log)" : null],
  ]);
}

function table_of(caption, counted, wordsOf) {
  const entries = Object.entries(counted).sort(([, one], [, other]) => other - one);
  if (entries.length === 0) return null;
  const rows = entries.map(([label, number]) =>
    el("tr", {}, el("td", {}, wordsOf(label)), el("td", { class: "number" }, count(number))),
  );
  return el(
    "section",
    { class: "panel-section" },
    el("h3", {}, caption),
    table(caption, ["Reason", "#Count"], el("tbody", {}, rows)),
  );
}

// A backend: its servers, its source of servers, its times and settings.

import { actOnBackend, addServer } from "./actions.js";
import { path } from "./api.js";
import { attr, button, el, facts, keyed, replace, show, table, text } from "./dom.js";
import { ago, byteRate, bytes, count, many, percent, rate, words } from "./format.js";
import { plots } from "./history.js";
import { Badge, Meter } from "./marks.js";
import { settings, timesTable } from "./panelparts.js";
import { panelAddress } from "./router.js";
import { refusal } from "./session.js";

export function backendPanel(name) {
  let view = null;
  const state = new Badge();
  const details = el("div", {});
  const times = el("div", {});
  const history = plots({ backend: name }, ["connections", "throughput", "failures", "open"], { isSmall: true });
  const rows = el("tbody", {});
  const setRows = keyed(
    rows,
    ([server]) => server,
    () => serverRow(name),
  );
  const act = (label, action) => button(label, () => actOnBackend(action, { backend: name, view }));
  // only where operators are the source of servers
  const add = button("Add server…", () => addServer(name));
  const buttons = [
    act("Drain all…", "drain"),
    act("Maintenance…", "maintenance"),
    act("Clear overrides…", "ready"),
    add,
  ];
  const why = el("p", { class: "section-note" });

  function update(answer) {
    view = answer;
    const servers = Object.entries(view.servers);
    state.update(view.state, `${view.eligible} of ${many(servers.length, "server")} eligible`);
    replace(details, factsOf(view));
    const all = servers.reduce((sum, [, server]) => sum + server.rates.connections["1m"], 0);
    setRows(servers.map(([server, it]) => [server, it, all]));
    replace(
      times,
      timesTable([
        ["To connect", view.connect_time],
        ["Whole connection", view.session_time],
      ]),
    );
    show(add, view.discovery?.kind === "api");
    const refused = refusal("operate");
    text(why, refused ?? "");
    show(why, Boolean(refused));
    for (const one of buttons) attr(one, "disabled", Boolean(refused));
  }

  const node = el(
    "div",
    {},
    el("div", { class: "panel-state" }, state.node),
    el("div", { class: "panel-actions" }, buttons, why),
    details,
    history.node,
    el(
      "section",
      { class: "panel-section" },
      el("h3", {}, "Servers"),
      table("Servers", ["Name", "State", "#Weight", "Share", "#New", "#Open", "#To clients"], rows),
    ),
    times,
    settings("backends", name),
  );
  return { kind: "Backend", title: name, node, watches: [[path("backends", name), update]], stops: [history.stop] };
}

function serverRow(backend) {
  const state = new Badge();
  const share = new Meter();
  const link = el("a", {});
  const [weight, begun, open, out] = [0, 1, 2, 3].map(() => el("td", { class: "number" }));
  const node = el(
    "tr",
    {},
    el("th", { scope: "row" }, link),
    el("td", {}, state.node),
    weight,
    el("td", {}, share.node),
    begun,
    open,
    out,
  );
  const update = ([server, view, all]) => {
    text(link, server);
    attr(link, "href", panelAddress("server", backend, server));
    attr(link, "title", view.addr);
    state.update(view.state);
    attr(state.node, "title", view.state_reason);
    text(weight, view.weight);
    const part = all > 0 ? view.rates.connections["1m"] / all : null;
    share.update(part, part === null ? "–" : percent(part, 1));
    text(begun, rate(view.rates.connections["10s"]));
    text(open, count(view.traffic.connections_current));
    text(out, byteRate(view.rates.bytes_out["10s"]));
  };
  return { node, update };
}

function factsOf(view) {
  const { sticky, tls, discovery, traffic } = view;
  return facts([
    ["Balancing", words(view.balance)],
    ["Waiting for a server", count(view.queued)],
    ["Open connections", count(traffic.connections_current)],
    ["Connections so far", count(traffic.connections_total)],
    ["From clients", bytes(traffic.bytes_in)],
    ["To clients", bytes(traffic.bytes_out)],
    ["Failed connects", count(traffic.connect_failures)],
    ["Sticky clients", sticky ? `${count(sticky.entries)} of at most ${count(sticky.max_entries)}` : null],
    ["TLS to servers", tls ? `${tls.verified ? "verified" : "not verified"}, name: ${tls.server_name}` : null],
    ["Source of servers", discovery ? discovery.source : null],
    ["Last answer of it", discovery && discovery.answered_seconds !== null ? ago(discovery.answered_seconds) : null],
    ["Problem of it", discovery?.problem?.text],
  ]);
}

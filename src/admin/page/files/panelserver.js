// A server: how it is and why, its checks, its connections, and what can be done about it.

import { actOnServer, closeConnections, countOf, removeServer } from "./actions.js";
import { path } from "./api.js";
import { connectionTable } from "./connectiontable.js";
import { attr, button, el, facts, replace, show, table, text } from "./dom.js";
import { eventList } from "./eventlist.js";
import { ago, bytes, count, duration, many, millis, percent, rate, words } from "./format.js";
import { plots } from "./history.js";
import { Badge, badge } from "./marks.js";
import { timesTable } from "./panelparts.js";
import { refusal } from "./session.js";
import { stream } from "./stream.js";
import { DSR_HINT, endingWords, handshakeWords, tlsFailureWords } from "./words.js";

/** Connections that are listed in the panel. */
const SHOWN = 50;

export function serverPanel(backend, server) {
  let view = null;
  let siblings = null;
  // whether operators add and remove servers of its backend
  let isApi = false;
  const state = new Badge();
  const since = el("span", { class: "panel-since" });
  const reason = el("p", { class: "reason" });
  const said = el("p", { class: "said" });
  const details = el("div", {});
  const checks = el("div", {});
  const times = el("div", {});
  const ended = el("div", {});
  const packet = el("div", {});
  const actions = new Actions(() => ({ backend, server, view, siblings }));
  const history = plots({ backend, server }, ["connections", "throughput", "failures", "open"], { isSmall: true });
  const listed = connectionTable({ hides: ["backend", "server"] });
  const total = el("span", { class: "section-note" });
  const closeAll = button(
    "Close all…",
    () =>
      closeConnections(
        { backend, server },
        `the connections of ${backend}/${server}`,
        countOf(view.traffic.connections_current),
      ),
    "quiet danger",
  );
  const events = eventList({ most: 20 });
  const section = (heading, ...children) => el("section", { class: "panel-section" }, el("h3", {}, heading), children);
  const eventSection = section("What happened to it", events.node);

  const node = el(
    "div",
    {},
    el("div", { class: "panel-state" }, state.node, since),
    reason,
    said,
    actions.node,
    details,
    history.node,
    section("Checks", checks),
    el(
      "section",
      { class: "panel-section" },
      el("header", { class: "section-head" }, el("h3", {}, "Connections"), total, closeAll),
      listed.node,
    ),
    times,
    ended,
    packet,
    eventSection,
  );

  function update(answer) {
    view = answer;
    state.update(view.state);
    text(since, view.state_seconds === null ? "" : `for ${duration(view.state_seconds)}`);
    text(reason, view.state_reason ?? "");
    show(reason, Boolean(view.state_reason));
    attr(reason, "data-tone", view.state === "down" ? "bad" : null);
    text(said, standing(view));
    actions.update(view, view.discovered && isApi);
    replace(details, factsOf(view));
    replace(checks, checksOf(view));
    replace(
      times,
      timesTable([
        ["To connect", view.connect_time],
        ["Whole connection", view.session_time],
      ]),
    );
    replace(ended, endedOf(view));
    replace(packet, packetOf(view));
    const why = refusal("operate");
    const isClosable = view.traffic.connections_current > 0;
    attr(closeAll, "disabled", Boolean(why) || !isClosable);
    attr(closeAll, "title", why);
  }

  function around(answer) {
    siblings = answer.servers;
    isApi = answer.discovery?.kind === "api";
    if (view) actions.update(view, view.discovered && isApi);
  }

  function connections({ total: number, connections: some }) {
    listed.update(some);
    const more = number > some.length ? `, the oldest ${count(some.length)} are shown` : "";
    text(total, number === 0 ? "none" : `${many(number, "connection")}${more}`);
  }

  const query = new URLSearchParams({ backend, server, limit: SHOWN });
  return {
    kind: `Server of ${backend}`,
    title: server,
    node,
    watches: [
      [path("backends", backend, "servers", server), update],
      [path("backends", backend), around, 5000],
      [`/v1/connections?${query}`, connections, 2000],
    ],
    stops: [
      history.stop,
      stream.listen(({ events: heard }) => {
        const about = heard.filter(({ fields }) => fields.backend === backend && fields.server === server);
        show(eventSection, about.length > 0);
        events.update(about);
      }),
    ],
  };
}

/** Why it gets connections, or none. */
function standing(view) {
  if (view.eligible && view.effective_percent < 100)
    return `It gets ${view.effective_percent} % of its weight while it starts slowly.`;
  if (view.eligible) return "";
  if (view.state === "up" && view.weight === 0) return "Its weight is 0, so it gets no new connections.";
  if (view.state === "up")
    return "It gets no new connections: servers of another priority come first, or it is at its limit.";
  if (view.state === "draining" || view.state === "maintenance") return "It gets no new connections.";
  return "";
}

function factsOf(view) {
  const { traffic, agent } = view;
  return facts([
    ["Address", el("code", {}, view.addr)],
    [
      "Weight",
      view.weight === view.configured_weight
        ? count(view.weight)
        : `${count(view.weight)} (configured: ${view.configured_weight})`,
    ],
    ["Priority", view.priority],
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
    ["Failed connects", count(traffic.connect_failures)],
    ["Retries", traffic.retries > 0 ? count(traffic.retries) : null],
    ["Override", view.overridden ? words(view.overridden) : null],
    ["Comes from", view.discovered ? "discovery, or added at run time" : "the configuration"],
    ["Agent says", agent ? agent.says || "nothing in particular" : null],
    ["Agent's problem", agent?.problem],
  ]);
}

function checksOf(view) {
  const { last_checks: last = [] } = view;
  if (last.length === 0)
    return el(
      "p",
      { class: "section-note" },
      view.state === "maintenance" ? "It is not checked during maintenance." : "It is not checked.",
    );
  const rows = last.map((check) =>
    el(
      "tr",
      {},
      el("td", {}, badge(check.outcome)),
      el("td", { class: "number" }, ago(check.seconds_ago)),
      el("td", { class: "number" }, millis(check.milliseconds)),
      el("td", {}, check.reason ?? ""),
    ),
  );
  return table("Last checks", ["Result", "#When", "#Took", "Reason"], el("tbody", {}, rows));
}

/** Pairs of words and counts as a table, the largest first. */
function counts(caption, heading, entries, wordsOf) {
  if (entries.length === 0) return null;
  const sum = entries.reduce((all, [, number]) => all + number, 0);
  const sorted = entries.sort(([, one], [, other]) => other - one);
  const rows = sorted.map(([label, number]) =>
    el(
      "tr",
      {},
      el("td", {}, wordsOf(label)),
      el("td", { class: "number" }, count(number)),
      el("td", { class: "number" }, percent(number, sum)),
    ),
  );
  return el(
    "section",
    { class: "panel-section" },
    el("h3", {}, caption),
    table(caption, [heading, "#Count", "#Part"], el("tbody", {}, rows)),
  );
}

function endedOf(view) {
  return [
    counts("How connections ended", "Reason", Object.entries(view.traffic.ended), endingWords),
    counts("Failed TLS handshakes with it", "Reason", Object.entries(view.tls_failures ?? {}), tlsFailureWords),
  ].filter(Boolean);
}

function packetOf({ packet }) {
  if (!packet) return [];
  const { nat_ports: ports, alerts } = packet;
  return [
    alerts.length || ports
      ? el(
          "section",
          { class: "panel-section" },
          el("h3", {}, "Packet modes"),
          alerts.map((alert) => badge("warning", words(alert))),
          facts([
            [
              "NAT ports",
              ports
                ? `${count(ports.claimed)} of ${count(ports.available)} (${percent(ports.claimed, ports.available)})`
                : null,
            ],
          ]),
          el("p", { class: "section-note" }, DSR_HINT, " ", el("a", { href: "#/packets" }, "Scripts for servers")),
        )
      : null,
    counts("TCP handshakes", "How they ended", Object.entries(packet.handshakes), handshakeWords),
  ].filter(Boolean);
}

/** The buttons of a server, those that make sense now. */
class Actions {
  constructor(target) {
    const make = (label, action, kind) => button(label, () => actOnServer(action, target()), kind);
    this.drain = make("Drain…", "drain");
    this.maintenance = make("Maintenance…", "maintenance");
    this.weight = make("Weight…", "weight");
    this.ready = make("Clear override…", "ready", "primary");
    this.remove = button("Remove…", () => removeServer(target().backend, target().server, target().view), "danger");
    this.why = el("p", { class: "section-note" });
    this.node = el(
      "div",
      { class: "panel-actions" },
      this.ready,
      this.drain,
      this.maintenance,
      this.weight,
      this.remove,
      this.why,
    );
  }

  update(view, isRemovable) {
    const why = refusal("operate");
    text(this.why, why ?? "");
    show(this.why, Boolean(why));
    show(this.ready, Boolean(view.overridden));
    show(this.remove, isRemovable);
    attr(this.drain, "disabled", Boolean(why) || view.state === "draining");
    attr(this.maintenance, "disabled", Boolean(why) || view.state === "maintenance");
    for (const other of [this.weight, this.ready, this.remove]) attr(other, "disabled", Boolean(why));
  }
}

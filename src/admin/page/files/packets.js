// The packet modes: the engine, what became of packets, NAT ports, next hops, and the scripts of servers.

import { attr, el, empty, facts, keyed, replace, table, text } from "./dom.js";
import { count, percent, rate, words } from "./format.js";
import { packetPlots } from "./history.js";
import { watch } from "./live.js";
import { Meter, badge } from "./marks.js";
import { panelAddress } from "./router.js";
import { scripts } from "./scripts.js";
import { alertWords, verdictWords } from "./words.js";

const EVERY = 3000;

export const title = "Packets";

/** What kind of end a packet had, by its sentence; the first that fits. */
const KINDS = [
  { heading: "Forwarded", tone: "good", fits: (label) => /^(error_)?to_(server|client)$/.test(label) },
  { heading: "Left to the kernel", tone: "idle", fits: (label) => label === "not_ours" },
  { heading: "Answered by Convey", tone: "drain", fits: (_, sentence) => sentence.startsWith("Answered") },
  { heading: "Dropped", tone: "bad", fits: () => true },
];

export function mount(main) {
  const engine = el("div", {});
  const tables = el("div", {});
  const verdicts = new Verdicts();
  const ports = new Ports();
  const hops = el("div", {});
  const rules = el("div", {});
  const script = scripts();
  const history = packetPlots();
  const card = (id, heading, ...children) =>
    el(
      "section",
      { class: "section card", "aria-labelledby": id },
      el("header", { class: "section-head" }, el("h2", { id }, heading)),
      children,
    );
  const broad = (node) => {
    node.classList.add("broad");
    return node;
  };
  const nothing = el(
    "div",
    { class: "section card", hidden: true },
    empty(
      "No frontend uses the packet modes.",
      "A frontend with ",
      el("code", {}, 'mode = "passthrough"'),
      " or ",
      el("code", {}, 'mode = "dsr"'),
      " forwards packets instead of relaying connections; this page then shows the engine and what becomes of each packet.",
    ),
  );
  const all = el(
    "div",
    { class: "cards", hidden: true },
    broad(history.node),
    card("h-engine", "Engine", engine),
    card("h-flows", "Flows", tables),
    broad(card("h-verdicts", "What became of packets", verdicts.node)),
    card("h-ports", "NAT ports", ports.node),
    card("h-rules", "Firewall rules", rules),
    broad(card("h-hops", "Next hops", hops)),
    broad(card("h-scripts", "Scripts for servers of mode dsr", script.node)),
  );
  main.append(nothing, all);

  const stop = watch("/v1/status", EVERY, (status) => {
    const { packet } = status;
    attr(nothing, "hidden", Boolean(packet));
    attr(all, "hidden", !packet);
    if (!packet) return;
    replace(engine, engineOf(packet));
    replace(tables, flowsOf(packet.flows));
    verdicts.update(packet.packets);
    ports.update(status.backends);
    replace(hops, hopsOf(packet.next_hops));
    replace(rules, rulesOf(packet.rules));
    script.update(status);
  });
  return () => {
    stop();
    history.stop();
  };
}

function engineOf(packet) {
  return [
    packet.alerts.map((alert) =>
      el("p", { class: "reason", "data-tone": "warn" }, badge("warning", words(alert)), " ", alertWords(alert)),
    ),
    facts([
      ["Engine", packet.engine],
      ["Why this one", packet.engine_reason],
      ["Threads", packet.workers],
      ["Interfaces", packet.interfaces.join(", ") || "none yet"],
      ["NAT ports of new flows", packet.nat_ports],
    ]),
  ];
}

function flowsOf(flows) {
  const used = flows.nat + flows.dsr;
  const full = new Meter();
  full.update(
    flows.max ? used / flows.max : 0,
    `${percent(used, flows.max)} of ${count(flows.max)}`,
    used > flows.max * 0.9 ? "bad" : null,
  );
  return facts([
    ["Flow table", full.node],
    ["Passthrough flows", count(flows.nat)],
    ["Half-open", count(flows.half_open)],
    ["dsr flows", count(flows.dsr)],
    ["Fragments that wait", count(flows.fragments_waiting)],
    ["Gave way to new flows", count(flows.gave_way)],
  ]);
}

/** Verdicts with their counts, and what is new each second. */
class Verdicts {
  constructor() {
    this.before = null;
    this.groups = KINDS.map(({ heading, tone }) => {
      const rows = el("tbody", {});
      return {
        rows,
        set: keyed(
          rows,
          ([label]) => label,
          () => verdictRow(tone),
        ),
        node: el(
          "section",
          { class: "verdicts" },
          el("h3", {}, heading),
          table(heading, ["Verdict", "#Packets", "#Now"], rows),
        ),
      };
    });
    this.node = el(
      "div",
      {},
      this.groups.map((group) => group.node),
    );
  }

  update(packets) {
    const now = performance.now();
    const seconds = this.before ? (now - this.before.at) / 1000 : 0;
    const grouped = KINDS.map(() => []);
    for (const [label, number] of Object.entries(packets)) {
      const sentence = verdictWords(label);
      const kind = KINDS.findIndex(({ fits }) => fits(label, sentence));
      const perSecond = seconds > 0 ? Math.max(0, number - (this.before.packets[label] ?? 0)) / seconds : null;
      grouped[kind].push([label, number, perSecond, sentence]);
    }
    this.groups.forEach((group, at) => {
      attr(group.node, "hidden", grouped[at].length === 0);
      group.set(grouped[at].sort(([, one], [, other]) => other - one));
    });
    // a refresh right after another says nothing about a second
    if (!this.before || seconds >= 1) this.before = { at: now, packets };
  }
}

function verdictRow(tone) {
  const [name, about] = [el("code", {}), el("span", { class: "verdict-about" })];
  const [total, now] = [el("td", { class: "number" }), el("td", { class: "number" })];
  const node = el("tr", { "data-tone": tone }, el("td", {}, name, about), total, now);
  const update = ([label, number, perSecond, sentence]) => {
    text(name, label);
    text(about, sentence.replace(/^(Dropped|Answered|Left|Forwarded)[^:]*: /, ""));
    text(total, count(number));
    text(now, rate(perSecond));
  };
  return { node, update };
}

/** NAT ports of each server that has some. */
class Ports {
  constructor() {
    this.rows = el("tbody", {});
    this.set = keyed(this.rows, ([name]) => name, portRow);
    this.table = table("NAT ports by server", ["Server", "Taken", "#Ports", "#Of"], this.rows);
    this.none = el("p", { class: "section-note" }, "No frontend of mode passthrough.");
    this.node = el("div", {}, this.table, this.none);
  }

  update(backends) {
    const found = [];
    for (const [backend, { servers }] of Object.entries(backends)) {
      for (const [server, { packet }] of Object.entries(servers)) {
        if (packet?.nat_ports) found.push([`${backend}/${server}`, packet.nat_ports, backend, server]);
      }
    }
    // the fullest first: there may be thousands
    const fullest = found
      .sort(([, one], [, other]) => other.claimed / other.available - one.claimed / one.available)
      .slice(0, 100);
    this.set(fullest);
    attr(this.table, "hidden", found.length === 0);
    attr(this.none, "hidden", found.length > 0);
  }
}

function portRow([name, , backend, server]) {
  const taken = new Meter();
  const [claimed, available] = [el("td", { class: "number" }), el("td", { class: "number" })];
  const node = el(
    "tr",
    {},
    el("th", { scope: "row" }, el("a", { href: panelAddress("server", backend, server) }, name)),
    el("td", {}, taken.node),
    claimed,
    available,
  );
  const update = ([, ports]) => {
    const part = ports.available ? ports.claimed / ports.available : 1;
    taken.update(part, percent(ports.claimed, ports.available), part > 0.9 ? "bad" : null);
    text(claimed, count(ports.claimed));
    text(available, count(ports.available));
  };
  return { node, update };
}

function hopsOf(hops) {
  const rows = Object.entries(hops).map(([ip, hop]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("code", {}, ip)),
      el("td", {}, badge(hop.state), hop.reason ? ` ${hop.reason}` : ""),
      el("td", {}, hop.interface ?? "–"),
      el("td", {}, hop.mac ? el("code", {}, hop.mac) : "–"),
      el("td", {}, hop.locals.join(", ") || "–", hop.source_moves ? " (a VIP: a fail-over moves it)" : ""),
      el("td", { class: "number" }, hop.mtu || "–"),
    ),
  );
  return rows.length
    ? table("Next hops", ["Server", "State", "Interface", "Link address", "Source", "#MTU"], el("tbody", {}, rows))
    : el("p", { class: "section-note" }, "No server is reached by packets yet.");
}

function rulesOf(rules) {
  return rules.error
    ? el("p", { class: "reason", "data-tone": "bad" }, badge("error", "Not known to be right"), " ", rules.error)
    : [
        badge("up", "In place"),
        el(
          "p",
          { class: "section-note" },
          rules.restored > 0
            ? `Another program changed them ${rules.restored} times, and they were restored${rules.restored_seconds_ago === null || rules.restored_seconds_ago === undefined ? "" : `, last ${rules.restored_seconds_ago} s ago`}.`
            : "Nobody else has changed them.",
        ),
      ];
}

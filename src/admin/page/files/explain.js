// Where would this client go, and why: the way, drawn.

import { Problem, ask } from "./api.js";
import { el, empty, replace, table } from "./dom.js";
import { count, duration, percent, words } from "./format.js";
import { watch } from "./live.js";
import { badge, icon, meter } from "./marks.js";
import { address, here, panelAddress, remember } from "./router.js";
import { endingWords, verdictWords } from "./words.js";

export const title = "Explain";

/** What the API's reasons mean. */
const BECAUSE = {
  proxied: "The connection ends at Convey, which chooses a server for each.",
  not_served: "No frontend listens there.",
  flow: "It has a flow, which stays with its server.",
  flow_draining: "It has a flow, which stays with its server although that is draining.",
  flow_server_down: "It has a flow, but its server is down.",
  maglev: "It has no flow: the hash of its addresses selects a slot of the table of servers.",
  no_server: "No server of the backend is eligible.",
};

export function mount(main) {
  const { params } = here();
  const listen = el("datalist", { id: "listen" });
  const input = (name, label, props, note) => {
    const field = el("input", { name, value: params[name] ?? "", autocomplete: "off", spellcheck: "false", ...props });
    return el("label", { class: "field" }, label, field, note ? el("small", {}, note) : null);
  };
  const protocols = el(
    "select",
    { name: "protocol" },
    ["tcp", "udp"].map((value) => el("option", { value, selected: params.protocol === value }, value.toUpperCase())),
  );
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  const result = el("div", { class: "way-place", role: "status" }, hint());
  const form = el(
    "form",
    { class: "filters explain-form", onsubmit: (event) => submit(event) },
    el("label", { class: "field narrow" }, "Protocol", protocols),
    input("client", "Client", { id: "filter", required: true, placeholder: "203.0.113.7:40000" }, "IP:port"),
    input(
      "vip",
      "Destination",
      { required: true, placeholder: "192.0.2.80:443", list: "listen" },
      "IP:port that the client connects to",
    ),
    input("sni", "Name (SNI)", { placeholder: "any" }, "that its ClientHello asks for"),
    input("alpn", "ALPN", { placeholder: "h2,http/1.1" }, "protocols that it offers"),
    el("button", { type: "submit", class: "button primary" }, "Explain"),
    listen,
  );

  async function submit(event) {
    event?.preventDefault();
    const given = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value).trim()]));
    remember(address("explain", given));
    error.hidden = true;
    try {
      replace(result, way(await ask("GET", "/v1/explain", { query: given }), given));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      error.hidden = false;
      replace(error, problem.message);
      replace(result, hint());
    }
  }

  main.append(
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el("header", { class: "section-head" }, el("h2", { id: "h-view" }, "Where would this client go?")),
      form,
      error,
      result,
    ),
  );
  if (params.client && params.vip) submit();
  return watch("/v1/status", 60_000, (status) => {
    const all = Object.values(status.frontends).flatMap((frontend) =>
      frontend.listen.filter((at) => !at.startsWith("unix:")),
    );
    replace(
      listen,
      [...new Set(all)].slice(0, 500).map((value) => el("option", { value })),
    );
  });
}

function hint() {
  return empty(
    "Type a client and where it connects to.",
    "Convey answers as it would decide now: which frontend, route, backend and server, and what would be in the way. Nothing is sent.",
  );
}

/** One stop of the way. */
function stop(kind, name, about, props = {}) {
  return el(
    "li",
    { class: "way-stop", "data-tone": props.tone ?? null },
    el("span", { class: "way-kind" }, kind),
    el("strong", { class: "way-name" }, props.href ? el("a", { href: props.href }, name) : name),
    about ? el("span", { class: "way-about" }, about) : null,
    props.badge ?? null,
  );
}

function way(found, asked) {
  const refused = found.refused ? endingWords(found.refused) : null;
  const blocked = found.blocked_by ? verdictWords(found.blocked_by) : null;
  const stops = [
    stop(
      "Client",
      found.client,
      [found.protocol.toUpperCase(), asked.sni && ` · asks for ${asked.sni}`].filter(Boolean),
    ),
  ];
  if (!found.frontend) {
    stops.push(
      stop("Frontend", "none", `nobody listens at ${found.vip}`, { tone: "bad", badge: badge("down", "not served") }),
    );
  } else {
    stops.push(
      stop("Frontend", found.frontend, `${found.vip} · ${found.mode}`, {
        href: panelAddress("frontend", found.frontend),
      }),
    );
    if (found.route) stops.push(stop("Route", `No. ${found.route}`, "the first that matches"));
    if (refused)
      stops.push(stop("Refused", words(found.refused), refused, { tone: "bad", badge: badge("down", "reset") }));
    else if (found.backend)
      stops.push(
        stop(
          "Backend",
          found.backend,
          [found.balance ? words(found.balance) : `Maglev slot ${found.slot ?? "–"}`, found.sticky ? " · sticky" : ""],
          { href: panelAddress("backend", found.backend) },
        ),
      );
    if (blocked)
      stops.push(stop("Blocked", words(found.blocked_by), blocked, { tone: "bad", badge: badge("down", "blocked") }));
    else if (!refused) stops.push(serverStop(found));
  }
  const arrow = () => el("li", { class: "way-arrow", "aria-hidden": "true" }, icon("arrow"));
  return [
    el(
      "ol",
      { class: "way" },
      stops.flatMap((node, at) => (at === 0 ? [node] : [arrow(), node])),
    ),
    el("p", { class: "way-because" }, because(found)),
    shares(found),
    flow(found),
  ];
}

function serverStop(found) {
  if (found.server) {
    return stop("Server", found.server, found.server_addr, {
      href: panelAddress("server", found.backend, found.server),
      badge: found.server_state ? badge(found.server_state) : null,
    });
  }
  if (found.candidates === 0)
    return stop("Server", "none", "no server is eligible", { tone: "bad", badge: badge("down", "turned away") });
  return stop("Server", `one of ${found.candidates}`, "chosen when it connects");
}

function because(found) {
  const parts = [BECAUSE[found.because] ?? words(found.because)];
  if (found.sticky) parts.push("Its network had this server before, and sticks to it.");
  if (found.server_tls)
    parts.push(
      `TLS to the server: ${found.server_tls.verified ? "verified" : "not verified"}, name ${found.server_tls.server_name}.`,
    );
  return parts.join(" ");
}

function shares({ shares: list, backend }) {
  if (!list?.length) return null;
  const rows = list.map(({ server, addr, percent: share, connections }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: panelAddress("server", backend, server) }, server)),
      el("td", {}, el("code", {}, addr)),
      el("td", {}, meter(share / 100, percent(share, 100))),
      el("td", { class: "number" }, count(connections)),
    ),
  );
  return el(
    "section",
    { class: "way-shares" },
    el("h3", {}, "Eligible servers and their shares of new connections"),
    table("Eligible servers", ["Server", "Address", "Share", "#Open"], el("tbody", {}, rows)),
  );
}

function flow({ flow: it }) {
  if (!it) return null;
  return el(
    "p",
    { class: "section-note" },
    `Its flow: ${words(it.state)}${it.nat ? `, as ${it.nat} towards the server` : ""}, idle for ${duration(it.idle_seconds)}, expires in ${duration(it.expires_in_seconds)}.`,
  );
}

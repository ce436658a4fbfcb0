// Connections as a table, with a button to close each of them.

import { closeConnections } from "./actions.js";
import { attr, el, keyed, table, text } from "./dom.js";
import { bytes, duration, words } from "./format.js";
import { icon } from "./marks.js";
import { panelAddress } from "./router.js";
import { refusal } from "./session.js";

const COLUMNS = {
  client: "Client",
  frontend: "Frontend",
  backend: "Backend",
  server: "Server",
  about: "About",
  age: "#Age",
  idle: "#Idle",
  in: "#From client",
  out: "#To client",
  close: "",
};

/** `hides`: columns that go without saying. */
export function connectionTable({ hides = [] } = {}) {
  const columns = Object.keys(COLUMNS).filter((name) => !hides.includes(name));
  const rows = el("tbody", {});
  const set = keyed(rows, keyOf, (connection) => row(columns, connection));
  const nothing = el("p", { class: "section-note" }, "No open connections.");
  const head = columns.map((name) => COLUMNS[name] || "#Close");
  const shown = table("Connections", head, rows);
  const node = el("div", { class: "connections" }, shown, nothing);
  const update = (connections) => {
    set(connections);
    attr(shown, "hidden", connections.length === 0);
    attr(nothing, "hidden", connections.length > 0);
  };
  return { node, update };
}

/** Clients of unix sockets have no address: their age tells them apart, as far as anything does. */
function keyOf({ client, frontend, protocol, worker, local, flow }) {
  return [protocol, client, frontend, flow?.vip, worker, client === "unix" ? local : ""].join(" ");
}

function row(columns, first) {
  const cells = Object.fromEntries(
    columns.map((name) => [
      name,
      el("td", { class: COLUMNS[name].startsWith("#") || name === "close" ? "number" : null }),
    ]),
  );
  const node = el("tr", {}, Object.values(cells));
  let connection = first;
  if (cells.client) cells.client.append(el("code", {}, first.client));
  const link = (cell, kind, ...names) =>
    cell && cell.append(el("a", { href: panelAddress(kind, ...names) }, names.at(-1)));
  link(cells.frontend, "frontend", first.frontend);
  const close = closer(() => connection);
  cells.close.append(close.node);
  let server = null;
  const update = (now) => {
    connection = now;
    // a connection gets its server later than it comes
    const wanted = `${now.backend}/${now.server}`;
    if (server !== wanted) {
      server = wanted;
      for (const cell of [cells.backend, cells.server]) cell?.replaceChildren();
      if (now.backend) link(cells.backend, "backend", now.backend);
      if (now.server) link(cells.server, "server", now.backend, now.server);
      else if (cells.server) text(cells.server, "none yet");
    }
    text(cells.about, aboutOf(now));
    text(cells.age, duration(now.age_seconds ?? null));
    text(cells.idle, duration(now.idle_seconds ?? now.flow?.idle_seconds ?? null));
    text(cells.in, bytes(now.bytes_in ?? null));
    text(cells.out, bytes(now.bytes_out ?? null));
    close.update(now);
  };
  return { node, update };
}

/** What tells one connection from another: its name, its TLS, its state. */
function aboutOf({ protocol, mode, sni, tls, flow, frontend_removed: noFrontend, server_removed: noServer }) {
  const parts = [
    protocol === "udp" ? "UDP session" : null,
    mode === "proxy" ? null : words(mode),
    sni,
    tls && `${tls.version}${tls.alpn ? ` ${tls.alpn}` : ""}`,
    tls?.client_subject,
    flow && words(flow.state),
    flow?.nat && `as ${flow.nat}`,
  ];
  if (noFrontend) parts.push("its frontend is removed");
  if (noServer) parts.push("its server is removed");
  return parts.filter(Boolean).join(" · ");
}

function closer(connectionNow) {
  const node = el(
    "button",
    { type: "button", class: "button icon-only quiet", onclick: () => ask(connectionNow()) },
    icon("close"),
  );
  const update = ({ client, mode }) => {
    const why = whyNot(client, mode);
    attr(node, "disabled", Boolean(why));
    attr(node, "title", why ?? "Close this connection");
    attr(node, "aria-label", `Close the connection of ${client}`);
  };
  return { node, update };
}

function whyNot(client, mode) {
  if (mode === "dsr") return "Only its ends can end a flow of mode dsr: the answers do not come through here.";
  if (client === "unix") return "Clients of unix sockets have no address by which one could be named.";
  return refusal("operate");
}

function ask({ client, frontend, mode }) {
  const what = mode === "passthrough" ? "Its next packet is answered with a reset." : "It is cut at once.";
  closeConnections({ client, frontend }, `the connection of ${client}`, what);
}

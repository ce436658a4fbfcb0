// What an operator does with servers and connections: asked before, done, and undone again.

import { ask, path } from "./api.js";
import { confirm } from "./dialog.js";
import { el, show } from "./dom.js";
import { count, many } from "./format.js";
import { refresh } from "./live.js";
import { notify } from "./notices.js";

/** The parts of an override: `draining, weight 3`. */
export function partsOf(overridden) {
  const parts = String(overridden ?? "").split(", ");
  const weight = parts.map((part) => /^weight (\d+)$/.exec(part)?.[1]).find(Boolean);
  return {
    admin: parts.find((part) => part === "draining" || part === "maintenance") ?? null,
    weight: weight === undefined ? null : Number(weight),
  };
}

const ACTIONS = { draining: "drain", maintenance: "maintenance" };

/** The requests that lead back from what `action` does to how it was before. */
export function wayBack(before, action) {
  const { admin, weight } = partsOf(before);
  if (action === "ready") {
    const back = admin ? [{ action: ACTIONS[admin] }] : [];
    return weight === null ? back : [{ action: "weight", weight }, ...back];
  }
  if (action === "weight") {
    if (weight !== null) return [{ action: "weight", weight }];
    return admin ? [{ action: "ready" }, { action: ACTIONS[admin] }] : [{ action: "ready" }];
  }
  if (admin) return [{ action: ACTIONS[admin] }];
  return weight === null ? [{ action: "ready" }] : [{ action: "ready" }, { action: "weight", weight }];
}

function change(backend, server, request) {
  return ask("POST", path("backends", backend, "servers", server), { json: request });
}

function changed() {
  refresh("/v1/status", "/v1/backends", "/v1/overrides", "/v1/connections");
}

/** A box to tick when the API says that nobody would be left. */
function forceBox() {
  const node = el(
    "label",
    { class: "check-row", hidden: true },
    el("input", { type: "checkbox", name: "force" }),
    "Do it all the same: new connections are refused then",
  );
  return {
    node,
    onProblem(problem) {
      if (problem.status === 409) show(node, true);
    },
  };
}

function openOnes(view) {
  const open = view.traffic.connections_current;
  if (open === 0) return "It has no open connections.";
  return `Its ${many(open, "open connection")} ${open === 1 ? "goes" : "go"} on until ${open === 1 ? "it ends" : "they end"}.`;
}

function others(name, siblings, server) {
  const left = Object.entries(siblings ?? {}).filter(([other, view]) => other !== server && view.eligible).length;
  if (left === 0) return `No other server of ${name} is eligible.`;
  return `Of ${name}, ${many(left, "other server")} ${left === 1 ? "stays" : "stay"} eligible.`;
}

/** What each action says beforehand and afterwards. */
const SERVER = {
  drain: {
    title: (at) => `Drain ${at}?`,
    says: "It gets no new connections; checks go on.",
    verb: "Drain",
    done: (at) => `${at} is draining.`,
  },
  maintenance: {
    title: (at) => `Put ${at} into maintenance?`,
    says: "It gets no new connections and is no longer checked.",
    verb: "Start maintenance",
    done: (at) => `${at} is in maintenance.`,
  },
  ready: {
    title: (at) => `Clear the override of ${at}?`,
    says: "Its checks and its configured weight apply again.",
    verb: "Clear override",
    done: (at) => `The override of ${at} is cleared.`,
  },
  weight: {
    title: (at) => `Weight of ${at}`,
    says: "It applies until the override is cleared. 0 takes the server out of service.",
    verb: "Set weight",
    done: (at) => `The weight of ${at} is set.`,
  },
};

/** Of all servers of a backend. */
const BACKEND = {
  drain: {
    says: "They get no new connections; checks go on. Open connections go on until they end.",
    done: (at) => `${at} are draining.`,
  },
  maintenance: {
    says: "They get no new connections and are no longer checked. Open connections go on until they end.",
    done: (at) => `${at} are in maintenance.`,
  },
  ready: {
    says: "Their checks and their configured weights apply again.",
    done: (at) => `The overrides of ${at} are cleared.`,
  },
};

function weightField(view) {
  const input = el("input", {
    name: "weight",
    type: "number",
    min: 0,
    max: 65535,
    step: 1,
    required: true,
    autofocus: true,
    value: view.weight,
  });
  return el("label", { class: "field" }, "Weight", input, el("small", {}, `Configured: ${view.configured_weight}`));
}

/** Asks, does it and offers the way back. `siblings`: the servers of its backend. */
export async function actOnServer(action, { backend, server, view, siblings }) {
  const at = `${backend}/${server}`;
  const words = SERVER[action];
  const before = view.overridden;
  const force = forceBox();
  const takesOut = action === "drain" || action === "maintenance";
  const body = [
    el("p", {}, words.says, takesOut ? ` ${openOnes(view)}` : ""),
    takesOut ? el("p", {}, others(backend, siblings, server)) : null,
    action === "weight" ? weightField(view) : null,
    force.node,
  ];
  const act = async (form) => {
    const request = { action, force: form.has("force") };
    if (action === "weight") request.weight = Number(form.get("weight"));
    await change(backend, server, request);
    changed();
    notify(words.done(at), { undo: () => undo(backend, server, wayBack(before, action)) });
  };
  await confirm({ title: words.title(at), body, verb: words.verb, act, onProblem: force.onProblem });
}

async function undo(backend, server, requests) {
  for (const request of requests) await change(backend, server, { ...request, force: true });
  changed();
  notify(`${backend}/${server} is as it was before.`);
}

/** The same for all servers of a backend. Each goes back to what it had. */
export async function actOnBackend(action, { backend, view }) {
  const words = SERVER[action];
  const at = `all ${many(Object.keys(view.servers).length, "server")} of ${backend}`;
  const before = Object.entries(view.servers).map(([server, { overridden }]) => [server, overridden]);
  const force = forceBox();
  const body = [el("p", {}, BACKEND[action].says), force.node];
  const act = async (form) => {
    await ask("POST", path("backends", backend), { json: { action, force: form.has("force") } });
    changed();
    const back = async () => {
      for (const [server, overridden] of before) {
        for (const request of wayBack(overridden, action)) await change(backend, server, { ...request, force: true });
      }
      changed();
      notify(`The servers of ${backend} are as they were before.`);
    };
    notify(BACKEND[action].done(at), { undo: back });
  };
  await confirm({ title: words.title(at), body, verb: words.verb, act, onProblem: force.onProblem });
}

/** Asks for a server and adds it until somebody removes it. */
export async function addServer(backend) {
  const field = (label, name, props, note) =>
    el("label", { class: "field" }, label, el("input", { name, ...props }), note ? el("small", {}, note) : null);
  const body = [
    el("p", {}, "It is there until it is removed, over restarts too; the configuration file stays as it is."),
    field(
      "Address",
      "addr",
      { required: true, autofocus: true, placeholder: "10.0.0.21:8080", autocomplete: "off", spellcheck: "false" },
      "IP:port",
    ),
    field("Name", "name", { maxlength: 255, autocomplete: "off", spellcheck: "false" }, "Default: its address"),
    el(
      "div",
      { class: "field-row" },
      field("Weight", "weight", { type: "number", min: 0, max: 65535, value: "1" }),
      field("Most connections", "max_connections", { type: "number", min: 0, placeholder: "no limit" }),
    ),
  ];
  const act = async (form) => {
    const json = { addr: form.get("addr").trim() };
    if (form.get("name").trim()) json.name = form.get("name").trim();
    for (const name of ["weight", "max_connections"]) if (form.get(name) !== "") json[name] = Number(form.get(name));
    const added = await ask("POST", path("backends", backend, "servers"), { json });
    changed();
    notify(`${added.backend}/${added.server} is added${added.pending ? " and takes effect in a moment" : ""}.`, {
      undo: () => remove(backend, added.server),
    });
  };
  await confirm({ title: `Add a server to ${backend}`, body, verb: "Add server", act });
}

async function remove(backend, server) {
  await ask("DELETE", path("backends", backend, "servers", server));
  changed();
  notify(`${backend}/${server} is removed.`);
}

export async function removeServer(backend, server, view) {
  const body = el("p", {}, "It was added at run time. ", openOnes(view));
  await confirm({
    title: `Remove ${backend}/${server}?`,
    body,
    verb: "Remove",
    kind: "danger",
    act: () => remove(backend, server),
  });
}

/** Closes connections of mode proxy. `query` says which, `what` the same in words. */
export async function closeConnections(query, what, some) {
  const body = el(
    "p",
    {},
    `${some} Both sides see the connection reset. This cannot be undone; clients may connect again.`,
  );
  const act = async () => {
    const { closed } = await ask("DELETE", "/v1/connections", { query });
    changed();
    notify(closed === 0 ? "Nothing was closed: they had ended already." : `${many(closed, "connection")} closed.`);
  };
  await confirm({ title: `Close ${what}?`, body, verb: "Close", kind: "danger", act });
}

/** How many, for `closeConnections`. */
export function countOf(number) {
  return number === 1 ? "One open connection is cut." : `${count(number)} open connections are cut.`;
}

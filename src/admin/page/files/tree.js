// Frontends, the backends that they lead to, and their servers, as lines of one table. Pure.

import { folded } from "./format.js";

/** With no more servers than this all are shown from the start. */
const FEW = 40;

/** A server is unwell if it should serve and does not. */
export function isUnwell(server) {
  return server.state === "down" || server.state === "checking";
}

function isFrontendUnwell(frontend) {
  return !frontend.serves || Object.keys(frontend.waiting).length > 0;
}

/** The backends of a frontend in order: its own, then those of its routes. */
function backendsOf(frontend, backends) {
  const names = [frontend.backend, ...frontend.route_backends];
  return [...new Set(names)].filter((name) => backends[name]);
}

/**
 * The lines: `{ id, level, kind, names, view, parent, isOpen, share, unwell }`.
 *
 * `open` maps ids to whether somebody opened or closed them; `filter` is part of a name or address; `problems`: only what is
 * not as it should be, and what leads there.
 */
export function linesOf(status, { open, filter = "", problems = false }) {
  const wanted = folded(filter.trim());
  const total = Object.values(status.backends).reduce((sum, { servers }) => sum + Object.keys(servers).length, 0);
  const isSearch = wanted !== "" || problems;
  const lines = [];
  const seen = new Set();
  const make = (backendNames, parent) => {
    for (const name of backendNames) {
      seen.add(name);
      const found = backendLines(name, status.backends[name], parent, {
        open,
        wanted,
        problems,
        isSearch,
        isFew: total <= FEW,
      });
      lines.push(...found);
    }
  };
  for (const [name, view] of Object.entries(status.frontends)) {
    const at = lines.length;
    const id = `f ${name}`;
    const isOpen = open.get(id) ?? true;
    const names = backendsOf(view, status.backends);
    const isNamed = wanted !== "" && !problems && matches(wanted, name, view.listen.join(" "));
    const line = {
      id,
      level: 1,
      kind: "frontend",
      names: [name],
      view,
      isOpen,
      hasMore: names.length > 0,
      unwell: isFrontendUnwell(view) ? 1 : 0,
    };
    lines.push(line);
    if (isNamed) {
      // all that belongs to it
      for (const backend of names) {
        seen.add(backend);
        lines.push(
          ...backendLines(backend, status.backends[backend], id, {
            open,
            wanted: "",
            problems: false,
            isSearch: false,
            isFew: true,
          }),
        );
      }
      continue;
    }
    if (isOpen || isSearch) make(names, id);
    else names.forEach((backend) => seen.add(backend));
    if (
      isSearch &&
      lines.length === at + 1 &&
      !(problems && line.unwell && matches(wanted, name, view.listen.join(" ")))
    )
      lines.pop();
  }
  make(
    Object.keys(status.backends).filter((name) => !seen.has(name)),
    null,
  );
  return lines;
}

function backendLines(name, view, parent, { open, wanted, problems, isSearch, isFew }) {
  const id = `${parent ?? "-"} b ${name}`;
  const servers = Object.entries(view.servers);
  const unwell = servers.filter(([, server]) => isUnwell(server)).length;
  const isNamed = matches(wanted, name);
  const shown = servers.filter(
    ([server, it]) => (isNamed || matches(wanted, server, it.addr)) && (!problems || isUnwell(it)),
  );
  if (isSearch && shown.length === 0 && !(isNamed && !problems) && !(problems && isNamed && view.state === "down"))
    return [];
  const isOpen = open.get(id) ?? (isFew || (isSearch && shown.length <= FEW));
  const line = {
    id,
    level: parent ? 2 : 1,
    kind: "backend",
    names: [name],
    view,
    parent,
    isOpen,
    hasMore: servers.length > 0,
    unwell,
    count: servers.length,
  };
  if (!isOpen) return [line];
  const all = servers.reduce((sum, [, server]) => sum + server.rates.connections["1m"], 0);
  const rows = shown.map(([server, it]) => ({
    id: `${id} s ${server}`,
    level: line.level + 1,
    kind: "server",
    names: [name, server],
    view: it,
    parent: id,
    share: all > 0 ? it.rates.connections["1m"] / all : null,
    unwell: isUnwell(it) ? 1 : 0,
  }));
  return [line, ...rows];
}

function matches(wanted, ...texts) {
  return wanted === "" || texts.some((text) => folded(text).includes(wanted));
}

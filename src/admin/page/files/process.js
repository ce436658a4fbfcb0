// The process: what it is, its limits, and what it could not do.

import { code, el, facts, table } from "./dom.js";
import { count, duration, list, percent } from "./format.js";
import { badge } from "./marks.js";

/** Of an answer of /v1/status. */
export function processFacts(status) {
  const { open, most, accept_pauses: pauses } = status.proxied_connections;
  return [
    facts([
      ["Version", status.version],
      ["Process", status.pid],
      ["Up for", duration(status.uptime_seconds)],
      ["Threads of the proxy", status.workers],
      ["Configuration", code(status.config_file)],
      ["Loaded", status.config_generation === 1 ? "once" : `${count(status.config_generation)} times`],
      ["Connections of the proxy", `${count(open)} of at most ${count(most)} (${percent(open, most)})`],
      ["Pauses at that limit", count(pauses)],
      ["Log lines dropped", count(status.log_events_dropped)],
      ["Refused at the admin API", count(status.admin_connections_refused)],
      ["Wrong tokens", count(status.admin_logins_failed)],
      ["Needs a restart", status.needs_restart.length ? list(status.needs_restart, 10) : null],
    ]),
    status.log_outputs?.length ? outputs(status.log_outputs) : null,
  ];
}

/** Where lines about connections go besides the journal. */
function outputs(places) {
  const rows = places.map(({ output, dropped, error }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, code(output)),
      el("td", {}, error ? [badge("failed"), ` ${error}`] : badge("up", "written")),
      el("td", { class: "number" }, count(dropped)),
    ),
  );
  return table("Connection log", ["Place of the connection log", "State", "#Lines dropped"], el("tbody", {}, rows));
}

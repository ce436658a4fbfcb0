// Is everything well? Pure: from what the API says to the line that people read first, and to what is behind it.
//
// `bad`: clients are not served. `warn`: they are, but something needs a person. `note`: as somebody wanted it.

import { count, list, many, percent, rough, words } from "./format.js";
import { alertWords } from "./words.js";

/** Failures of connections that are worth a look, as a part of all that began, and how many a second at least. */
const FAILED_PART = 0.02;
const FAILED_RATE = 0.05;

const DAY = 86_400;

/**
 * Everything that is not as usual, the worst first: `{ level, text, panel | view }`.
 *
 * `status` is the answer of /v1/status, `certificates` that of /v1/certificates, if it is there.
 */
export function issuesOf(status, certificates = null) {
  const found = [
    ...processIssues(status),
    ...frontendIssues(status),
    ...backendIssues(status),
    ...serverIssues(status),
    ...packetIssues(status),
    ...certificateIssues(status, certificates),
  ];
  const order = { bad: 0, warn: 1, note: 2 };
  return found.sort((one, other) => order[one.level] - order[other.level]);
}

/** The line, its tone and what stands below it. */
export function verdictOf(status, issues) {
  const bad = issues.filter((issue) => issue.level === "bad");
  const warn = issues.filter((issue) => issue.level === "warn");
  const frontends = Object.keys(status.frontends).length;
  if (status.phase === "starting")
    return {
      tone: "wait",
      line: "Convey is starting.",
      below: "Frontends serve once listeners, rules and the first checks are done.",
    };
  if (status.phase === "stopping")
    return {
      tone: "warn",
      line: "Convey is stopping.",
      below: "It takes no new connections and lets the open ones end.",
    };
  if (frontends === 0)
    return { tone: "idle", line: "Nothing to do yet.", below: "There is no frontend, so nobody can connect." };
  const below = facts(status);
  if (bad.length === 1) return { tone: "bad", line: bad[0].text, below };
  if (bad.length > 1)
    return { tone: "bad", line: `${many(bad.length, "problem")}: clients are not served everywhere.`, below };
  if (warn.length === 1) return { tone: "warn", line: `Clients are served. ${warn[0].text}`, below };
  if (warn.length > 1)
    return { tone: "warn", line: `Clients are served; ${many(warn.length, "thing")} need attention.`, below };
  return { tone: "good", line: "Everything is well.", below };
}

function facts(status) {
  const backends = Object.values(status.backends);
  let servers = 0;
  let eligible = 0;
  for (const backend of backends) {
    servers += Object.keys(backend.servers).length;
    eligible += backend.eligible;
  }
  const frontends = Object.values(status.frontends);
  const serving = frontends.filter((frontend) => frontend.serves).length;
  const open = frontends.reduce((sum, frontend) => sum + frontend.traffic.connections_current, 0);
  const of = (part, whole, one) => (part === whole ? many(whole, one) : `${count(part)} of ${many(whole, one)}`);
  const verb = (number, one, more) => (number === 1 ? one : more);
  return (
    `${of(serving, frontends.length, "frontend")} ${verb(serving, "serves", "serve")} clients, ` +
    `${of(eligible, servers, "server")} ${verb(eligible, "takes", "take")} connections, ${count(open)} open now.`
  );
}

function processIssues(status) {
  const found = [];
  const add = (level, text, more) => found.push({ level, text, view: "config", ...more });
  if (status.last_reload_error)
    add("warn", "The last reload failed: the configuration from before is in effect.", {
      detail: status.last_reload_error,
    });
  if (status.needs_restart.length > 0) add("warn", `A restart is needed for ${list(status.needs_restart)}.`);
  const { open, most } = status.proxied_connections;
  if (most > 0 && open >= most * 0.9)
    add("warn", `${count(open)} of ${count(most)} possible connections are open: more will wait.`, {
      view: "overview",
    });
  for (const output of status.log_outputs ?? []) {
    if (output.error)
      add("warn", `The connection log cannot reach ${output.output}.`, { view: "events", detail: output.error });
  }
  return found;
}

function frontendIssues(status) {
  const found = [];
  for (const [name, frontend] of Object.entries(status.frontends)) {
    const panel = ["frontend", name];
    const waiting = Object.entries(frontend.waiting);
    const backend = status.backends[frontend.backend];
    if (waiting.length > 0) {
      const level = frontend.serves ? "warn" : "bad";
      found.push({
        level,
        text: `Frontend ${name} waits for ${list(waiting.map(([at]) => at))}.`,
        detail: waiting[0][1],
        panel,
      });
    } else if (!frontend.serves && status.phase === "running") {
      const checking = backend && Object.values(backend.servers).some((server) => server.state === "checking");
      if (checking)
        found.push({ level: "warn", text: `Frontend ${name} waits for the first checks of its servers.`, panel });
      else found.push({ level: "bad", text: `Frontend ${name} has no server: its clients are turned away.`, panel });
    }
    if (frontend.logs_tls_keys)
      found.push({
        level: "warn",
        text: `The TLS secrets of frontend ${name} are written to a file (key_log).`,
        panel,
      });
    const { connections, failures } = frontend.rates;
    if (failures["1m"] >= FAILED_RATE && failures["1m"] >= connections["1m"] * FAILED_PART) {
      const begun = Math.max(connections["1m"], failures["1m"]);
      found.push({
        level: "warn",
        text: `${percent(failures["1m"], begun)} of the connections of frontend ${name} failed in the last minute.`,
        panel,
      });
    }
  }
  return found;
}

function backendIssues(status) {
  const found = [];
  // what no frontend leads to, or is said of its frontend already
  const said = new Set(
    Object.values(status.frontends)
      .filter((frontend) => !frontend.serves)
      .map((frontend) => frontend.backend),
  );
  for (const [name, backend] of Object.entries(status.backends)) {
    const panel = ["backend", name];
    if (backend.state === "down" && !said.has(name)) {
      found.push({
        level: isRouted(status, name) ? "bad" : "warn",
        text: `Backend ${name} has no eligible server.`,
        panel,
      });
    }
    if (backend.queued > 0)
      found.push({
        level: "warn",
        text: `${many(backend.queued, "connection")} ${backend.queued === 1 ? "waits" : "wait"} for a server of ${name}.`,
        panel,
      });
    const problem = backend.discovery?.problem;
    if (problem) {
      const what = problem.held ? "would remove too many servers and is held" : "does not answer";
      found.push({
        level: "warn",
        text: `The source of servers of ${name} ${what}.`,
        detail: problem.text,
        panel,
        view: "discovery",
      });
    }
    const sticky = backend.sticky;
    if (sticky?.refused > 0 && sticky.entries >= sticky.max_entries) {
      found.push({ level: "warn", text: `Backend ${name} can remember no more sticky clients.`, panel });
    }
  }
  return found;
}

function isRouted(status, name) {
  return Object.values(status.frontends).some(
    (frontend) => frontend.route_backends.includes(name) || frontend.backend === name,
  );
}

function serverIssues(status) {
  const down = [];
  const held = [];
  for (const [backend, { servers }] of Object.entries(status.backends)) {
    for (const [server, view] of Object.entries(servers)) {
      const at = { backend, server, view };
      if (view.state === "down") down.push(at);
      else if (view.overridden && !String(view.overridden).startsWith("weight")) held.push(at);
    }
  }
  const found = grouped(
    down,
    "warn",
    (at) => `Server ${at.backend}/${at.server} is down.`,
    (sum, of) => `${many(sum, "server")} of ${many(of, "backend")} are down.`,
  );
  const noted = grouped(
    held,
    "note",
    (at) => `${at.backend}/${at.server}: ${words(at.view.state)}, set by an operator.`,
    (sum) => `${many(sum, "server")} are out of service, set by operators.`,
  );
  return [...found, ...noted];
}

/** Each of a few; of more how many there are. */
function grouped(servers, level, one, more) {
  if (servers.length > 3) {
    return [
      {
        level,
        text: more(servers.length, new Set(servers.map((at) => at.backend)).size),
        view: "overview",
        params: { show: "problems" },
      },
    ];
  }
  return servers.map((at) => ({
    level,
    text: one(at),
    detail: at.view.state_reason ?? null,
    panel: ["server", at.backend, at.server],
  }));
}

function packetIssues(status) {
  const { packet } = status;
  if (!packet) return [];
  const found = [];
  if (packet.rules.error)
    found.push({
      level: "bad",
      text: "The firewall rules of the packet modes are not known to be right.",
      detail: packet.rules.error,
      view: "packets",
    });
  for (const alert of packet.alerts)
    found.push({ level: "warn", text: `Packet modes: ${words(alert)}.`, detail: alertWords(alert), view: "packets" });
  return found;
}

function certificateIssues(status, certificates) {
  const found = [];
  const view = "certificates";
  for (const certificate of certificates?.certificates ?? []) {
    const { frontend, expires_seconds: left, names, subject } = certificate;
    const name = names[0] ?? subject;
    if (left <= 0)
      found.push({ level: "bad", text: `The certificate of ${name} (frontend ${frontend}) has expired.`, view });
    else if (left < 14 * DAY && !certificate.ordered)
      found.push({
        level: "warn",
        text: `The certificate of ${name} (frontend ${frontend}) expires in ${rough(left)}.`,
        view,
      });
  }
  for (const certificate of status.acme?.certificates ?? []) {
    if (certificate.problem)
      found.push({
        level: "warn",
        text: `The certificate ${certificate.name} could not be ordered.`,
        detail: certificate.problem.text,
        view,
      });
  }
  return found;
}

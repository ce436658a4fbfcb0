// The page's own arithmetic, in the browser that it is for.

import { Daemon, close, equal, open } from "./lab.mjs";

let daemon = null;

export async function before() {
  daemon = await new Daemon("pure", '[admin]\nsocket = "{dir}/admin.sock"\nlisten_addr = "127.0.0.1:9000"\n').start();
}

export async function after() {
  await daemon?.stop();
}

/** Runs a function in the page, with a module of it. */
async function inPage(module, body) {
  const page = await open(daemon);
  const found = await page.evaluate(`import("/page/${module}").then(${body})`);
  await close(page);
  return found;
}

export const tests = [
  {
    name: "numbers_are_said_in_units_that_people_use",
    async body() {
      const found = await inPage(
        "format.js",
        `({ bytes, byteRate, rate, count, percent, millis, duration, rough, list, many }) => [
          bytes(0), bytes(999), bytes(1234), bytes(12_345), bytes(999_950), bytes(5e9), byteRate(1250), byteRate(null),
          rate(0), rate(0.01), rate(0.4), rate(48.4), rate(1234), count(12_345), count(1_234_567),
          percent(0, 5), percent(1, 3), percent(1, 1), percent(0.9999, 1), percent(1, 0),
          millis(0.02), millis(3.04), millis(350), millis(1500), duration(42), duration(200), duration(86_400 * 12 + 3 * 3600),
          rough(3599), list(["a", "b", "c", "d", "e"]), many(1, "server"), many(2, "server")]`,
      );
      const wanted = [
        "0 B",
        "999 B",
        "1.2 kB",
        "12 kB",
        "1.0 MB",
        "5.0 GB",
        "1.3 kB/s",
        "–",
        "0/s",
        "<0.1/s",
        "0.4/s",
        "48/s",
        "1.2 k/s",
        "12\u202f345",
        "1.2 M",
        "0 %",
        "33 %",
        "100 %",
        "99.9 %",
        "0 %",
        "20 µs",
        "3.0 ms",
        "350 ms",
        "1.5 s",
        "42 s",
        "3 min 20 s",
        "12 d 3 h",
        "59 min",
        "a, b, c and 2 more",
        "1 server",
        "2 servers",
      ];
      equal(found.join(" | "), wanted.join(" | "), "texts");
    },
  },
  {
    name: "the_headline_follows_from_states",
    async body() {
      const found = await inPage(
        "verdict.js",
        `({ issuesOf, verdictOf }) => {
          const rates = { connections: { "1m": 10 }, failures: { "1m": 0 } };
          const server = { state: "up", eligible: true, overridden: null, state_reason: null };
          const status = (change) => {
            const base = {
              phase: "running", last_reload_error: null, needs_restart: [], proxied_connections: { open: 1, most: 1000 }, packet: null,
              frontends: { web: { serves: true, waiting: {}, backend: "web", route_backends: [], rates, traffic: { connections_current: 3 } } },
              backends: { web: { state: "up", eligible: 1, queued: 0, servers: { a: structuredClone(server) } } },
            };
            change(base);
            return verdictOf(base, issuesOf(base)).line;
          };
          return [
            status(() => {}),
            status((it) => (it.phase = "starting")),
            status((it) => Object.assign(it.backends.web.servers.a, { state: "down", state_reason: "refused" })),
            status((it) => { it.frontends.web.serves = false; it.backends.web.state = "down"; it.backends.web.servers.a.state = "down"; }),
            status((it) => (it.frontends.web.rates = { connections: { "1m": 10 }, failures: { "1m": 5 } })),
            status((it) => { it.last_reload_error = "line 3"; it.backends.web.queued = 2; }),
            status((it) => { it.backends.web.servers.b = { ...server, state: "draining", overridden: "draining" }; }),
            status((it) => { it.frontends = {}; }),
          ];
        }`,
      );
      const wanted = [
        "Everything is well.",
        "Convey is starting.",
        "Clients are served. Server web/a is down.",
        "Frontend web has no server: its clients are turned away.",
        "Clients are served. 50 % of the connections of frontend web failed in the last minute.",
        "Clients are served; 2 things need attention.",
        "Everything is well.",
        "Nothing to do yet.",
      ];
      equal(found.join("\n"), wanted.join("\n"), "lines");
    },
  },
  {
    name: "an_undo_leads_back_to_each_override_there_was",
    async body() {
      const found = await inPage(
        "actions.js",
        `({ wayBack, partsOf }) => {
          const words = { drain: "draining", maintenance: "maintenance" };
          const after = (state, { action, weight }) => {
            const next = action === "ready" ? { admin: null, weight: null } : { ...state };
            if (action === "weight") next.weight = weight;
            if (words[action]) next.admin = words[action];
            return next;
          };
          const wrong = [];
          for (const before of [null, "draining", "maintenance", "weight 3", "draining, weight 0"]) {
            for (const action of ["drain", "maintenance", "ready", "weight"]) {
              const done = after(partsOf(before), { action, weight: 9 });
              const back = wayBack(before, action).reduce(after, done);
              if (JSON.stringify(back) !== JSON.stringify(partsOf(before))) wrong.push([before, action, back]);
            }
          }
          return wrong;
        }`,
      );
      equal(JSON.stringify(found), "[]", "undone wrongly");
    },
  },
  {
    name: "toml_is_cut_into_the_pieces_that_it_has_and_none_is_lost",
    async body() {
      const found = await inPage(
        "toml.js",
        `({ pieces }) => {
          const lines = ['[backends."a b".servers] # x', 'addr = "10.0.0.1:80" # y', '"q k".z = [1, true,', "  'it', 2.5e3]", 'text = """one [', 'two""" # z', "broken = \\"no end", "[[routes]]"];
          let state;
          return lines.map((line) => {
            const found = pieces(line, state);
            state = found.state;
            if (found.pieces.map(([, text]) => text).join("") !== line) throw new Error(line);
            return found.pieces.filter(([kind]) => kind !== "space").map(([kind]) => kind).join(" ");
          });
        }`,
      );
      const wanted = [
        "table comment",
        "key mark string comment",
        "key mark key mark mark number mark word mark",
        "string mark number mark",
        "key mark string",
        "string comment",
        "key mark string",
        "table",
      ];
      equal(found.join("\n"), wanted.join("\n"), "kinds");
    },
  },
];

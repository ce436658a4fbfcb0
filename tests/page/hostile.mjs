// What servers, clients and files say stays text.

import { spawn } from "node:child_process";
import fs from "node:fs";
import { Daemon, assert, close, equal, headline, open, row, traffic, until } from "./lab.mjs";
import { CONFIG, EVIL } from "./site.mjs";

const BACKEND = '"><script>alert(2)</script>';
const FRONTEND = "</title><svg onload=alert(3)>";
const SNI = "a'-alert(4)-'.example.com";

let daemon = null;
let quiet = () => {};
let liar = null;

export async function before() {
  const added = `
[frontends.'${FRONTEND}']
listen_addr = "10.88.0.2:81"
backend = '${BACKEND}'

[backends.'${BACKEND}']
health_check = { kind = "smtp" }
servers.'${EVIL}' = { addr = "127.0.0.1:2525" }
`;
  // a server whose answer to a check is markup: it comes back as the reason
  liar = spawn(
    process.execPath,
    [
      "-e",
      'require("net").createServer((s)=>s.end("554 <img src=x onerror=alert(5)>\\r\\n")).listen(2525, "127.0.0.1")',
    ],
    { stdio: "ignore" },
  );
  daemon = await new Daemon("hostile", CONFIG + added).start();
  quiet = traffic([{ host: "10.88.0.2", port: 443, hold: 2, tls: [SNI, "api.example.com"] }]);
}

export async function after() {
  quiet();
  liar?.kill("SIGKILL");
  await daemon?.stop();
}

const PLACES = [
  "#/overview",
  "#/connections",
  "#/events",
  "#/certificates",
  "#/discovery",
  "#/overrides",
  "#/packets",
  `#/overview?panel=server/${encodeURIComponent(encodeURIComponent(BACKEND))}/${encodeURIComponent(encodeURIComponent(EVIL))}`,
  `#/overview?panel=server/api/${encodeURIComponent(encodeURIComponent(EVIL))}`,
];

/** Elements that nothing of the page makes. */
const alien = (page) =>
  page.evaluate(
    () => document.querySelectorAll("img, iframe, object, embed, body script, [onload], [onerror], svg svg").length,
  );

export const tests = [
  {
    name: "names_reasons_and_log_lines_that_are_markup_are_shown_as_they_are",
    async body() {
      const page = await open(daemon);
      await headline(page);
      await until("the name as text", async () => (await row(page, "server", EVIL).count()) >= 2);
      assert((await row(page, "frontend", FRONTEND).count()) === 1, "the frontend's name");
      for (const place of PLACES) {
        await page.goto(`${daemon.url}/${place}`);
        await until(
          `something at ${place}`,
          async () => (await page.textContent(place.includes("panel=") ? ".panel-content" : "main")).length > 40,
        );
        equal(await alien(page), 0, `elements of others at ${place}`);
      }
      await page.goto(`${daemon.url}/${PLACES[7]}`);
      await until("the reason as text", async () =>
        (await page.textContent(".panel")).includes("<img src=x onerror=alert(5)>"),
      );
      await close(page);
    },
  },
  {
    name: "a_clients_sni_is_text",
    async body() {
      const page = await open(daemon, "#/connections?frontend=shop");
      const seen = async () => (await page.locator(".connections tbody tr").allTextContents()).join("\n");
      await until("connections with names", async () => (await seen()).includes("api.example.com"));
      equal(await alien(page), 0, "elements of others");
      await close(page);
    },
  },
  {
    name: "an_action_on_a_hostile_name_hits_that_server_and_no_other",
    async body() {
      const page = await open(daemon, PLACES[8]);
      await page.locator(".panel-actions").getByRole("button", { name: "Weight…" }).click();
      await page.fill("dialog.dialog input[name=weight]", "4");
      await page.locator("dialog.dialog[open]").getByRole("button", { name: "Set weight" }).click();
      await until("the override", async () => {
        const { overrides } = await daemon.ask("/v1/overrides");
        return overrides.length === 1 && overrides[0].server === EVIL && overrides[0].backend === "api";
      });
      equal(await alien(page), 0, "elements of others");
      await close(page);
    },
  },
  {
    name: "a_configuration_that_is_markup_is_coloured_text",
    async body() {
      const page = await open(daemon, "#/config");
      await until(
        "the text",
        async () => (await page.inputValue("#editor").catch(() => "")) === fs.readFileSync(daemon.file, "utf8"),
      );
      assert((await page.textContent(".editor-lines")).includes(EVIL), "in colours, too");
      equal(await alien(page), 0, "elements of others");
      await close(page);
    },
  },
  {
    name: "the_policy_forbids_what_is_not_the_pages_own",
    async body() {
      const page = await open(daemon);
      await headline(page);
      const done = await page.evaluate(async () => {
        const probe = document.createElement("p");
        document.body.append(probe);
        const attempts = {
          markup: () => (probe.innerHTML = "<b>x</b>"),
          style: () => probe.setAttribute("style", "color: red"),
          elsewhere: () => fetch("http://10.88.0.11/"),
        };
        const failed = [];
        for (const [what, act] of Object.entries(attempts))
          await Promise.resolve()
            .then(act)
            .catch(() => failed.push(what));
        return [...failed, probe.childNodes.length, probe.style.color].join();
      });
      equal(done, "markup,elsewhere,0,", "what failed, and what came of it");
      // those were our own attempts
      await until("the policy speaks", () => page.faults.filter((fault) => fault.startsWith("policy:")).length >= 3);
      assert(
        page.faults.every(
          (fault) => fault.startsWith("policy:") || fault.startsWith("request elsewhere: http://10.88.0.11/"),
        ),
        page.faults.join(),
      );
      page.faults.length = 0;
      await close(page);
    },
  },
];

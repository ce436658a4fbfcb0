// Many backends: the page shows what is in sight, and changes what has changed.

import { Daemon, assert, close, equal, headline, open, row, until } from "./lab.mjs";

/** The main thread's work for the first screen with 50 × 20 servers, in seconds of CPU time. */
const BUDGET = 0.3;

/** So many backends with so many servers each, which nobody checks. */
function config(backends, servers) {
  const parts = [
    '[global]\nwatch_config = false\nworkers = 1\n[admin]\nsocket = "{dir}/admin.sock"\nlisten_addr = "127.0.0.1:9000"\nloopback_role = "operate"\n',
    "[defaults]\naccess_log = false\nhealth_check = { enabled = false }\n",
  ];
  for (let at = 0; at < backends; at += 1) {
    const name = `site-${String(at).padStart(3, "0")}`;
    parts.push(
      `[frontends.${name}]\nlisten_addr = "127.0.0.1:${20_000 + at}"\nbackend = "${name}"\n[backends.${name}]\n`,
    );
    for (let one = 0; one < servers; one += 1)
      parts.push(`servers.s${one} = { addr = "10.${Math.floor(at / 250) + 1}.${at % 250}.${one + 1}:80" }\n`);
  }
  return parts.join("");
}

let daemon = null;

async function begin(backends, servers) {
  await daemon?.stop();
  daemon = await new Daemon(`many-${backends}`, config(backends, servers)).start();
}

/** What the page's main thread has done so far, in seconds of its CPU. */
async function work(session) {
  const { metrics } = await session.send("Performance.getMetrics");
  return metrics.find(({ name }) => name === "TaskDuration").value;
}

export const after = async () => {
  await daemon?.stop();
};

export const tests = [
  {
    name: "fifty_backends_of_twenty_servers_are_there_within_the_budget",
    async body() {
      await begin(50, 20);
      const works = [];
      for (let turn = 0; turn < 5; turn += 1) {
        const page = await open(daemon, "#/none");
        const session = await page.context().newCDPSession(page);
        await page.goto("about:blank").catch(() => {});
        page.faults.length = 0;
        await session.send("Performance.enable", { timeDomain: "threadTicks" });
        const before = await work(session);
        await page.goto(`${daemon.url}/`);
        await row(page, "backend", "site-000").waitFor();
        await headline(page);
        works.push((await work(session)) - before);
        page.faults = page.faults.filter((fault) => !fault.includes("about:blank"));
        await close(page);
      }
      const median = works.sort((one, other) => one - other)[2];
      console.log(
        `main thread until the first screen, 50 x 20: ${works.map((seconds) => `${Math.round(seconds * 1000)} ms`).join(", ")}`,
      );
      assert(median < BUDGET, `${median} s of main-thread work`);
    },
  },
  {
    name: "five_hundred_backends_of_twenty_servers_can_be_used",
    async body() {
      await begin(500, 20);
      const page = await open(daemon);
      await row(page, "backend", "site-000").waitFor();
      assert((await headline(page)).startsWith("Everything is well."), await headline(page));
      const rows = () => page.locator(".tree-row").count();
      assert((await rows()) < 80, `${await rows()} lines are elements`);
      await page.getByRole("button", { name: "Open all" }).click();
      await until(
        "ten thousand servers",
        async () => Number(await page.getAttribute(".tree", "aria-rowcount")) === 11_001,
      );
      assert((await rows()) < 80, `${await rows()} lines are elements`);
      await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
      await row(page, "server", "s19").last().waitFor();
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.fill("#filter", "10.2.249.20:80");
      await until("one of ten thousand", async () => (await page.getAttribute(".tree", "aria-rowcount")) === "4");
      await row(page, "server", "s19").locator("a").click();
      await until("its panel", async () => (await page.textContent(".panel")).includes("10.2.249.20:80"));
      await close(page);
    },
  },
  {
    name: "where_nothing_happens_nothing_of_the_page_is_touched",
    async body() {
      await begin(50, 20);
      const page = await open(daemon);
      await row(page, "backend", "site-000").waitFor();
      await page.evaluate(() => {
        window.touched = 0;
        new MutationObserver((changes) => (window.touched += changes.length)).observe(document.querySelector(".tree"), {
          subtree: true,
          childList: true,
          attributes: true,
          characterData: true,
        });
      });
      let answers = 0;
      page.on("response", (response) => (answers += response.url().endsWith("/v1/status") ? 1 : 0));
      await until("three answers", () => answers >= 3);
      equal(await page.evaluate(() => window.touched), 0, "elements touched");
      await close(page);
    },
  },
  {
    name: "without_a_frontend_the_page_says_where_to_add_one",
    async body() {
      await daemon.stop();
      daemon = await new Daemon(
        "none",
        '[admin]\nsocket = "{dir}/admin.sock"\nlisten_addr = "127.0.0.1:9000"\n',
      ).start();
      const page = await open(daemon);
      equal(await headline(page), "Nothing to do yet.", "headline");
      await until("what to do", async () =>
        (await page.textContent("main")).includes("No frontends yet. Add one to".replace(". ", ".")),
      );
      for (const [view, words] of Object.entries({
        packets: "No frontend uses the packet modes.",
        certificates: "No certificates.",
        discovery: "No sources.",
        overrides: "No overrides.",
        config: "The configuration is not shown to you.",
      })) {
        await page.goto(`${daemon.url}/#/${view}`);
        await until(
          `an empty ${view}`,
          async () =>
            (await page
              .locator("main .empty-title:visible")
              .first()
              .textContent()
              .catch(() => "")) === words,
        );
      }
      await close(page);
    },
  },
];

// The daemon goes and comes back; the page is told nothing.

import { assert, close, equal, headline, open, row, until } from "./lab.mjs";
import { withSite } from "./site.mjs";

const { held, before, after } = withSite("recovery");
export { before, after };

export const tests = [
  {
    name: "the_page_says_that_nobody_answers_and_recovers_by_itself",
    async body() {
      const page = await open(held.daemon);
      await headline(page);
      await page.waitForSelector(".overview-events .event");
      const asked = [];
      page.on("request", (request) => asked.push(request.url()));
      await held.daemon.stop();
      await until(
        "the banner",
        async () =>
          (await page.isVisible("#banner")) && (await page.textContent("#banner")).includes("Convey does not answer"),
      );
      assert((await page.textContent("#spoken")).includes("does not answer"), "screen readers hear it");
      equal(await headline(page), "Convey does not answer.", "the line that people believe");
      assert(await row(page, "frontend", "web").isVisible(), "what was known is still seen");
      // with pauses that grow: it waits for more than a second after the third
      await until("another attempt", async () => /Next attempt in [2-9]/.test(await page.textContent("#banner")));
      assert(asked.length < 12, `${asked.length} requests while nobody answers`);
      await held.daemon.start();
      await until("no banner", async () => !(await page.isVisible("#banner")));
      await until("it is judged again", async () => (await headline(page)).startsWith("Clients are served."));
      // the stream goes on, too
      await held.daemon.post("/v1/backends/web/servers/a", { action: "weight", weight: 4 });
      await until("news", async () =>
        (await page.locator(".overview-events .event").first().textContent()).includes("server web/a: weight 4"),
      );
      await until("plots", async () => (await page.locator(".plot-line").nth(2).getAttribute("d")) !== "");
      await close(page);
    },
  },
  {
    name: "a_page_that_is_opened_while_nobody_answers_comes_up_by_itself",
    async body() {
      const page = await open(held.daemon);
      await headline(page);
      // the files are there, the API is not: a restart in between
      await page.route("**/v1/**", (route) => route.abort());
      await page.reload();
      await until("a word", async () => (await page.textContent("#gate")).includes("Convey does not answer."));
      await page.unroute("**/v1/**");
      await until("the page", async () => (await headline(page)).startsWith("Clients are served."));
      assert(!(await page.isVisible("#gate")), "the word is gone");
      await close(page);
    },
  },
  {
    name: "a_hidden_page_asks_nothing",
    async body() {
      const page = await open(held.daemon);
      await headline(page);
      await page.waitForSelector(".overview-events .event");
      await page.evaluate(() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
        document.dispatchEvent(new Event("visibilitychange"));
      });
      let asked = 0;
      page.on("request", () => (asked += 1));
      // what the daemon says to others meanwhile: its uptime goes on by more than two polls
      const { uptime_seconds: begun } = await held.daemon.ask("/v1/info");
      await until("time passes", async () => (await held.daemon.ask("/v1/info")).uptime_seconds > begun + 7);
      assert(asked === 0, `${asked} requests of a hidden page`);
      await page.evaluate(() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
        document.dispatchEvent(new Event("visibilitychange"));
      });
      await until("it goes on", () => asked > 1);
      await close(page);
    },
  },
];

// The first screen.

import { assert, close, equal, headline, open, row, until } from "./lab.mjs";
import { withSite } from "./site.mjs";

const { held, before, after } = withSite("overview");
export { before, after };

const plot = (page, at) => page.locator(".plots .plot").nth(at);
const points = async (page, at) =>
  ((await plot(page, at).locator(".plot-line").last().getAttribute("d")) ?? "").split("L").length;

export const tests = [
  {
    name: "the_first_line_is_how_it_is_and_the_lines_below_say_why",
    async body() {
      const page = await open(held.daemon);
      await until("the line", async () =>
        (await headline(page)).startsWith("Clients are served. Server api/green is down."),
      );
      const below = await page.textContent("#headline-issues");
      assert(below.includes("connection refused"), below);
      equal(await page.locator("#headline").getAttribute("data-tone"), "warn", "tone");
      await close(page);
    },
  },
  {
    name: "frontends_backends_and_servers_stand_with_state_weight_rate_and_share",
    async body() {
      const page = await open(held.daemon);
      const cell = (kind, name, at) => row(page, kind, name).first().locator(`.c${at}`).textContent();
      await until("server a of web has three parts of four", async () => {
        const share = parseFloat(await row(page, "server", "a").last().locator(".c3").textContent());
        return share > 65 && share < 85;
      });
      equal(await row(page, "server", "a").last().locator(".c2").textContent(), "3", "weight");
      assert((await cell("server", "green", 1)).startsWith("down"), "green is down, in a word");
      assert((await cell("frontend", "web", 1)).includes("serves"), "web serves");
      assert((await cell("backend", "api", 1)).includes("1 of 2 eligible"), "api");
      await until("rates", async () => parseFloat(await cell("frontend", "web", 4)) > 5);
      const before = await row(page, "server", "a").count();
      await row(page, "backend", "web").locator(".opener").click();
      await until("closed lines go", async () => (await row(page, "server", "a").count()) === before - 1);
      await page.fill("#filter", "10.88.0.12:53");
      equal(await page.locator(".empty-title").textContent(), "Nothing matches.", "filter");
      await page.fill("#filter", "resolver");
      await until(
        "the filter leaves what matches",
        async () => (await page.locator('.tree-row[data-kind="frontend"]').count()) === 1,
      );
      await close(page);
    },
  },
  {
    name: "traffic_moves_on_the_plots_and_a_reload_of_the_page_shows_what_has_been",
    async body() {
      const page = await open(held.daemon);
      await until("some history", async () => (await points(page, 1)) >= 3);
      const drawn = await plot(page, 1).locator(".plot-line").getAttribute("d");
      const known = await points(page, 1);
      await until(
        "the plot goes on",
        async () => (await plot(page, 1).locator(".plot-line").getAttribute("d")) !== drawn,
      );
      const said = await plot(page, 0).locator("svg").getAttribute("aria-label");
      assert(/^Throughput over 15 minutes: from clients now [\d.]+ k?B\/s/.test(said), said);
      assert(parseFloat(await plot(page, 1).locator(".plot-value").textContent()) > 5, "connections a second");
      await page.reload();
      await until(
        "what has been",
        async () => (await page.locator(".plots .plot").count()) === 4 && (await points(page, 1)) >= known,
      );
      await close(page);
    },
  },
  {
    name: "what_happens_is_seen_as_it_happens",
    async body() {
      const page = await open(held.daemon);
      await page.waitForSelector(".overview-events .event");
      const latest = () => page.locator(".overview-events .event").first().textContent();
      await held.daemon.post("/v1/backends/shop/servers/a", { action: "weight", weight: 7 });
      await until("the event", async () => (await latest()).includes("server shop/a: weight 7"));
      await until(
        "the weight",
        async () =>
          (await row(page, "server", "a")
            .filter({ has: page.locator("[data-changed]") })
            .locator(".c2")
            .textContent()) === "7",
      );
      await held.daemon.post("/v1/backends/shop/servers/a", { action: "ready" });
      await until("and back", async () => (await latest()).includes("ready"));
      await close(page);
    },
  },
  {
    name: "nothing_moves_when_a_value_changes",
    async body() {
      const page = await open(held.daemon);
      await until("some history", async () => (await points(page, 1)) >= 3);
      await page.evaluate(() => {
        window.shifts = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) window.shifts += entry.value;
        }).observe({ type: "layout-shift", buffered: false });
      });
      const value = await row(page, "frontend", "web").locator(".c4").textContent();
      await until(
        "another value",
        async () => (await row(page, "frontend", "web").locator(".c4").textContent()) !== value,
      );
      const shifts = await page.evaluate(() => window.shifts);
      assert(shifts < 0.01, `layout shifts of ${shifts}`);
      await close(page);
    },
  },
];

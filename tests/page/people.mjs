// For everybody: without a mouse, without eyes, on a phone, in the dark.

import { createRequire } from "node:module";
import fs from "node:fs";
import { assert, close, equal, headline, open, row, until } from "./lab.mjs";
import { withSite } from "./site.mjs";

const { held, before, after } = withSite("people");
export { before, after };

const axe = fs.readFileSync(
  createRequire(`${process.env.PAGE_TOOLS}/node_modules/`).resolve("axe-core/axe.min.js"),
  "utf8",
);

const PLACES = [
  "#/overview",
  "#/overview?panel=server/web/a",
  "#/overview?panel=backend/web",
  "#/overview?panel=frontend/shop",
  "#/connections",
  "#/events",
  "#/explain?protocol=tcp&client=10.88.0.1:4000&vip=10.88.0.2:80",
  "#/packets",
  "#/certificates",
  "#/discovery",
  "#/overrides",
  "#/config",
];

/** Everything that axe finds in what is shown: it is no part of the page, so these tests go without the policy. */
async function faults(page) {
  if (!(await page.evaluate(() => "axe" in window))) await page.addScriptTag({ content: axe });
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map(
    ({ id, impact, nodes }) =>
      `${impact} ${id}: ${nodes
        .slice(0, 3)
        .map(({ html, failureSummary }) => `${html} ${failureSummary}`)
        .join("; ")}`,
  );
}

async function settle(page, place) {
  await headline(page);
  await until(
    `something at ${place}`,
    async () => (await page.textContent(place.includes("panel=") ? ".panel-content" : "main")).length > 40,
  );
}

export const tests = [
  ...[
    ["light", 1280],
    ["dark", 390],
  ].map(([scheme, width]) => ({
    name: `axe_finds_no_fault_in_any_view_${scheme}_${width}`,
    async body() {
      const found = [];
      const page = await open(held.daemon, PLACES[0], { scheme, width, reducedMotion: "reduce", bypassCSP: true });
      for (const place of PLACES) {
        await page.goto(`${held.daemon.url}/${place}`);
        await settle(page, place);
        for (const fault of await faults(page)) found.push(`${place} ${fault}`);
        const over = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        if (over > 0) found.push(`${place} is ${over} px too wide`);
      }
      equal(found.join("\n"), "", "faults");
      await close(page);
    },
  })),
  {
    name: "without_a_mouse_one_gets_everywhere",
    async body() {
      const page = await open(held.daemon);
      await row(page, "server", "green").waitFor();
      await page.keyboard.press("Tab");
      equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content", "first");
      await page.keyboard.press("?");
      await until("help", async () => (await page.textContent("dialog.dialog[open]")).includes("Keyboard"));
      await page.keyboard.press("Escape");
      await page.keyboard.press("g");
      await page.keyboard.press("c");
      await until("connections", () => page.url().endsWith("#/connections"));
      await until("the focus follows", async () => (await page.evaluate(() => document.activeElement.id)) === "main");
      await page.keyboard.press("/");
      equal(await page.evaluate(() => document.activeElement.id), "filter", "the filter");
      await page.click('#nav a[href="#/overview"]');
      await row(page, "server", "green").waitFor();
      await row(page, "frontend", "database").locator("a").focus();
      await page.keyboard.press("ArrowDown");
      equal(
        await page.evaluate(() => document.activeElement.closest(".tree-row").dataset.kind),
        "backend",
        "a line further",
      );
      await page.keyboard.press("ArrowLeft");
      await until(
        "it is closed",
        async () =>
          (await page.evaluate(() =>
            document.activeElement.closest(".tree-row").querySelector(".opener").getAttribute("aria-expanded"),
          )) === "false",
      );
      await page.keyboard.press("Enter");
      await page.waitForSelector(".panel[open]");
      equal(await page.evaluate(() => document.activeElement.id), "panel-title", "the panel has the focus");
      await page.keyboard.press("Escape");
      await until(
        "the focus is back",
        async () => (await page.evaluate(() => document.activeElement.className)) === "tree-name",
      );
      await close(page);
    },
  },
  {
    name: "shortcuts_can_be_turned_off_and_colours_be_chosen",
    async body() {
      const page = await open(held.daemon);
      await headline(page);
      await page.keyboard.press("t");
      equal(await page.getAttribute("html", "data-theme"), "dark", "dark");
      await page.reload();
      await headline(page);
      equal(await page.getAttribute("html", "data-theme"), "dark", "still dark");
      await page.click("#theme");
      equal(await page.getAttribute("html", "data-theme"), "light", "light");
      await page.click("#help");
      await page.uncheck("dialog.dialog[open] input[type=checkbox]");
      await page.keyboard.press("Escape");
      await page.keyboard.press("t");
      equal(await page.getAttribute("html", "data-theme"), "light", "the key does nothing");
      await close(page);
    },
  },
  {
    name: "screen_readers_hear_changes_and_not_every_value",
    async body() {
      const page = await open(held.daemon);
      await headline(page);
      await page.evaluate(() => {
        window.heard = [];
        new MutationObserver(() => window.heard.push(document.getElementById("spoken").textContent)).observe(
          document.getElementById("spoken"),
          { childList: true, characterData: true, subtree: true },
        );
      });
      const value = await row(page, "frontend", "web").locator(".c4").textContent();
      await until(
        "another value",
        async () => (await row(page, "frontend", "web").locator(".c4").textContent()) !== value,
      );
      equal((await page.evaluate(() => window.heard)).join(), "", "silence while values change");
      await held.daemon.post("/v1/backends/database/servers/primary", { action: "drain", force: true });
      await until("what is heard", async () =>
        (await page.evaluate(() => window.heard.join(" "))).includes("Frontend database has no server"),
      );
      await held.daemon.post("/v1/backends/database/servers/primary", { action: "ready" });
      assert((await page.locator('[role="status"], [role="alert"]').count()) < 8, "few live regions");
      await close(page);
    },
  },
];

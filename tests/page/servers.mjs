// What is done with servers and connections.

import { assert, close, equal, fact, open, row, until } from "./lab.mjs";
import { withSite } from "./site.mjs";

const { held, before, after } = withSite("servers");
export { before, after };

const state = (page) => page.locator(".panel .panel-state .badge").textContent();
const press = (page, name) => page.locator(".panel-actions").getByRole("button", { name }).click();
const confirm = (page, name) => page.locator("dialog.dialog[open]").getByRole("button", { name, exact: true }).click();

export const tests = [
  {
    name: "a_server_is_drained_its_connections_go_to_zero_and_that_is_undone",
    async body() {
      const page = await open(held.daemon);
      await row(page, "server", "b").last().locator("a").click();
      await page.waitForSelector(".panel[open]");
      equal(await page.textContent("#panel-title"), "b", "title");
      await until("it has connections", async () => parseFloat(await fact(page, "New connections")) > 1);
      await press(page, "Drain…");
      const question = await page.textContent("dialog.dialog[open]");
      assert(
        question.includes("gets no new connections") && question.includes("1 other server stays eligible"),
        question,
      );
      await confirm(page, "Drain");
      await until("it drains", async () => (await state(page)) === "draining");
      await until(
        "its connections go to zero",
        async () => (await fact(page, "Open connections")) === "0" && (await fact(page, "New connections")) === "0/s",
      );
      equal((await held.daemon.ask("/v1/backends/web/servers/b")).state, "draining", "state in the API");
      await page.locator(".notice").getByRole("button", { name: "Undo" }).click();
      await until("it is up again", async () => (await state(page)) === "up");
      equal((await held.daemon.ask("/v1/overrides")).overrides.length, 0, "overrides");
      await page.keyboard.press("Escape");
      await until("Escape closes the panel", async () => !(await page.isVisible(".panel")));
      await until("and the address is without it", async () => !page.url().includes("panel="));
      await close(page);
    },
  },
  {
    name: "the_last_server_is_drained_only_by_somebody_who_says_so",
    async body() {
      const page = await open(held.daemon, "#/overview?panel=server/database/primary");
      await press(page, "Drain…");
      equal(await page.locator(".check-row input[name=force]").isVisible(), false, "not asked at first");
      await confirm(page, "Drain");
      await until("the API's reason", async () =>
        (await page.textContent("dialog.dialog[open] .form-error")).includes("is the last eligible server"),
      );
      await page.check("input[name=force]");
      await confirm(page, "Drain");
      await until("it drains", async () => (await state(page)) === "draining");
      await until("the headline says it", async () =>
        (await page.textContent("#headline-line")).includes("Frontend database has no server"),
      );
      await press(page, "Clear override…");
      await confirm(page, "Clear override");
      await until("it is up again", async () => (await state(page)) === "up");
      await close(page);
    },
  },
  {
    name: "a_weight_is_set_and_its_undo_sets_the_one_before",
    async body() {
      const page = await open(held.daemon, "#/overview?panel=server/web/a");
      const set = async (weight) => {
        await press(page, "Weight…");
        await page.fill("dialog.dialog input[name=weight]", String(weight));
        await confirm(page, "Set weight");
        await until("the weight", async () => (await fact(page, "Weight")) === `${weight} (configured: 3)`);
      };
      await set(9);
      await set(5);
      await page.locator(".notice").last().getByRole("button", { name: "Undo" }).click();
      await until("the weight before", async () => (await fact(page, "Weight")) === "9 (configured: 3)");
      await page.locator(".notice").first().getByRole("button", { name: "Undo" }).click();
      await until("the configured one", async () => (await fact(page, "Weight")) === "3");
      await close(page);
    },
  },
  {
    name: "a_whole_backend_is_set_and_each_server_gets_back_what_it_had",
    async body() {
      await held.daemon.post("/v1/backends/web/servers/a", { action: "weight", weight: 6 });
      const page = await open(held.daemon, "#/overview?panel=backend/web");
      await until("its servers", async () => (await page.locator(".panel tbody tr").count()) >= 2);
      await press(page, "Maintenance…");
      await confirm(page, "Start maintenance");
      await until("the API's reason", async () =>
        (await page.textContent("dialog.dialog[open] .form-error")).includes("has no eligible server then"),
      );
      await page.check("input[name=force]");
      await confirm(page, "Start maintenance");
      const overrides = async () =>
        (await held.daemon.ask("/v1/overrides")).overrides
          .map(({ server, overridden }) => `${server}: ${overridden}`)
          .join("; ");
      await until("both are", async () => (await overrides()) === "a: maintenance, weight 6; b: maintenance");
      await page.locator(".notice").getByRole("button", { name: "Undo" }).click();
      await until("both are as before", async () => (await overrides()) === "a: weight 6");
      await page.goto(`${held.daemon.url}/#/overrides`);
      await page.getByRole("button", { name: "Clear the override of web/a" }).click();
      await confirm(page, "Clear override");
      await until("none is left", async () => (await page.textContent("main")).includes("No overrides."));
      await close(page);
    },
  },
  {
    name: "one_connection_is_closed_and_the_others_stay",
    async body() {
      const page = await open(held.daemon, "#/overview?panel=server/database/primary");
      const clients = () => page.locator(".panel .connections tbody code").allTextContents();
      await until("six connections", async () => (await clients()).length === 6);
      const [first, ...others] = await clients();
      await page.locator(".panel .connections tbody .icon-only").first().click();
      await confirm(page, "Close");
      await until("it is gone", async () => !(await clients()).includes(first));
      const left = await clients();
      assert(
        others.every((client) => left.includes(client)),
        "the others stay",
      );
      await close(page);
    },
  },
  {
    name: "a_server_is_added_and_removed_at_run_time_and_a_wrong_address_is_said_where_it_is_typed",
    async body() {
      const page = await open(held.daemon, "#/overview?panel=backend/database");
      const servers = () => page.locator(".panel tbody th a").allTextContents();
      await until("its server", async () => (await servers()).join() === "primary");
      await press(page, "Add server…");
      await page.fill("dialog.dialog input[name=addr]", "nowhere");
      await page.fill("dialog.dialog input[name=name]", "spare");
      await confirm(page, "Add server");
      await until("what is wrong", async () =>
        (await page.textContent("dialog.dialog .form-error")).includes("nowhere"),
      );
      await page.fill("dialog.dialog input[name=addr]", "10.88.0.11:80");
      await confirm(page, "Add server");
      await until("two servers", async () => (await servers()).join() === "primary,spare");
      await page.locator(".panel tbody th a", { hasText: "spare" }).click();
      await until("its panel", async () => (await page.textContent("#panel-title")) === "spare");
      await press(page, "Remove…");
      await confirm(page, "Remove");
      await until("it is gone", async () => !("spare" in (await held.daemon.ask("/v1/backends/database")).servers));
      await until("and the panel says so", async () =>
        (await page.textContent(".panel")).includes("There is no server database/spare."),
      );
      await close(page);
    },
  },
  {
    name: "a_panel_says_reason_checks_and_times",
    async body() {
      const page = await open(held.daemon, "#/overview?panel=server/api/green");
      await until("why it is down", async () => (await page.textContent(".panel .reason")).includes("refused"));
      await until("its checks", async () =>
        (await page.locator(".panel table").first().textContent()).includes("failed"),
      );
      await page.goto(`${held.daemon.url}/#/overview?panel=backend/shop`);
      await until("times", async () => (await page.textContent(".panel")).includes("99 of 100"));
      await page.locator(".panel .settings summary").click();
      await until("settings in effect", async () =>
        (await page.textContent(".panel .settings")).includes("connect_timeout"),
      );
      await page.goto(`${held.daemon.url}/#/overview?panel=server/web/nobody`);
      await until("a server that is not there", async () =>
        (await page.textContent(".panel")).includes("There is no server web/nobody."),
      );
      await close(page);
    },
  },
  {
    name: "connections_are_found_by_what_they_belong_to",
    async body() {
      const page = await open(held.daemon, "#/connections?frontend=database");
      const lines = page.locator(".connections tbody tr");
      await until("those of the database", async () => (await lines.count()) === 6);
      await page.goto(`${held.daemon.url}/#/connections`);
      await page.fill('input[name="backend"]', "packets");
      await until("flows alone", async () => {
        const shown = await lines.allTextContents();
        return shown.length > 0 && shown.every((line) => line.includes("passthrough"));
      });
      equal(await lines.first().locator("button").isDisabled(), false, "flows of passthrough can be closed");
      await page.fill('input[name="client"]', "nonsense");
      await until("what is wrong", async () => (await page.textContent("main .form-error")).includes("nonsense"));
      await close(page);
    },
  },
  {
    name: "explain_draws_the_way_of_a_client",
    async body() {
      const page = await open(held.daemon, "#/explain");
      await page.fill('input[name="client"]', "10.88.0.1:40000");
      await page.fill('input[name="vip"]', "10.88.0.2:443");
      await page.fill('input[name="sni"]', "api.example.com");
      await page.keyboard.press("Enter");
      await page.waitForSelector(".way");
      const stops = await page.locator(".way-stop .way-name").allTextContents();
      equal(stops.slice(0, 4).join(" > "), "10.88.0.1:40000 > shop > No. 1 > api", "stops");
      await page.fill('input[name="vip"]', "10.88.0.100:80");
      await page.keyboard.press("Enter");
      await until("a server of mode passthrough", async () =>
        ["a", "b"].includes(await page.locator(".way-stop .way-name").last().textContent()),
      );
      await page.fill('input[name="vip"]', "10.88.0.77:80");
      await page.keyboard.press("Enter");
      await until("nobody", async () => (await page.textContent(".way")).includes("not served"));
      await close(page);
    },
  },
  {
    name: "the_packet_modes_show_engine_verdicts_ports_hops_and_scripts",
    async body() {
      const page = await open(held.daemon, "#/packets");
      await until("verdicts move", async () => /to_server.*[1-9][\d.]*\/s/.test(await page.textContent(".verdicts")));
      const text = await page.textContent("main");
      for (const part of ["packets/a", "resolved", "eth0", "In place"]) assert(text.includes(part), part);
      await until("the script of server a", async () =>
        (await page.textContent(".script pre")).includes("makes server a (10.88.0.11:80) answer"),
      );
      await page.locator(".script select").nth(1).selectOption("b");
      await until("the script of server b", async () =>
        (await page.textContent(".script pre")).includes("makes server b"),
      );
      await close(page);
    },
  },
];

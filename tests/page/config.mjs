// The configuration: a mistake at its line, a change compared, applied, undone, rolled back.

import fs from "node:fs";
import { assert, close, equal, open, row, until } from "./lab.mjs";
import { CONFIG, withSite } from "./site.mjs";

const { held, before, after } = withSite("config");
export { before, after };

const SERVER = 'servers.b = { addr = "10.88.0.12:80" }\n\n[backends.shop]';
const LINE = CONFIG.split("\n").indexOf("[backends.web]") + 3;

async function edit(page, from, to) {
  const text = await page.inputValue("#editor");
  assert(text.includes(from), `no ${from} in the text`);
  await page.fill("#editor", text.replace(from, to));
}

const confirm = (page, name) => page.locator("dialog.dialog[open]").getByRole("button", { name, exact: true }).click();
const weight = async () => (await held.daemon.ask("/v1/backends/web/servers/b")).weight;
const text = () => fs.readFileSync(held.daemon.file, "utf8");

export const tests = [
  {
    name: "a_mistake_is_read_at_its_line_and_the_right_text_is_compared_applied_and_undone",
    async body() {
      const page = await open(held.daemon, "#/config");
      await until("the text", async () => (await page.inputValue("#editor").catch(() => "")) === text());
      await until("it is checked", async () => (await page.textContent(".check-state")).includes("This is in effect."));
      await edit(page, SERVER, SERVER.replace("addr =", "adr ="));
      const finding = page.locator('.finding[data-severity="error"]');
      await until("the mistake", async () =>
        (
          await finding
            .first()
            .textContent()
            .catch(() => "")
        ).includes("adr"),
      );
      equal(await finding.first().locator("button").textContent(), `Line ${LINE}`, "line");
      equal(
        await page.locator('.editor-number[data-severity="error"]').textContent(),
        String(LINE),
        "its number is marked",
      );
      equal(await page.getByRole("button", { name: "Review and apply…" }).isDisabled(), true, "no way to apply it");
      await finding.first().locator("button").click();
      const at = await page.evaluate(
        () => document.activeElement.value.slice(0, document.activeElement.selectionStart).split("\n").length,
      );
      equal(at, LINE, "the cursor is there");

      await edit(page, "adr =", "weight = 2, addr =");
      await until("it is valid", async () => (await page.textContent(".check-state")).includes("Valid"));
      const file = text();
      await page.getByRole("button", { name: "Review and apply…" }).click();
      await page.waitForSelector("dialog.dialog[open] .diff");
      const added = await page.locator('.diff-line[data-kind="added"]').allTextContents();
      equal(added.length, 1, "lines added");
      assert(added[0].includes("weight = 2"), added[0]);
      equal(text(), file, "nothing has changed yet");
      await confirm(page, "Apply");
      await until("the file is written", () => text().includes("weight = 2, addr"));
      await until("the weight is in effect", async () => (await weight()) === 2);
      await until("the history has it", async () => (await page.locator(".revision").count()) === 2);
      await page.locator(".notice").getByRole("button", { name: "Undo" }).click();
      await until("the file is as it was", () => text() === file);
      await until("and the one before", async () => (await weight()) === 1);
      await close(page);
    },
  },
  {
    name: "an_earlier_text_is_shown_compared_and_put_in_effect_again",
    async body() {
      const page = await open(held.daemon, "#/config");
      await page.waitForSelector(".revision");
      const file = text();
      await edit(page, "[backends.shop]\nbalance", "# a comment\n[backends.shop]\nbalance");
      await until("it is valid", async () => (await page.textContent(".check-state")).includes("Valid"));
      await page.getByRole("button", { name: "Review and apply…" }).click();
      await until("only the text differs", async () =>
        (await page.textContent("dialog.dialog[open]")).includes("only comments or layout differ"),
      );
      await confirm(page, "Apply");
      await until("the file is written", () => text().includes("# a comment"));
      await until(
        "a new revision",
        async () => !(await page.locator(".revision").first().textContent()).includes("Roll back"),
      );
      const earlier = page.locator(".revision").nth(1);
      await earlier.getByRole("button", { name: "Show" }).click();
      assert(!(await page.textContent("dialog.dialog[open] .listing")).includes("# a comment"), "the earlier text");
      await page.keyboard.press("Escape");
      await earlier.getByRole("button", { name: "Roll back…" }).click();
      await page.waitForSelector("dialog.dialog[open] .diff");
      await confirm(page, "Roll back");
      await until("the file is as it was", () => text() === file);
      await until("the editor, too", async () => (await page.inputValue("#editor")) === file);
      await close(page);
    },
  },
  {
    name: "who_was_slower_is_told_and_overwrites_nothing",
    async body() {
      const page = await open(held.daemon, "#/config");
      await page.waitForSelector(".revision");
      await edit(page, "# The page's test", "# mine");
      await until("it is valid", async () => (await page.textContent(".check-state")).includes("Valid"));
      await page.getByRole("button", { name: "Review and apply…" }).click();
      await page.waitForSelector("dialog.dialog[open] .diff");
      fs.writeFileSync(held.daemon.file, text().replace("# The page's test", "# theirs"));
      await held.daemon.post("/v1/reload", {});
      await confirm(page, "Apply");
      await until("a word", async () => (await page.textContent("dialog.dialog[open] .form-error")).length > 0);
      assert(text().includes("# theirs"), "theirs stays");
      await page.getByRole("button", { name: "Compare with what is in effect now" }).click();
      await until("compared with theirs", async () =>
        (
          await page
            .locator('.diff-line[data-kind="removed"]')
            .textContent()
            .catch(() => "")
        ).includes("# theirs"),
      );
      await confirm(page, "Apply");
      await until("now mine", () => text().includes("# mine"));
      await close(page);
    },
  },
  {
    name: "what_was_typed_is_there_after_a_look_elsewhere",
    async body() {
      const page = await open(held.daemon, "#/config");
      await page.waitForSelector(".revision");
      await page.locator("#editor").press("Control+End");
      await page.keyboard.type("# unfinished");
      await page.click('#nav a[href="#/overview"]');
      await row(page, "frontend", "web").waitFor();
      await page.click('#nav a[href="#/config"]');
      await until("it is there", async () =>
        (await page.inputValue("#editor").catch(() => "")).endsWith("# unfinished"),
      );
      await page.getByRole("button", { name: "Discard changes" }).click();
      await confirm(page, "Discard");
      await until("and gone", async () => (await page.inputValue("#editor")) === text());
      await close(page);
    },
  },
];

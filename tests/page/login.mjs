// Logging in, over TLS, with roles.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { Daemon, assert, close, equal, fact, headline, open, until } from "./lab.mjs";

const CONFIG = `[global]
watch_config = false
[admin]
socket = "{dir}/admin.sock"
listen_addr = "10.88.0.2:9443"
tls = { cert = "{dir}/../shop.pem", key = "{dir}/../shop.key" }
tokens_file = "{dir}/tokens"
allow_config_writes = true
[frontends.web]
listen_addr = "10.88.0.2:80"
backend = "web"
[backends.web]
servers.a = { addr = "10.88.0.11:80" }
servers.b = { addr = "10.88.0.12:80" }
`;

const tokens = {};
let daemon = null;

export async function before() {
  daemon = new Daemon("login", CONFIG, { url: "https://10.88.0.2:9443" });
  const lines = [];
  for (const role of ["read", "operate", "configure"]) {
    const { token, line } = made(role);
    tokens[role] = token;
    lines.push(line);
  }
  fs.writeFileSync(path.join(daemon.dir, "tokens"), `${lines.join("\n")}\n`);
  await daemon.start();
}

/** What `convey token` prints: the token, and the line for the file. */
function made(role) {
  const { stdout, stderr } = spawnSync(process.env.CONVEY, ["token", role, "--role", role], { encoding: "utf8" });
  const token = /cvy_\S+/.exec(stderr)?.[0];
  assert(token && stdout.startsWith(`${role} ${role} sha256:`), `${stdout}${stderr}`);
  return { token, line: stdout.trim() };
}

export async function after() {
  await daemon?.stop();
}

async function logIn(page, token) {
  await page.fill('input[name="token"]', token);
  await page.getByRole("button", { name: "Log in" }).click();
}

export const tests = [
  {
    name: "without_a_token_there_is_the_login_and_nothing_else",
    async body() {
      const page = await open(daemon);
      await page.waitForSelector(".login");
      equal(await page.isVisible("#frame"), false, "the page behind it");
      await logIn(page, "wrong");
      await until("what is wrong", async () => (await page.textContent(".login .form-error")).length > 10);
      await logIn(page, tokens.configure);
      assert((await headline(page)).length > 0, "in");
      await until("the servers", async () => (await page.textContent("main")).includes("10.88.0.11:80"));
      const [cookie] = await page.context().cookies();
      equal([cookie.httpOnly, cookie.secure, cookie.sameSite].join(), "true,true,Strict", "the cookie");
      assert(!cookie.value.includes(tokens.configure), "the cookie is not the token");
      equal(
        await page.evaluate(() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)),
        "{}{}",
        "nothing for scripts",
      );
      await page.reload();
      await headline(page);
      await page.click("#log-out");
      await page.waitForSelector(".login");
      equal((await page.context().cookies()).length, 0, "cookies");
      await page.reload();
      await page.waitForSelector(".login");
      await close(page);
    },
  },
  {
    name: "whoever_may_only_read_sees_what_he_may_not_do_and_why",
    async body() {
      const page = await open(daemon, "#/overview?panel=server/web/a");
      await page.waitForSelector(".login");
      await logIn(page, tokens.read);
      await until("the panel", async () => (await fact(page, "Address")) === "10.88.0.11:80");
      equal(await page.locator(".panel-actions button:enabled").count(), 0, "actions");
      assert((await page.textContent(".panel-actions")).includes("This needs the role operate; yours is read"), "why");
      await page.keyboard.press("Escape");
      await page.goto(`${daemon.url}/#/config`);
      await until("no configuration", async () =>
        (await page.textContent("main")).includes("The configuration is not shown to you."),
      );
      await close(page);
    },
  },
  {
    name: "whoever_operates_acts_and_sees_the_configuration_and_does_not_write_it",
    async body() {
      const page = await open(daemon, "#/overview?panel=server/web/a");
      await page.waitForSelector(".login");
      await logIn(page, tokens.operate);
      await page.locator(".panel-actions").getByRole("button", { name: "Drain…" }).click();
      await page.locator("dialog.dialog[open]").getByRole("button", { name: "Drain", exact: true }).click();
      await until("it drains", async () => (await daemon.ask("/v1/backends/web/servers/a")).state === "draining");
      await page.locator(".notice").getByRole("button", { name: "Undo" }).click();
      await until("it does not", async () => (await daemon.ask("/v1/overrides")).overrides.length === 0);
      await page.keyboard.press("Escape");
      await page.goto(`${daemon.url}/#/config`);
      await until("the text, to read", async () =>
        (await page.inputValue("#editor").catch(() => "")).includes("[backends.web]"),
      );
      assert((await page.textContent("main")).includes("This needs the role configure; yours is operate"), "why");
      await close(page);
    },
  },
  {
    name: "a_session_that_ends_elsewhere_leads_to_the_login",
    async body() {
      const page = await open(daemon);
      await page.waitForSelector(".login");
      await logIn(page, tokens.operate);
      await headline(page);
      await page.context().clearCookies();
      await until("the login", () => page.isVisible(".login"));
      equal(await page.isVisible("#frame"), false, "the page behind it");
      await close(page);
    },
  },
];

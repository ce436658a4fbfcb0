// What the tests of the page stand on: daemons, traffic, browsers. This runs on the load balancer's host, a network namespace
// with a client and servers beside it, as packaging/page-test makes them.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const { CONVEY, PAGE_CLIENT, PAGE_DIR, PAGE_FILES, PAGE_TOOLS } = process.env;
const require = createRequire(`${PAGE_TOOLS}/node_modules/`);
const { chromium } = require("playwright-core");

/** Nothing takes longer on a slow machine with its hands full, in milliseconds. */
export const PATIENCE = 45_000;

const here = path.dirname(new URL(import.meta.url).pathname);
const running = new Set();
let browser = null;

/** Waits until `look()` gives something, and gives it. */
export async function until(what, look, patience = PATIENCE) {
  const end = Date.now() + patience;
  let seen;
  while (Date.now() < end) {
    seen = await look();
    if (seen) return seen;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`waited in vain: ${what}`);
}

export function assert(isTrue, what) {
  if (!isTrue) throw new Error(what);
}

export function equal(found, wanted, what = "") {
  if (found !== wanted) throw new Error(`${what}: found ${JSON.stringify(found)}, wanted ${JSON.stringify(wanted)}`);
}

/** A daemon with this configuration, `{dir}` in it being its own directory; `url` is where its page is. */
export class Daemon {
  constructor(name, config, { url = "http://127.0.0.1:9000", token = null } = {}) {
    this.dir = path.join(PAGE_DIR, name);
    this.url = url;
    this.token = token;
    fs.mkdirSync(path.join(this.dir, "state"), { recursive: true });
    for (const dir of [this.dir, path.join(this.dir, "state")]) fs.chmodSync(dir, 0o777);
    this.file = path.join(this.dir, "convey.toml");
    fs.writeFileSync(this.file, config.replaceAll("{dir}", this.dir));
  }

  async start() {
    const log = fs.openSync(path.join(this.dir, "log"), "a");
    const env = { ...process.env, STATE_DIRECTORY: path.join(this.dir, "state") };
    this.process = spawn(CONVEY, ["--config", this.file], { stdio: ["ignore", log, log], env });
    running.add(this.process);
    this.process.once("exit", () => running.delete(this.process));
    const isUp = async () => {
      if (this.process.exitCode !== null)
        throw new Error(`convey ended:\n${fs.readFileSync(path.join(this.dir, "log"), "utf8").slice(-2000)}`);
      return (await this.status()) === 200;
    };
    await until("convey is ready", isUp);
    return this;
  }

  /** The status of /readyz, 0 if nobody answers. It is asked at the socket, so that TLS and tokens do not matter. */
  status() {
    return curl([
      "--unix-socket",
      path.join(this.dir, "admin.sock"),
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "http://localhost/readyz",
    ]).then(Number);
  }

  /** An answer of the API, as root has it. */
  async ask(where) {
    return JSON.parse(await curl(["--unix-socket", path.join(this.dir, "admin.sock"), `http://localhost${where}`]));
  }

  async post(where, json) {
    return curl([
      "--unix-socket",
      path.join(this.dir, "admin.sock"),
      "-H",
      "Content-Type: application/json",
      "-d",
      JSON.stringify(json),
      `http://localhost${where}`,
    ]);
  }

  /** Ends it, and waits until it has. */
  stop(signal = "SIGKILL") {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    if (this.process.exitCode !== null || this.process.signalCode !== null) return null;
    this.process.kill(signal);
    return ended;
  }
}

function curl(args) {
  return new Promise((resolve) => {
    const child = spawn("curl", ["-s", "--max-time", "10", ...args], { stdio: ["ignore", "pipe", "ignore"] });
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    child.on("close", () => resolve(text));
  });
}

/** Clients at their pace, from the client's host; see traffic.mjs. Returns how to end it. */
export function traffic(flows) {
  const child = spawn(
    "ip",
    ["netns", "exec", PAGE_CLIENT, process.execPath, path.join(here, "traffic.mjs"), JSON.stringify(flows)],
    { stdio: "ignore" },
  );
  running.add(child);
  return () => {
    running.delete(child);
    child.kill("SIGKILL");
  };
}

/** A page in a browser of its own kind, which notes what it must not do. */
export async function open(daemon, hash = "", { width = 1280, height = 1600, scheme = "light", ...options } = {}) {
  browser ??= await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    ignoreHTTPSErrors: true,
    ...options,
  });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.faults = [];
  await page.exposeFunction("noteFault", (fault) => page.faults.push(fault));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) =>
      window.noteFault(`policy: ${event.violatedDirective} ${event.blockedURI}`),
    );
    window.alert = (text) => window.noteFault(`alert: ${text}`);
  });
  page.on("pageerror", (error) => page.faults.push(`error: ${error.stack}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${daemon.url}/`)) page.faults.push(`request elsewhere: ${request.url()}`);
  });
  if (PAGE_FILES) await fromDisk(context, daemon);
  await page.goto(`${daemon.url}/${hash}`);
  return page;
}

/** For whoever works on the page: its files as they are in PAGE_FILES, under the daemon's own policy. */
async function fromDisk(context, daemon) {
  const media = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
  const first = await context.request.get(`${daemon.url}/`);
  const isFile = ({ pathname, origin }) => origin === daemon.url && (pathname === "/" || pathname.startsWith("/page/"));
  await context.route(isFile, (route) => {
    const name = new URL(route.request().url()).pathname.slice("/page/".length) || "index.html";
    const headers = { ...first.headers(), "content-type": media[name.split(".").at(-1)] };
    route.fulfill({ status: 200, headers, body: fs.readFileSync(path.join(PAGE_FILES, name)) });
  });
}

/** Closes a page that has done nothing that it must not. */
export async function close(page) {
  const { faults } = page;
  await page.context().close();
  equal(faults.join("\n"), "", "faults of the page");
}

/** The text of the headline, once there is one. */
export async function headline(page) {
  await page.waitForSelector("#headline:not([hidden])");
  return page.textContent("#headline-line");
}

/** A line of the table of servers: by kind and name. */
export function row(page, kind, name) {
  return page
    .locator(`.tree-row[data-kind="${kind}"]`)
    .filter({ has: page.locator(".tree-name", { hasText: new RegExp(`^${escaped(name)}$`) }) });
}

export function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The value of a fact in the open panel. */
export async function fact(page, term) {
  const found = page
    .locator(".panel .facts > div")
    .filter({ has: page.locator("dt", { hasText: new RegExp(`^${escaped(term)}$`) }) });
  return (await found.count()) > 0 ? found.first().locator("dd").textContent() : null;
}

/** Closes what a test that failed has left open. */
export async function tidy() {
  for (const context of browser?.contexts() ?? []) await context.close();
}

export async function end() {
  await browser?.close();
  for (const child of running) child.kill("SIGKILL");
}

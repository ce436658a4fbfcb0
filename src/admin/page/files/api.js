// Requests to the API, and whether it answers at all. Everything that the page knows and does goes through `ask`.

/** How long an answer may take, in milliseconds: a reload may wait for the firewall and for the first checks. */
const PATIENCE = 15_000;
const PATIENCE_OF_CHANGES = 60_000;

/** Waits between attempts while nobody answers, in milliseconds. */
const WAITS = [1000, 1000, 2000, 3000, 5000, 8000, 10_000];

/** What is wrong with a request, in the API's words. `status` is 0 if nobody answered. */
export class Problem extends Error {
  constructor(status, message, pointer) {
    super(message);
    this.status = status;
    this.pointer = pointer ?? null;
  }

  get isLost() {
    return this.status === 0;
  }
}

/** Whether the daemon answers. Listeners are told of changes; `since` and `next` are times of performance.now(). */
export const connection = {
  isUp: true,
  since: 0,
  next: 0,
  attempts: 0,
  listeners: new Set(),
};

let timer = 0;
let login = () => {};

/** Who is called when the API wants a token. */
export function onLogin(call) {
  login = call;
}

function tell() {
  for (const listener of connection.listeners) listener(connection);
}

function lost() {
  if (connection.isUp) {
    Object.assign(connection, { isUp: false, since: performance.now(), attempts: 0 });
    schedule();
  }
}

function found() {
  if (connection.isUp) return;
  clearTimeout(timer);
  Object.assign(connection, { isUp: true, since: performance.now(), attempts: 0 });
  tell();
}

function schedule() {
  const wait = WAITS[Math.min(connection.attempts, WAITS.length - 1)];
  connection.attempts += 1;
  connection.next = performance.now() + wait;
  clearTimeout(timer);
  timer = setTimeout(retry, wait);
  tell();
}

/** Asks whether somebody answers again, now. */
export async function retry() {
  if (connection.isUp) return;
  clearTimeout(timer);
  try {
    await ask("GET", "/v1/session");
  } catch (problem) {
    if (problem.isLost) schedule();
  }
}

/**
 * One request. `query` is an object whose absent values are left out, `json` or `toml` is the body, `as` what the answer is
 * ("json", "text"; "response" for both text and ETag).
 *
 * Throws a `Problem`, or the AbortError of `signal`.
 */
export async function ask(method, path, { query, json, toml, headers = {}, signal, as = "json" } = {}) {
  const isSafe = method === "GET";
  const init = {
    method,
    cache: "no-store",
    credentials: "same-origin",
    redirect: "error",
    // a page of another site cannot send this, so whoever has it is this page
    headers: { "Convey-Page": "1", ...(isSafe ? {} : { "Content-Type": "application/json" }), ...headers },
    signal: within(signal, isSafe ? PATIENCE : PATIENCE_OF_CHANGES),
  };
  if (json !== undefined) {
    init.body = JSON.stringify(json);
  } else if (toml !== undefined) {
    init.headers["Content-Type"] = "application/toml";
    init.body = toml;
  }
  let response, body;
  try {
    response = await fetch(path + search(query), init);
    body = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    lost();
    throw new Problem(0, "Convey does not answer.");
  }
  found();
  if (!response.ok) {
    const problem = problemOf(response.status, body);
    if (response.status === 401 && path !== "/v1/session") login();
    throw problem;
  }
  if (as === "json") return body === "" ? null : JSON.parse(body);
  return as === "response" ? { text: body, etag: response.headers.get("ETag") } : body;
}

function problemOf(status, body) {
  try {
    const { detail, pointer } = JSON.parse(body);
    if (typeof detail === "string") return new Problem(status, detail, pointer);
  } catch {
    // not the API's form: what stands between it and us has answered
  }
  return new Problem(status, `The answer was an error (HTTP ${status}).`);
}

function within(signal, ms) {
  const limit = AbortSignal.timeout(ms);
  return signal ? AbortSignal.any([signal, limit]) : limit;
}

function search(query) {
  const given = Object.entries(query ?? {}).filter(
    ([, value]) => value !== undefined && value !== null && value !== "",
  );
  const text = new URLSearchParams(given).toString();
  return text ? `?${text}` : "";
}

/** A path with names in it, whatever they contain. */
export function path(...parts) {
  return `/${["v1", ...parts].map(encodeURIComponent).join("/")}`;
}

// What is asked again and again: only what somebody looks at, only while the page is seen, and never so often that the
// answers keep the page or the daemon busy.

import { ask, connection } from "./api.js";

/** What an answer costs the page, and what it costs the way, it may cost again only after so many times as long. */
const REST = 15;
const REST_OF_WAY = 3;

const polls = new Map();

/**
 * Asks for `path` every `every` ms and calls `got(answer)`, or `failed(problem)`. Whoever asks for the same path shares the
 * requests. Returns how to end it; its `now()` asks at once.
 */
export function watch(path, every, got, failed = () => {}) {
  const poll = polls.get(path) ?? new Poll(path);
  polls.set(path, poll);
  const watcher = { every, got, failed };
  poll.add(watcher);
  const stop = () => poll.remove(watcher);
  stop.now = () => poll.now();
  return stop;
}

/** Asks for it at once, if somebody looks at it: after a change. */
export function refresh(...paths) {
  for (const [path, poll] of polls) {
    if (paths.length === 0 || paths.some((wanted) => path.startsWith(wanted))) poll.now();
  }
}

class Poll {
  constructor(path) {
    this.path = path;
    this.watchers = new Set();
    this.timer = 0;
    this.cost = 0;
    this.asking = null;
    this.isDue = false;
    this.last = undefined;
  }

  add(watcher) {
    this.watchers.add(watcher);
    // whoever comes later starts with what is known
    if (this.last !== undefined) give(watcher, this.last);
    this.now();
  }

  remove(watcher) {
    this.watchers.delete(watcher);
    if (this.watchers.size > 0) return;
    clearTimeout(this.timer);
    this.asking?.abort();
    polls.delete(this.path);
  }

  now() {
    if (this.asking) {
      this.isDue = true;
      return;
    }
    clearTimeout(this.timer);
    this.turn();
  }

  async turn() {
    if (document.hidden || !connection.isUp) {
      this.isDue = true;
      return;
    }
    this.isDue = false;
    this.asking = new AbortController();
    const { signal } = this.asking;
    let answer, problem;
    try {
      const asked = performance.now();
      const body = await ask("GET", this.path, { signal, as: "text" });
      const begun = performance.now();
      answer = JSON.parse(body);
      this.last = answer;
      for (const watcher of [...this.watchers]) give(watcher, answer);
      this.cost = Math.max((performance.now() - begun) * REST, (begun - asked) * REST_OF_WAY);
    } catch (error) {
      problem = error;
    }
    if (signal.aborted) return;
    this.asking = null;
    if (problem) {
      if (problem.status === undefined) reportError(problem);
      for (const watcher of [...this.watchers]) watcher.failed(problem);
    }
    const every = Math.min(...[...this.watchers].map((watcher) => watcher.every));
    if (this.watchers.size === 0) return;
    if (this.isDue) this.turn();
    else this.timer = setTimeout(() => this.turn(), Math.max(every, this.cost));
  }
}

/** A fault of one who watches keeps nothing from the others. */
function give(watcher, answer) {
  try {
    watcher.got(answer);
  } catch (error) {
    reportError(error);
  }
}

function wake() {
  if (document.hidden || !connection.isUp) return;
  for (const poll of polls.values()) if (poll.isDue && !poll.asking) poll.now();
}

document.addEventListener("visibilitychange", wake);
connection.listeners.add(wake);

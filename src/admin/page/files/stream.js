// What happens, as it happens: the last events, then those that come. A stream that breaks goes on after the last number.

import { ask, connection } from "./api.js";

/** Events that are kept here. */
const MOST = 500;

/** A stream that is refused is asked for again after so long, in milliseconds. */
const AGAIN = 5000;

class Stream {
  constructor() {
    this.events = [];
    this.last = null;
    this.hasGap = false;
    this.source = null;
    this.timer = 0;
    this.listeners = new Set();
    document.addEventListener("visibilitychange", () => this.settle());
    connection.listeners.add(() => this.settle());
  }

  /** Calls `listener(stream, news)` now and after each change. Returns how to end it. */
  listen(listener) {
    this.listeners.add(listener);
    listener(this, []);
    this.settle();
    return () => {
      this.listeners.delete(listener);
      this.settle();
    };
  }

  /** Opens or closes the stream, as it is wanted. */
  settle() {
    clearTimeout(this.timer);
    const isWanted = this.listeners.size > 0 && connection.isUp && !document.hidden;
    if (!isWanted) {
      this.source?.close();
      this.source = null;
    } else if (!this.source) {
      this.open();
    }
  }

  async open() {
    this.source = { close() {} };
    const place = this.source;
    if (this.last === null) {
      try {
        const { events, last } = await ask("GET", "/v1/events", { query: { limit: 200 } });
        this.last = last;
        this.take(events);
      } catch (problem) {
        if (this.source === place) this.source = null;
        if (!problem.isLost) this.later();
        return;
      }
    }
    // somebody closed it meanwhile
    if (this.source !== place) return;
    const source = new EventSource(`/v1/events?after=${encodeURIComponent(this.last)}`);
    this.source = source;
    source.addEventListener("message", (message) => this.take([JSON.parse(message.data)]));
    source.addEventListener("gap", () => {
      this.hasGap = true;
      this.tell([]);
    });
    source.addEventListener("error", () => {
      // it tries again by itself, unless it was refused
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
      this.source = null;
      this.later();
    });
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settle(), AGAIN);
  }

  take(events) {
    const news = events.filter((event) => this.events.length === 0 || event.id > this.events.at(-1).id);
    if (news.length === 0) {
      if (events.length === 0) this.tell([]);
      return;
    }
    this.last = news.at(-1).id;
    this.events.push(...news);
    if (this.events.length > MOST) this.events.splice(0, this.events.length - MOST);
    this.tell(news);
  }

  tell(news) {
    for (const listener of this.listeners) listener(this, news);
  }

  /** Forgets everything: another one has logged in. */
  reset() {
    this.source?.close();
    Object.assign(this, { events: [], last: null, hasGap: false, source: null });
  }
}

export const stream = new Stream();

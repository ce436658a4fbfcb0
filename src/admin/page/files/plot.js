// A plot over time, in SVG. All of it is redrawn for each answer (twelve times a minute, 180 points), nothing in between.

import { attr, el, style, svg, text } from "./dom.js";
import { clock } from "./format.js";

const HEIGHT = 132;
/** Room below for the times, above for the topmost label. */
const BELOW = 18;
const ABOVE = 14;

/** The next number above that is easy to read, and its half, too: 1, 2 or 4 with zeros. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const found = [1, 2, 4, 10].find((step) => step * power >= value * 0.999);
  return found * power;
}

export class Plot {
  /** `series`: `[{ key, label, tone }]`; `format` makes texts of values, `least` is the smallest top of the scale. */
  constructor({ title, series, format, least = 1, isSmall = false }) {
    this.title = title;
    this.series = series;
    this.format = format;
    this.least = least;
    this.height = isSmall ? 96 : HEIGHT;
    this.width = 320;
    this.known = null;
    this.build();
    new ResizeObserver(([entry]) => this.resize(Math.round(entry.contentRect.width))).observe(this.frame);
  }

  build() {
    this.grid = svg("g", { class: "plot-grid" });
    // above what is drawn, so that they can be read
    this.labels = svg("g", { class: "plot-labels" });
    this.shapes = this.series.map(({ tone }) => ({
      area: svg("path", { class: "plot-area", "data-tone": tone }),
      line: svg("path", { class: "plot-line", "data-tone": tone }),
    }));
    this.cursor = svg("line", { class: "plot-cursor", visibility: "hidden" });
    this.drawing = svg(
      "svg",
      { class: "plot-drawing", role: "img", "aria-label": `${this.title}: nothing known yet.`, height: this.height },
      this.grid,
      this.shapes.map(({ area, line }) => [area, line]),
      this.labels,
      this.cursor,
    );
    this.tip = el("div", { class: "plot-tip", hidden: true, "aria-hidden": "true" });
    this.frame = el("div", { class: "plot-frame" }, this.drawing, this.tip);
    this.values = this.series.map(() => el("span", { class: "plot-value" }, "–"));
    const legend = this.series.map(({ label, tone }, at) =>
      el(
        "span",
        { class: "plot-legend" },
        el("span", { class: "plot-key", "data-tone": tone }, label),
        this.values[at],
      ),
    );
    this.node = el(
      "figure",
      { class: "plot" },
      el("figcaption", {}, el("span", { class: "plot-title" }, this.title), legend),
      this.frame,
    );
    this.frame.addEventListener("pointermove", (event) => this.point(event));
    this.frame.addEventListener("pointerleave", () => this.unpoint());
  }

  resize(width) {
    if (width <= 0 || width === this.width) return;
    this.width = width;
    this.draw();
  }

  /** `history` is the answer of /v1/history, which ends at `until`, in milliseconds since 1970. */
  update(history, until) {
    const lines = this.series.map(({ key }) => history[key] ?? []);
    const length = Math.max(0, ...lines.map((line) => line.length));
    this.known = { lines, length, step: history.step_seconds, until };
    lines.forEach((line, at) => text(this.values[at], this.format(last(line))));
    attr(this.drawing, "aria-label", this.description());
    this.draw();
  }

  description() {
    const parts = this.series.map(({ label }, at) => {
      const line = this.known.lines[at];
      return `${label} now ${this.format(last(line))}, at most ${this.format(peak(line))}`;
    });
    return `${this.title} over 15 minutes: ${parts.join("; ")}.`;
  }

  /** Where the value at an index lies. A history shorter than 15 minutes stands at the right. */
  x(index) {
    const { length } = this.known;
    return this.width - ((length - 1 - index) * this.width) / 179;
  }

  y(value) {
    return ABOVE + (1 - value / this.top) * (this.height - ABOVE - BELOW);
  }

  draw() {
    if (!this.known) return;
    attr(this.drawing, "width", this.width);
    attr(this.drawing, "viewBox", `0 0 ${this.width} ${this.height}`);
    const highest = Math.max(0, ...this.known.lines.map((line) => peak(line) ?? 0));
    this.top = ceiling(Math.max(highest, this.least));
    this.drawGrid();
    this.known.lines.forEach((line, at) => {
      const parts = this.parts(line);
      const path = parts.map((points) => `M${points.map(([x, y]) => `${x} ${y}`).join("L")}`).join("");
      attr(this.shapes[at].line, "d", path);
      const base = this.height - BELOW;
      const area = parts.map(
        (points) =>
          `M${points[0][0]} ${base}L${points.map(([x, y]) => `${x} ${y}`).join("L")}L${points.at(-1)[0]} ${base}Z`,
      );
      attr(this.shapes[at].area, "d", area.join(""));
    });
  }

  /** The points of each stretch without gaps. */
  parts(line) {
    const found = [];
    let part = null;
    line.forEach((value, index) => {
      if (value === null || value === undefined) {
        part = null;
        return;
      }
      if (!part) found.push((part = []));
      part.push([Math.round(this.x(index) * 10) / 10, Math.round(this.y(value) * 10) / 10]);
    });
    return found;
  }

  drawGrid() {
    const key = `${this.width} ${this.top}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const base = this.height - BELOW;
    const across = (value) =>
      svg("line", {
        x1: 0,
        x2: this.width,
        y1: this.y(value),
        y2: this.y(value),
        class: value === 0 ? "plot-base" : null,
      });
    const label = (x, y, anchor, words) => svg("text", { x, y, "text-anchor": anchor }, words);
    const minutes = this.width < 200 ? [15] : this.width < 260 ? [15, 5] : [15, 10, 5];
    this.grid.replaceChildren(across(0), across(this.top / 2), across(this.top));
    this.labels.replaceChildren(
      label(0, this.y(this.top) - 3, "start", this.format(this.top)),
      label(0, this.y(this.top / 2) - 3, "start", this.format(this.top / 2)),
      ...minutes.map((minute) =>
        label(
          Math.max(0, this.width * (1 - minute / 15)),
          base + 14,
          minute === 15 ? "start" : "middle",
          `−${minute} min`,
        ),
      ),
      label(this.width, base + 14, "end", "now"),
    );
  }

  point(event) {
    if (!this.known || this.known.length === 0) return;
    const { left } = this.frame.getBoundingClientRect();
    const { length, step, until, lines } = this.known;
    const index = Math.min(
      length - 1,
      Math.max(0, Math.round(length - 1 - ((this.width - (event.clientX - left)) * 179) / this.width)),
    );
    const x = this.x(index);
    for (const end of ["x1", "x2"]) attr(this.cursor, end, x);
    attr(this.cursor, "y1", ABOVE);
    attr(this.cursor, "y2", this.height - BELOW);
    attr(this.cursor, "visibility", "visible");
    const when = clock(new Date(until - (length - 1 - index) * step * 1000));
    const values = this.series.map(({ label }, at) => `${label} ${this.format(lines[at][index])}`);
    text(this.tip, [when, ...values].join("   "));
    this.tip.hidden = false;
    const room = this.width - this.tip.offsetWidth;
    style(this.tip, "transform", `translateX(${Math.max(0, Math.min(room, x - this.tip.offsetWidth / 2))}px)`);
  }

  unpoint() {
    attr(this.cursor, "visibility", "hidden");
    this.tip.hidden = true;
  }
}

function last(line) {
  for (let at = line.length - 1; at >= 0; at -= 1) if (line[at] !== null && line[at] !== undefined) return line[at];
  return null;
}

function peak(line) {
  let most = null;
  for (const value of line) if (value !== null && value !== undefined && (most === null || value > most)) most = value;
  return most;
}

// Numbers as people say them. Each text has the same shape for the same kind of value, so that columns stay aligned and
// nothing jumps when a value changes.

const BYTES = ["B", "kB", "MB", "GB", "TB", "PB"];
const COUNTS = ["", "k", "M", "G", "T"];

/** Three significant digits at most: 0, 0.4, 7.2, 48, 350. */
function digits(value) {
  if (value === 0) return "0";
  if (value < 9.95) return value.toFixed(1);
  return Math.round(value).toString();
}

function scaled(value, units) {
  let unit = 0;
  let scaledValue = Math.abs(value);
  while (scaledValue >= 999.5 && unit < units.length - 1) {
    scaledValue /= 1000;
    unit += 1;
  }
  const isWhole = unit === 0 && Number.isInteger(value);
  return [isWhole ? String(Math.abs(value)) : digits(scaledValue), units[unit]];
}

const NONE = "–";

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** 1.2 kB */
export function bytes(value) {
  if (!known(value)) return NONE;
  const [number, unit] = scaled(Math.round(value), BYTES);
  return `${number} ${unit}`;
}

/** 1.2 kB/s */
export function byteRate(value) {
  return known(value) ? `${bytes(value)}/s` : NONE;
}

/** 48/s; below ten with one digit, since 0.4/s is not none. */
export function rate(value) {
  if (!known(value)) return NONE;
  if (value !== 0 && value < 0.05) return "<0.1/s";
  const [number, unit] = scaled(value < 0.05 ? 0 : value, COUNTS);
  return `${number}${unit ? ` ${unit}` : ""}/s`;
}

/** 12 345 up to a hundred thousand, then 123 k. */
export function count(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) < 100_000) return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
  const [number, unit] = scaled(value, COUNTS);
  return `${number} ${unit}`;
}

/** 7.2 % */
export function percent(part, whole) {
  if (!known(part) || !known(whole)) return NONE;
  if (whole <= 0) return "0 %";
  const value = (part / whole) * 100;
  if (value > 0 && value < 0.05) return "<0.1 %";
  if (value < 100 && value >= 99.95) return "99.9 %";
  return `${digits(value)} %`;
}

/** 3 ms, 1.2 s, of milliseconds. */
export function millis(value) {
  if (!known(value)) return NONE;
  if (value < 0.095) return value === 0 ? "0 ms" : `${Math.max(1, Math.round(value * 1000))} µs`;
  if (value < 999.5) return `${digits(value)} ms`;
  return duration(value / 1000);
}

/** 42 s, 3 min 20 s, 4 h 10 min, 12 d 3 h, of seconds. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s < 0.05 ? 0 : s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const whole = Math.floor(s);
  const parts = (big, bigUnit, small, smallUnit) =>
    small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`;
  if (whole < 3600) return parts(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return parts(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return parts(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

/** In one unit: 42 s ago, 3 min ago. */
export function ago(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 1) return "now";
  return `${rough(seconds)} ago`;
}

/** One unit: 42 s, 3 min, 4 h, 12 days. */
export function rough(seconds) {
  const s = Math.abs(seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

const pad = (number) => String(number).padStart(2, "0");

/** 14:03:27, with the day before it if that is another one. */
export function clock(date, now = new Date()) {
  if (Number.isNaN(date.getTime())) return NONE;
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return date.toDateString() === now.toDateString() ? time : `${day(date)} ${time}`;
}

/** 2026-11-30 */
export function day(date) {
  return Number.isNaN(date.getTime())
    ? NONE
    : `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}

/** 1 server, 2 servers. */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** a, b and c; with more than `most`: a, b and 3 more. */
export function list(names, most = 3) {
  const shown = names.length > most + 1 ? [...names.slice(0, most), `${names.length - most} more`] : names;
  if (shown.length < 2) return shown.join("");
  return `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

/** round_robin as words: round robin. */
export function words(label) {
  return String(label ?? "").replaceAll("_", " ");
}

/** The first letter large. */
export function sentence(value) {
  return value ? value[0].toUpperCase() + value.slice(1) : "";
}

/** The text of a value for sorting and searching. */
export function folded(value) {
  return String(value).toLowerCase();
}

// Shortcuts, which are single keys and can be turned off, and their help.

import { display } from "./dialog.js";
import { el } from "./dom.js";
import { go } from "./router.js";

const KEY = "convey-shortcuts";

/** After `g`: where to. */
const PLACES = {
  o: ["overview", "Overview"],
  c: ["connections", "Connections"],
  v: ["events", "Events"],
  x: ["explain", "Explain"],
  p: ["packets", "Packets"],
  t: ["certificates", "Certificates"],
  d: ["discovery", "Discovery"],
  r: ["overrides", "Overrides"],
  e: ["config", "Configuration"],
};

let isPending = false;
let timer = 0;

function areOn() {
  try {
    return localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
}

function set(isOn) {
  try {
    localStorage.setItem(KEY, isOn ? "on" : "off");
  } catch {
    // a private window: they stay as they are
  }
}

/** Whether somebody types. */
function isTyping({ target }) {
  return target.closest?.("input, textarea, select, [contenteditable]") !== null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
  if (event.key === "?") {
    event.preventDefault();
    help();
    return;
  }
  if (!areOn() || document.querySelector("dialog.dialog[open]")) return;
  if (isPending) {
    isPending = false;
    const place = PLACES[event.key];
    if (place) go(`#/${place[0]}`);
  } else if (event.key === "g") {
    isPending = true;
    clearTimeout(timer);
    timer = setTimeout(() => (isPending = false), 1500);
  } else if (event.key === "/") {
    const filter = document.getElementById("filter");
    if (!filter) return;
    event.preventDefault();
    filter.focus();
    filter.select?.();
  } else if (event.key === "t") {
    document.getElementById("theme").click();
  }
}

/** What there is. */
export function help() {
  if (document.querySelector("dialog.dialog[open]")) return;
  const row = (keys, words) =>
    el(
      "div",
      {},
      el(
        "dt",
        {},
        keys.map((key) => el("kbd", {}, key)),
      ),
      el("dd", {}, words),
    );
  const toggle = el("input", { type: "checkbox", checked: areOn(), onchange: () => set(toggle.checked) });
  const body = [
    el(
      "dl",
      { class: "keys" },
      row(["/"], "To the filter of this page"),
      row(["t"], "Light, dark, or as the system has it"),
      row(["?"], "This help"),
      row(["Esc"], "Close what is open; in the editor, Tab then leaves it"),
      row(["↑", "↓"], "From line to line in the table of servers"),
      row(["←", "→"], "Close and open a line"),
      Object.entries(PLACES).map(([key, [, words]]) => row(["g", key], words)),
    ),
    el("label", { class: "check-row" }, toggle, "Shortcuts with single keys are on"),
  ];
  display({ title: "Keyboard", body });
}

export function listen() {
  document.addEventListener("keydown", onKey);
}

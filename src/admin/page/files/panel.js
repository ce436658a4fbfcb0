// The panel of a frontend, backend or server, over whatever view is open: it stays up to date, and Escape closes it.

import { connection } from "./api.js";
import { attr, button, el, empty, replace, text } from "./dom.js";
import { watch } from "./live.js";
import { icon } from "./marks.js";
import { backendPanel } from "./panelbackend.js";
import { frontendPanel } from "./panelfrontend.js";
import { serverPanel } from "./panelserver.js";
import { closedAddress, go, panelOf } from "./router.js";

const PANELS = { frontend: frontendPanel, backend: backendPanel, server: serverPanel };

const EVERY = 2000;

const heading = el("h2", { id: "panel-title", tabindex: "-1" });
const kindOf = el("p", { class: "panel-kind" });
const content = el("div", { class: "panel-content" });
const close = button(icon("close"), () => dialog.close(), "icon-only", { "aria-label": "Close panel" });
const dialog = el(
  "dialog",
  { class: "panel", "aria-labelledby": "panel-title" },
  el("div", { class: "panel-head" }, el("div", {}, kindOf, heading), close),
  content,
);

let open = null;
let stops = [];

dialog.addEventListener("close", () => {
  end();
  open = null;
  if (panelOf(paramsNow())) go(closedAddress());
});
dialog.addEventListener("pointerdown", (event) => {
  if (event.target === dialog) dialog.close();
});

function paramsNow() {
  return Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? ""));
}

function end() {
  for (const stop of stops) stop();
  stops = [];
}

/** Shows what the address says, and nothing if it says nothing. */
export function follow({ params }) {
  const wanted = panelOf(params);
  if (!wanted || !PANELS[wanted.kind]) {
    if (dialog.open) dialog.close();
    return;
  }
  if (open === params.panel) return;
  open = params.panel;
  end();
  if (!dialog.isConnected) document.body.append(dialog);
  const panel = PANELS[wanted.kind](...wanted.names);
  text(kindOf, panel.kind);
  text(heading, panel.title);
  replace(content, panel.node);
  content.scrollTop = 0;
  const failed = (problem) => {
    if (problem.status === 404) replace(content, gone(wanted));
  };
  stops = [...panel.stops, ...panel.watches.map(([path, got, every]) => watch(path, every ?? EVERY, got, failed))];
  if (!dialog.open) dialog.showModal();
  heading.focus();
}

function gone({ kind, names }) {
  return empty(`There is no ${kind} ${names.join("/")}.`, "It has been removed, or the address is mistyped.");
}

connection.listeners.add(() => attr(dialog, "data-stale", !connection.isUp));

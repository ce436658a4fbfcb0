// What to run on each server of mode dsr, to copy.

import { ask } from "./api.js";
import { button, el, replace, show } from "./dom.js";
import { failed, notify } from "./notices.js";

/** Chosen by frontend and server. */
export function scripts() {
  const frontends = el("select", { "aria-label": "Frontend", onchange: () => fillServers() });
  const servers = el("select", { "aria-label": "Server", onchange: () => load() });
  const script = el("pre", { class: "listing", tabindex: "0", role: "region", "aria-label": "Script" });
  const copy = button("Copy", () => copyText(script.textContent));
  const none = el("p", { class: "section-note" }, "No frontend of mode dsr.");
  const chooser = el(
    "div",
    { class: "script", hidden: true },
    el(
      "p",
      { class: "section-note" },
      "Run it as root on that very server, once: it survives a reboot. The package convey-backend brings the program that it calls.",
    ),
    el("div", { class: "tools" }, frontends, servers, copy),
    script,
  );
  let known = "";
  let status = null;

  function update(now) {
    status = now;
    const dsr = Object.entries(now.frontends).filter(([, frontend]) => frontend.mode === "dsr");
    show(chooser, dsr.length > 0);
    show(none, dsr.length === 0);
    const names = dsr.map(([name, frontend]) => [name, ...Object.keys(now.backends[frontend.backend]?.servers ?? {})]);
    if (JSON.stringify(names) === known) return;
    known = JSON.stringify(names);
    const chosen = frontends.value;
    replace(
      frontends,
      dsr.map(([name]) => el("option", { value: name, selected: name === chosen }, name)),
    );
    fillServers();
  }

  function fillServers() {
    const backend = status.frontends[frontends.value]?.backend;
    replace(
      servers,
      Object.keys(status.backends[backend]?.servers ?? {}).map((name) => el("option", { value: name }, name)),
    );
    load();
  }

  async function load() {
    if (!frontends.value || !servers.value) return;
    try {
      const text = await ask("GET", "/v1/backend-script", {
        query: { frontend: frontends.value, server: servers.value },
        as: "text",
      });
      replace(script, text);
    } catch (problem) {
      replace(script, `# ${problem.message}`);
    }
  }

  return { node: el("div", {}, none, chooser), update };
}

/** Over plain HTTP the page may not have the clipboard: then the text is selected for the keyboard. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    notify("Copied.");
  } catch (error) {
    const area = el("textarea", { class: "unseen", value: text });
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (isCopied) notify("Copied.");
    else failed(error, "The browser does not let the page copy: select the text and copy it.");
  }
}

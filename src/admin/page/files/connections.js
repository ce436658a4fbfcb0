// All open connections, UDP sessions and flows; which of them, and closing them.

import { closeConnections, countOf } from "./actions.js";
import { connectionTable } from "./connectiontable.js";
import { attr, button, debounce, el, replace, text } from "./dom.js";
import { count, list, many } from "./format.js";
import { watch } from "./live.js";
import { address, here, remember } from "./router.js";
import { refusal } from "./session.js";

const EVERY = 3000;

/** Lines of one screen. */
const PAGE = 100;

const FILTERS = { frontend: "Frontend", backend: "Backend", server: "Server", client: "Client" };

export const title = "Connections";

export function mount(main) {
  const listed = connectionTable();
  const total = el("p", { class: "section-note", role: "status" });
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  const inputs = Object.fromEntries(
    Object.keys(FILTERS).map((name) => [
      name,
      el("input", {
        id: name === "frontend" ? "filter" : null,
        name,
        type: "search",
        value: here().params[name] ?? "",
        autocomplete: "off",
        spellcheck: "false",
        oninput: debounce(300, () => note()),
        placeholder: name === "client" ? "IP or IP:port" : "any",
      }),
    ]),
  );
  const names = {
    frontend: el("datalist", { id: "names-frontend" }),
    backend: el("datalist", { id: "names-backend" }),
  };
  for (const [name, options] of Object.entries(names)) inputs[name].setAttribute("list", options.id);
  const closeAll = button("Close these…", () => closeThese(), "danger");
  const earlier = button("Earlier", () => turn(-PAGE), "quiet");
  const later = button("Later", () => turn(PAGE), "quiet");
  let offset = 0;
  let found = 0;
  let stop = () => {};

  const given = () =>
    Object.fromEntries(
      Object.entries(inputs)
        .map(([name, input]) => [name, input.value.trim()])
        .filter(([, value]) => value !== ""),
    );

  function note() {
    offset = 0;
    const { panel } = here().params;
    remember(address("connections", { ...given(), panel }));
    begin();
  }

  function turn(by) {
    offset = Math.max(0, offset + by);
    begin();
  }

  function begin() {
    stop();
    const query = new URLSearchParams({ ...given(), offset, limit: PAGE });
    stop = watch(
      `/v1/connections?${query}`,
      EVERY,
      (answer) => {
        found = answer.total;
        error.hidden = true;
        listed.update(answer.connections);
        draw(answer.connections.length);
      },
      (problem) => {
        if (problem.isLost) return;
        error.hidden = false;
        text(error, problem.message);
      },
    );
  }

  function draw(shown) {
    text(
      total,
      found === 0
        ? "None is open."
        : `${many(found, "connection")}, the oldest first${found > shown ? `; ${count(offset + 1)} to ${count(offset + shown)} are shown` : ""}.`,
    );
    attr(earlier, "disabled", offset === 0);
    attr(later, "disabled", offset + shown >= found);
    for (const node of [earlier, later]) attr(node, "hidden", found <= PAGE);
    const isAny = Object.keys(given()).length === 0;
    const why = refusal("operate") ?? (isAny ? "Say first which: name a frontend, backend, server or client." : null);
    attr(closeAll, "disabled", Boolean(why) || found === 0);
    attr(closeAll, "title", why);
  }

  function closeThese() {
    const query = given();
    const which = list(
      Object.entries(query).map(([name, value]) => `${name} ${value}`),
      4,
    );
    closeConnections(query, `the connections of ${which}`, `${countOf(found)} Flows of the packet modes stay.`);
  }

  const fields = Object.entries(FILTERS).map(([name, label]) => el("label", { class: "field" }, label, inputs[name]));
  main.append(
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el(
        "header",
        { class: "section-head" },
        el("h2", { id: "h-view" }, "Connections, UDP sessions and flows"),
        closeAll,
      ),
      el(
        "form",
        { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
        fields,
        Object.values(names),
      ),
      error,
      el("div", { class: "section-head" }, total, el("div", { class: "tools" }, earlier, later)),
      listed.node,
    ),
  );
  begin();
  const stopNames = watch("/v1/status", 30_000, (status) => {
    replace(
      names.frontend,
      Object.keys(status.frontends)
        .slice(0, 500)
        .map((value) => el("option", { value })),
    );
    replace(
      names.backend,
      Object.keys(status.backends)
        .slice(0, 500)
        .map((value) => el("option", { value })),
    );
  });
  return () => {
    stop();
    stopNames();
  };
}

// The texts that were in effect, and the way back to one of them.

import { Problem, ask } from "./api.js";
import { changeSummary } from "./changes.js";
import { confirm, display } from "./dialog.js";
import { attr, button, el, replace } from "./dom.js";
import { listing } from "./editor.js";
import { bytes, clock } from "./format.js";
import { refresh } from "./live.js";
import { failed, notify } from "./notices.js";
import { refusal } from "./session.js";

/** The list; `changed()` is called after a rollback. */
export function revisions(changed) {
  const node = el("ol", { class: "revisions" });
  async function load() {
    try {
      const { revisions: kept } = await ask("GET", "/v1/config/history");
      replace(
        node,
        kept.map((revision, at) => item(revision, at === 0, changed)),
      );
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      replace(node, el("li", { class: "form-error" }, problem.message));
    }
  }
  return { node, load };
}

function item({ revision, at, by, changes, bytes: size }, isNow, changed) {
  const why = refusal("configure");
  const back = button("Roll back…", () => askBack(revision, changed), null, { title: why });
  attr(back, "disabled", Boolean(why));
  return el(
    "li",
    { class: "revision" },
    el(
      "div",
      { class: "revision-head" },
      el("strong", {}, `Revision ${revision}`),
      el("time", { datetime: at, title: at }, clock(new Date(at))),
      isNow ? el("span", { class: "tag" }, "in effect") : null,
    ),
    el("p", { class: "section-note" }, `${by}, ${bytes(size)}`),
    changes.length
      ? el(
          "ul",
          {},
          changes.slice(0, 4).map((change) => el("li", {}, change)),
          changes.length > 4 ? el("li", {}, `and ${changes.length - 4} more`) : null,
        )
      : null,
    el(
      "div",
      { class: "tools" },
      button("Show", () => view(revision), "quiet"),
      isNow ? null : back,
    ),
  );
}

function textOf(revision) {
  return ask("GET", `/v1/config/history/${revision}`, { as: "text" });
}

async function view(revision) {
  try {
    display({ title: `Revision ${revision}`, body: listing(await textOf(revision)), isWide: true });
  } catch (problem) {
    failed(problem);
  }
}

/** Shows what going back would change, then goes. */
async function askBack(revision, changed) {
  let diff;
  try {
    diff = await ask("POST", "/v1/config/diff", { toml: await textOf(revision) });
  } catch (problem) {
    failed(problem, "That revision cannot be compared.");
    return;
  }
  await confirm({
    title: `Roll back to revision ${revision}?`,
    body: changeSummary(diff),
    verb: "Roll back",
    isWide: true,
    act: () => rollBack(revision, changed),
  });
}

/** Puts a revision in effect again. */
export async function rollBack(revision, changed) {
  await ask("POST", "/v1/config/rollback", { json: { revision } });
  await changed();
  refresh();
  notify(`Revision ${revision} is in effect again.`);
}

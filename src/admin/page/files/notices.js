// What is said in passing: that something was done, with the way back; and what only screen readers are told.

import { append, button, el, text } from "./dom.js";
import { icon } from "./marks.js";

/** How long a notice stays, in milliseconds; one with a way back is there longer. */
const STAY = 6000;
const STAY_WITH_UNDO = 20_000;

const aside = document.getElementById("aside");
const place = document.getElementById("notices");
const spoken = document.getElementById("spoken");

/**
 * Shows a notice. `undo` is called by its button, and may throw a `Problem`. Pointing at it or focusing it keeps it.
 */
export function notify(message, { tone = "good", undo = null, detail = null } = {}) {
  const body = el("div", { class: "notice-text" }, el("span", {}, message));
  if (detail) body.append(el("pre", {}, detail));
  const node = el("div", { class: "notice", "data-tone": tone }, icon(tone), body);
  let timer = 0;
  const close = () => {
    clearTimeout(timer);
    node.remove();
  };
  const wait = () => {
    clearTimeout(timer);
    if (tone !== "bad") timer = setTimeout(close, undo ? STAY_WITH_UNDO : STAY);
  };
  if (undo) {
    const back = button(
      "Undo",
      async () => {
        back.disabled = true;
        close();
        try {
          await undo();
        } catch (problem) {
          notify(`That could not be undone. ${problem.message}`, { tone: "bad" });
        }
      },
      "quiet",
    );
    node.append(back);
  }
  append(node, button(icon("close"), close, "icon-only", { "aria-label": "Dismiss" }));
  for (const event of ["pointerenter", "focusin"]) node.addEventListener(event, () => clearTimeout(timer));
  for (const event of ["pointerleave", "focusout"]) node.addEventListener(event, wait);
  raise();
  place.append(node);
  while (place.children.length > 4) place.firstChild.remove();
  wait();
}

export function failed(problem, what) {
  const [first, ...more] = problem.message.split("\n");
  notify(what ? `${what} ${first}` : first, { tone: "bad", detail: more.length ? more.join("\n") : null });
}

/** What lies outside an open dialog can neither be clicked nor heard: notices go into the topmost. */
function raise() {
  const dialogs = [...document.querySelectorAll("dialog[open]")];
  const host = dialogs.at(-1) ?? document.body;
  if (aside.parentNode !== host) host.append(aside);
}

// before the dialog's own listeners, which may remove it with all that is in it
document.addEventListener("close", (event) => event.target.contains(aside) && raise(), true);

/** Tells screen readers. Seldom: a page that talks all the time is turned off. */
export function say(message) {
  raise();
  text(spoken, "");
  requestAnimationFrame(() => text(spoken, message));
}

// Questions before something is done.

import { button, el, replace } from "./dom.js";

/**
 * Asks, and does it if the answer is yes.
 *
 * `body`: nodes; `verb`: what the button says; `act()` does it and may throw a `Problem`, which is shown in the dialog, so that
 * nothing typed is lost. `fields(form)` may return what `act` gets. Returns whether it was done.
 */
export function confirm({ title, body, verb, kind = "primary", act, isWide = false, onProblem = null }) {
  return new Promise((resolve) => {
    const heading = el("h2", { id: "dialog-title" }, title);
    const error = el("p", { class: "form-error", role: "alert", hidden: true });
    const yes = el("button", { type: "submit", class: `button ${kind}` }, verb);
    const no = button("Cancel", () => dialog.close());
    const form = el(
      "form",
      { method: "dialog" },
      heading,
      el("div", { class: "dialog-body" }, body),
      error,
      el("div", { class: "dialog-actions" }, no, yes),
    );
    const dialog = el("dialog", { class: isWide ? "dialog wide" : "dialog", "aria-labelledby": "dialog-title" }, form);
    let isDone = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (yes.disabled) return;
      yes.disabled = true;
      error.hidden = true;
      try {
        await act(new FormData(form));
        isDone = true;
        dialog.close();
      } catch (problem) {
        replace(error, el("span", {}, problem.message));
        error.hidden = false;
        yes.disabled = false;
        onProblem?.(problem, { error, yes });
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(isDone);
    });
    // a click beside it
    dialog.addEventListener("pointerdown", (event) => {
      if (event.target === dialog) dialog.close();
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("[autofocus]") ?? no).focus();
  });
}

/** A dialog that only shows something. Returns how to close it. */
export function display({ title, body, isWide = false }) {
  const dialog = el(
    "dialog",
    { class: isWide ? "dialog wide" : "dialog", "aria-labelledby": "dialog-title" },
    el("h2", { id: "dialog-title" }, title),
    el("div", { class: "dialog-body" }, body),
    el(
      "div",
      { class: "dialog-actions" },
      button("Close", () => dialog.close(), null, { autofocus: true }),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return () => dialog.close();
}

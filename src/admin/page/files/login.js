// Logging in with a token, where the API wants one.

import { Problem } from "./api.js";
import { el, show, text } from "./dom.js";
import { icon } from "./marks.js";
import { logIn } from "./session.js";

/** The form; `done()` is called once somebody is logged in. */
export function loginView(done, why) {
  const token = el("input", {
    type: "password",
    name: "token",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
    "aria-describedby": "login-help",
  });
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  const button = el("button", { type: "submit", class: "button primary" }, "Log in");
  const form = el(
    "form",
    { class: "login card" },
    icon("logo"),
    el("h1", {}, "Convey"),
    el(
      "p",
      { class: "section-note", id: "login-help" },
      why ?? "This address answers to tokens.",
      " ",
      el("code", {}, "convey token"),
      " makes one; an administrator adds it to ",
      el("code", {}, "tokens_file"),
      ".",
    ),
    el("label", { class: "field" }, "Token", token),
    error,
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    show(error, false);
    try {
      await logIn(token.value.trim());
      token.value = "";
      done();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      text(error, problem.message);
      show(error, true);
      token.select();
    }
    button.disabled = false;
  });
  return form;
}

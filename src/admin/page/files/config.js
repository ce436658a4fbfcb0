// The configuration: its text with what is wrong at its line, what a change would do before it is done, and the ways back.

import { Problem, ask } from "./api.js";
import { confirm } from "./dialog.js";
import { attr, button, debounce, el, empty, replace, show, text } from "./dom.js";
import { changeSummary } from "./changes.js";
import { Editor } from "./editor.js";
import { count, many } from "./format.js";
import { refresh } from "./live.js";
import { badge } from "./marks.js";
import { failed, notify } from "./notices.js";
import { revisions, rollBack } from "./revisions.js";
import { may, refusal } from "./session.js";

/** A pause in the typing after which the text is checked, in milliseconds. */
const PAUSE = 350;

export const title = "Configuration";

export function mount(main) {
  if (!may("operate")) {
    main.append(
      el("section", { class: "section card" }, empty("The configuration is not shown to you.", refusal("operate"))),
    );
    return () => {};
  }
  const page = new ConfigPage();
  main.append(page.node);
  page.load();
  const guard = (event) => page.isChanged && event.preventDefault();
  window.addEventListener("beforeunload", guard);
  return () => {
    window.removeEventListener("beforeunload", guard);
    page.keep();
  };
}

/** What was typed and not applied, kept while the page is there. */
let draft = null;

class ConfigPage {
  constructor() {
    this.before = "";
    this.etag = null;
    this.checking = null;
    this.editor = new Editor({ label: "Configuration text", changed: () => this.changed() });
    this.state = el("div", { class: "check-state", role: "status" });
    this.list = el("ol", { class: "findings", id: "editor-findings" });
    this.why = el("p", { class: "section-note" });
    this.review = button("Review and apply…", () => this.apply(), "primary");
    this.reload = button("Read the file again…", () => this.reloadFile(), "quiet");
    this.revert = button("Discard changes", () => this.discard(), "quiet");
    this.file = el("code", {});
    this.history = revisions(() => this.load());
    this.recheck = debounce(PAUSE, () => this.check());
    const head = el(
      "header",
      { class: "section-head" },
      el("h2", { id: "h-view" }, "Text"),
      this.file,
      el("div", { class: "tools" }, this.reload, this.revert, this.review),
    );
    this.node = el(
      "div",
      { class: "config" },
      el(
        "section",
        { class: "section card config-text", "aria-labelledby": "h-view" },
        head,
        this.why,
        this.editor.node,
        this.state,
        this.list,
      ),
      el(
        "section",
        { class: "section card config-history", "aria-labelledby": "h-history" },
        el("header", { class: "section-head" }, el("h2", { id: "h-history" }, "History")),
        this.history.node,
      ),
    );
  }

  get isChanged() {
    return this.editor.value !== this.before;
  }

  /** The text in effect; what somebody typed before stays. */
  async load() {
    try {
      const [answer, info] = await Promise.all([ask("GET", "/v1/config", { as: "response" }), ask("GET", "/v1/info")]);
      this.before = answer.text;
      this.etag = answer.etag;
      this.writes = info.allow_config_writes;
      text(this.file, info.config_file);
      this.editor.value = draft ?? answer.text;
      draft = null;
      this.changed();
      this.history.load();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      replace(
        this.state,
        el(
          "p",
          { class: "form-error" },
          problem.message,
          " ",
          button("Try again", () => this.load(), "quiet"),
        ),
      );
    }
  }

  keep() {
    draft = this.isChanged ? this.editor.value : null;
  }

  changed() {
    const refused = this.refused();
    text(this.why, refused ?? "");
    show(this.why, Boolean(refused));
    this.settle();
    this.recheck();
  }

  /** Why nothing can be applied here; `null` if it can. */
  refused() {
    if (!this.writes)
      return "The file can be checked and compared here, not written: [admin] allow_config_writes = true, and a restart, would allow it.";
    return refusal("configure");
  }

  settle() {
    attr(this.review, "disabled", !this.isChanged || this.isValid === false);
    attr(this.revert, "disabled", !this.isChanged);
    text(this.review, this.refused() ? "Review…" : "Review and apply…");
  }

  async check() {
    this.checking?.abort();
    this.checking = new AbortController();
    const { signal } = this.checking;
    try {
      const { valid, findings } = await ask("POST", "/v1/config/check", { toml: this.editor.value, signal });
      this.isValid = valid;
      this.editor.findings = findings;
      this.draw(valid, findings);
      this.settle();
    } catch (problem) {
      if (signal.aborted) return;
      replace(this.state, badge("waiting", "Not checked"), el("span", {}, problem.message));
    }
  }

  draw(valid, findings) {
    const errors = findings.filter(({ severity }) => severity === "error").length;
    const warnings = findings.length - errors;
    const said = [errors > 0 ? many(errors, "error") : null, warnings > 0 ? many(warnings, "warning") : null]
      .filter(Boolean)
      .join(", ");
    replace(
      this.state,
      valid ? badge("up", said ? "Valid" : "Valid") : badge("down", "Not valid"),
      el("span", {}, said || (this.isChanged ? "Nothing is applied before you say so." : "This is in effect.")),
    );
    replace(
      this.list,
      findings.map(({ severity, line, column, message, help }) =>
        el(
          "li",
          { class: "finding", "data-severity": severity },
          badge(severity === "error" ? "error" : "warning"),
          line > 0 ? button(`Line ${count(line)}`, () => this.editor.jump(line, column), "link") : null,
          el("span", { class: "finding-text" }, message, help ? el("span", { class: "finding-help" }, help) : null),
        ),
      ),
    );
  }

  async discard() {
    await confirm({
      title: "Discard your changes?",
      body: el("p", {}, "The text in effect takes the place of what you have typed."),
      verb: "Discard",
      kind: "danger",
      act: async () => {
        this.editor.value = this.before;
        draft = null;
        this.changed();
        await this.load();
      },
    });
  }

  /** For whoever has changed the file elsewhere. */
  async reloadFile() {
    const cut = el(
      "label",
      { class: "check-row" },
      el("input", { type: "checkbox", name: "cut" }),
      "Cut established connections that the change does not leave",
    );
    await confirm({
      title: "Read the file again?",
      body: [el("p", {}, "What stands in the file now is applied, or nothing if it has a mistake."), cut],
      verb: "Reload",
      act: async (form) => {
        const { changes } = await ask("POST", "/v1/reload", { query: { cut: form.has("cut") ? true : null } });
        await this.load();
        refresh();
        notify(changes.length ? "The file is applied." : "The file is applied: nothing differs.", {
          detail: changes.join("\n") || null,
        });
      },
    });
  }

  /** Shows what the text would change, and applies it if that is wanted. */
  async apply() {
    const toml = this.editor.value;
    let diff;
    attr(this.review, "disabled", true);
    try {
      diff = await ask("POST", "/v1/config/diff", { toml });
    } catch (problem) {
      failed(problem, "The text cannot be compared.");
      this.settle();
      return;
    }
    this.settle();
    const refused = this.refused();
    const act = async () => {
      if (refused) return;
      const reloaded = await ask("PUT", "/v1/config", { toml, headers: { "If-Match": this.etag } });
      await this.applied(reloaded);
    };
    const body = [changeSummary(diff), refused ? el("p", { class: "section-note" }, refused) : null];
    const onProblem = (problem, { error }) => problem.status === 412 && this.conflict(error);
    await confirm({
      title: refused ? "What this would change" : "Apply this?",
      body,
      verb: refused ? "Back to the text" : "Apply",
      act,
      isWide: true,
      onProblem,
    });
  }

  /** Somebody else was faster: the text is compared with theirs. */
  conflict(error) {
    error.append(
      " ",
      button(
        "Compare with what is in effect now",
        async (event) => {
          const answer = await ask("GET", "/v1/config", { as: "response" });
          this.before = answer.text;
          this.etag = answer.etag;
          event.target.closest("dialog").close();
          this.apply();
        },
        "quiet",
      ),
    );
  }

  async applied({ changes, needs_restart: needed }) {
    const { revisions: kept } = await ask("GET", "/v1/config/history");
    const before = kept[1];
    draft = null;
    this.before = this.editor.value;
    await this.load();
    refresh();
    const detail = [...changes, ...(needed.length ? [`Needs a restart: ${needed.join(", ")}`] : [])].join("\n");
    notify("The configuration is applied.", {
      detail: detail || null,
      undo: before ? async () => rollBack(before.revision, () => this.load()) : null,
    });
  }
}

// Certificates: those that clients get, and those that are ordered from a CA.

import { ask } from "./api.js";
import { confirm } from "./dialog.js";
import { attr, button, el, empty, replace, show, table, text } from "./dom.js";
import { ago, day, list, rough, sentence, words } from "./format.js";
import { watch } from "./live.js";
import { badge } from "./marks.js";
import { notify } from "./notices.js";
import { panelAddress } from "./router.js";
import { refusal } from "./session.js";

const EVERY = 15_000;
const DAY = 86_400;

export const title = "Certificates";

export function mount(main) {
  const served = el("div", {});
  const ordered = el("div", {});
  const from = el("p", { class: "section-note" });
  const renewAll = button("Order all now…", () => renew(null));
  const orders = el(
    "section",
    { class: "section card", "aria-labelledby": "h-ordered", hidden: true },
    el("header", { class: "section-head" }, el("h2", { id: "h-ordered" }, "Ordered from a CA"), from, renewAll),
    ordered,
  );
  main.append(
    el(
      "section",
      { class: "section card", "aria-labelledby": "h-view" },
      el("header", { class: "section-head" }, el("h2", { id: "h-view" }, "Certificates that clients get")),
      served,
    ),
    orders,
  );
  const stops = [
    watch("/v1/certificates", EVERY, ({ certificates }) => replace(served, servedOf(certificates))),
    watch("/v1/acme", EVERY, (acme) => {
      show(orders, acme.certificates.length > 0);
      text(from, acme.directory ? `${acme.directory}${acme.leads ? "" : ", ordered by another load balancer"}` : "");
      attr(renewAll, "disabled", Boolean(refusal("operate")));
      attr(renewAll, "title", refusal("operate"));
      replace(ordered, orderedOf(acme.certificates));
    }),
  ];
  return () => stops.forEach((stop) => stop());
}

function expiry(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds <= 0) return badge("expired", `expired ${rough(seconds)} ago`);
  if (seconds < 14 * DAY) return badge("warning", `in ${rough(seconds)}`, "warn");
  return badge("valid", `in ${rough(seconds)}`, "good");
}

function servedOf(certificates) {
  if (certificates.length === 0)
    return empty("No certificates.", "TLS ends at no frontend: connections are passed on as they are.");
  const rows = certificates.map((it) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, list(it.names, 4) || it.subject, el("span", { class: "sub" }, it.name)),
      el("td", {}, el("a", { href: panelAddress("frontend", it.frontend) }, it.frontend)),
      el(
        "td",
        { class: "nowrap" },
        expiry(it.expires_seconds),
        el("span", { class: "sub" }, `${day(new Date(it.not_before))} to ${day(new Date(it.not_after))}`),
      ),
      el("td", {}, it.issuer, it.ordered ? el("span", { class: "sub" }, "ordered by Convey") : null),
      el("td", {}, it.key.toUpperCase(), el("code", { class: "sub" }, it.serial)),
    ),
  );
  return table("Certificates", ["Names", "Frontend", "Expires", "Signed by", "Key and serial"], el("tbody", {}, rows));
}

function orderedOf(certificates) {
  const rows = certificates.map((it) => {
    const again = button("Order now…", () => renew(it.name), "quiet", { title: refusal("operate") });
    attr(again, "disabled", Boolean(refusal("operate")));
    const state =
      it.ordering_seconds !== null && it.ordering_seconds !== undefined
        ? badge("checking", `ordered ${ago(it.ordering_seconds)}`)
        : badge(it.state);
    return el(
      "tr",
      {},
      el(
        "th",
        { scope: "row" },
        it.name,
        it.names.length > 1 ? el("span", { class: "sub" }, list(it.names.slice(1), 4)) : null,
      ),
      el(
        "td",
        {},
        state,
        it.problem
          ? el("span", { class: "sub problem" }, `${sentence(it.problem.text)} (${ago(it.problem.seconds)})`)
          : null,
      ),
      el("td", {}, expiry(it.expires_seconds)),
      el(
        "td",
        {},
        it.next_order_seconds === null || it.next_order_seconds === undefined
          ? "–"
          : it.next_order_seconds <= 0
            ? "now"
            : `in ${rough(it.next_order_seconds)}`,
      ),
      el("td", {}, words(it.challenge)),
      el("td", {}, list(it.frontends, 3)),
      el("td", { class: "number" }, again),
    );
  });
  return table(
    "Ordered certificates",
    ["Name", "State", "Expires", "Next order", "Proof", "Frontends", "#Action"],
    el("tbody", {}, rows),
  );
}

function renew(name) {
  const what = name ?? "all certificates";
  return confirm({
    title: `Order ${what} now?`,
    body: el("p", {}, "The present one is served until the new one is there. CAs limit how often that may be asked."),
    verb: "Order",
    act: async () => {
      const { certificates } = await ask("POST", "/v1/acme/renew", { query: { name } });
      notify(`Ordered: ${list(certificates, 3)}.`);
    },
  });
}

// The frame: who looks, which view, the panel over it.

import "./theme.js";
import { Problem, connection, onLogin } from "./api.js";
import { attr, button, el, empty, replace, show, text } from "./dom.js";
import { rough } from "./format.js";
import * as headline from "./headline.js";
import * as keys from "./keys.js";
import { watch } from "./live.js";
import { loginView } from "./login.js";
import { say } from "./notices.js";
import * as overview from "./overview.js";
import { follow } from "./panel.js";
import { closedAddress, here, onRoute, remember, viewKey } from "./router.js";
import { hasLogin, identify, logOut, session } from "./session.js";
import { stream } from "./stream.js";
import { turnTheme } from "./theme.js";

/** The views; those that are not seen at once are fetched when they are. */
const VIEWS = {
  overview: () => overview,
  connections: () => import("./connections.js"),
  events: () => import("./events.js"),
  explain: () => import("./explain.js"),
  packets: () => import("./packets.js"),
  certificates: () => import("./certificates.js"),
  discovery: () => import("./discovery.js"),
  overrides: () => import("./overrides.js"),
  config: () => import("./config.js"),
};

const main = document.getElementById("main");
const frame = document.getElementById("frame");
const gate = document.getElementById("gate");
const who = document.getElementById("who");
const about = document.getElementById("about");

let shown = null;
let unmount = null;
let stopInfo = null;

async function turn(place, isOwn) {
  if (!session.role) return;
  const name = VIEWS[place.view] ? place.view : "overview";
  const key = viewKey();
  if (isOwn) shown = key;
  if (shown !== key) {
    const isFirst = shown === null;
    shown = key;
    const view = await VIEWS[name]();
    if (shown !== key) return;
    unmount?.();
    unmount = null;
    replace(main);
    document.body.setAttribute("data-view", name);
    unmount = view.mount(main);
    for (const link of document.querySelectorAll("#nav a"))
      attr(link, "aria-current", link.hash === `#/${name}` ? "page" : null);
    document.querySelector('#nav [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (!isFirst) {
      window.scrollTo(0, 0);
      main.focus({ preventScroll: true });
      say(view.title);
    }
  }
  follow(place);
}

/** Shows the page to whoever may see it, and else asks for a token. */
async function enter() {
  try {
    await identify();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) knock();
    else refuse(problem);
    return;
  }
  show(gate, false);
  replace(gate);
  show(frame, true);
  show(document.getElementById("log-out"), hasLogin());
  text(who, session.name ? `${session.name} (${session.role})` : `Role: ${session.role}`);
  headline.begin();
  stopInfo = watch(
    "/v1/info",
    30_000,
    ({ version, uptime_seconds: up, config_file: file, config_generation: generation }) => {
      replace(
        about,
        el("span", {}, `Convey ${version}`),
        el("span", {}, `up ${rough(up)}`),
        el("span", { title: file }, `configuration ${generation}`),
      );
    },
  );
  await turn(here());
}

function leave() {
  headline.end();
  stopInfo?.();
  stopInfo = null;
  unmount?.();
  unmount = null;
  shown = null;
  session.role = null;
  stream.reset();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  replace(main);
  document.title = "Convey";
  show(frame, false);
}

function knock(why) {
  leave();
  show(gate, true);
  replace(gate, loginView(enter, why));
  gate.querySelector("input").focus();
}

/** Neither in nor at the door: nobody answers, or this address is not for pages. It goes on by itself once somebody answers. */
function refuse(problem) {
  leave();
  show(gate, true);
  const line = problem.isLost ? "Convey does not answer." : "This page is refused here.";
  const below = problem.isLost ? "The page tries again by itself." : problem.message;
  replace(gate, el("div", { class: "card login", role: "status" }, empty(line, below), button("Try now", enter)));
}

/** Somebody answers again whom nobody has seen yet. */
function arrive() {
  if (connection.isUp && !session.role && !gate.querySelector("form")) enter();
}

onLogin(() => session.role && knock("You are no longer logged in."));
connection.listeners.add(arrive);
onRoute(turn);
keys.listen();
document.getElementById("theme").addEventListener("click", () => say(`Colours: ${turnTheme()}.`));
document.getElementById("help").addEventListener("click", keys.help);
document.getElementById("log-out").addEventListener("click", async () => {
  await logOut();
  if (here().params.panel) remember(closedAddress());
  // with all that was typed and seen
  location.reload();
});
enter();

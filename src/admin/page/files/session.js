// Who looks at the page, and what that one may do. The API decides; the page only says beforehand what it would refuse.

import { Problem, ask } from "./api.js";

const ROLES = ["read", "operate", "configure"];

export const session = { role: null, name: null, login: "none", listeners: new Set() };

/** Asks who we are. Throws a `Problem` of status 401 if a token is needed. */
export async function identify() {
  take(await ask("GET", "/v1/session"));
}

export async function logIn(token) {
  const answer = await ask("POST", "/v1/session", { json: { token } });
  if (answer?.role) take(answer);
  else await identify();
}

export async function logOut() {
  try {
    await ask("DELETE", "/v1/session");
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 401) throw problem;
  }
  Object.assign(session, { role: null, name: null });
}

function take(answer) {
  Object.assign(session, { role: answer.role, name: answer.name ?? null, login: answer.login ?? "none" });
  for (const listener of session.listeners) listener(session);
}

/** Whether a role may do what needs another one. */
export function may(needed) {
  return ROLES.indexOf(session.role) >= ROLES.indexOf(needed);
}

/** Why it may not, for people; `null` if it may. */
export function refusal(needed) {
  if (may(needed)) return null;
  const how =
    session.login === "token"
      ? "log in with a token of that role"
      : "on loopback, [admin] loopback_role decides; a token of that role would do, too";
  return `This needs the role ${needed}; yours is ${session.role ?? "none"}: ${how}.`;
}

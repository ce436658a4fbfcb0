// Who looks at the page, and what that one may do. The API decides; the page only says beforehand what it would refuse.

import { Problem, ask } from "./api.js";

const ROLES = ["read", "operate", "configure"];

export const session = { role: null, name: null, entry: null };

/** Asks who we are. Throws a `Problem` of status 401 if a token is needed. */
export async function identify() {
  const answer = await ask("GET", "/v1/session");
  Object.assign(session, { role: answer.role, name: answer.token, entry: answer.entry });
}

/** Whether there is something to log out of. */
export function hasLogin() {
  return session.entry === "session";
}

/** The cookie that comes of it is for the browser alone: no script reads it. */
export async function logIn(token) {
  await ask("POST", "/v1/session", { headers: { Authorization: `Bearer ${token}` } });
}

export async function logOut() {
  try {
    await ask("DELETE", "/v1/session");
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 401) throw problem;
  }
}

/** Whether a role may do what needs another one. */
export function may(needed) {
  return ROLES.indexOf(session.role) >= ROLES.indexOf(needed);
}

/** Why it may not, for people; `null` if it may. */
export function refusal(needed) {
  if (may(needed)) return null;
  const how =
    session.entry === "loopback" ? "[admin] loopback_role decides for this host" : "log in with a token of that role";
  return `This needs the role ${needed}; yours is ${session.role ?? "none"}: ${how}.`;
}

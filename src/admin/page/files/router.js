// Where we are: `#/view?key=value`. The address says everything that is open, so that it can be sent to somebody.

const listeners = new Set();

/** The view, and what else the address says. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(query));
  return { view: path || "overview", params };
}

/** The address of a view. */
export function address(view, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** The address of the panel of a frontend, backend or server (`names`: backend, server), over the present view. */
export function panelAddress(kind, ...names) {
  const { view, params } = here();
  return address(view, { ...params, panel: [kind, ...names.map(encodeURIComponent)].join("/") });
}

/** The panel that is open: its kind and names; `null` if none is. */
export function panelOf(params) {
  if (!params.panel) return null;
  try {
    const [kind, ...names] = params.panel.split("/").map(decodeURIComponent);
    return { kind, names };
  } catch {
    return null;
  }
}

/** The address without the panel. */
export function closedAddress() {
  const { view, params } = here();
  return address(view, { ...params, panel: null });
}

/** Goes there. */
export function go(hash) {
  if (hash !== location.hash) location.hash = hash;
}

/** Has the address say what the view shows already. */
export function remember(hash) {
  history.replaceState(null, "", hash);
  tell(true);
}

/** The address but for the panel: another one is another view. */
export function viewKey() {
  const { view, params } = here();
  const { panel: _, ...others } = params;
  return address(view, others);
}

/** Calls `listener(place, isOwn)` when the address has changed; `isOwn`: the view itself has changed it. */
export function onRoute(listener) {
  listeners.add(listener);
}

function tell(isOwn) {
  const place = here();
  for (const listener of listeners) listener(place, isOwn);
}

window.addEventListener("hashchange", () => tell(false));

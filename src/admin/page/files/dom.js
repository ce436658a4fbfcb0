// Elements, made and kept up to date. Text is always text: nothing here parses markup, so no name, address or reason of a
// server can become any.

/** The namespace of SVG: that of the symbols in index.html. */
const SVG = document.querySelector("svg").namespaceURI;

/** An element with properties, listeners (`onclick`) and children: nodes, texts, or lists of them. */
export function el(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same of SVG, where everything is an attribute. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

/** Adds children: nodes, texts, numbers, lists of them; what is absent is left out. */
export function append(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** Puts these children in place of those there are. */
export function replace(node, ...children) {
  node.replaceChildren();
  return append(node, ...children);
}

/** Sets a text if it is another: an unchanged page costs nothing. */
export function text(node, value) {
  const wanted = value === null || value === undefined ? "" : String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Sets an attribute if it is another; `null` and `false` remove it. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

/** Sets one property of the style through the CSSOM, which the policy of the page allows. */
export function style(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

export function show(node, visible) {
  attr(node, "hidden", !visible);
}

/**
 * Children by key: those that stay are kept and updated, in order; others come and go.
 *
 * `make(item)` makes a node that has a method `update(item)` in `nodes`; `key(item)` is unique.
 */
export function keyed(parent, key, make) {
  let nodes = new Map();
  return (items) => {
    const next = new Map();
    let at = parent.firstChild;
    for (const item of items) {
      const name = key(item);
      const row = nodes.get(name) ?? make(item);
      row.update(item);
      next.set(name, row);
      if (row.node === at) at = at.nextSibling;
      else parent.insertBefore(row.node, at);
    }
    for (const [name, row] of nodes) if (next.get(name) !== row) row.node.remove();
    nodes = next;
  };
}

/** A text that only screen readers have. */
export function unseen(value) {
  return el("span", { class: "unseen" }, value);
}

/** A button. `kind`: "primary", "danger", "quiet", or nothing. */
export function button(label, onclick, kind, props) {
  return el("button", { type: "button", class: kind ? `button ${kind}` : "button", onclick, ...props }, label);
}

/** A table with headers. Columns are texts; those that begin with `#` hold numbers and are aligned to the right. */
export function table(caption, columns, body) {
  const heads = columns.map((name) => {
    const isNumber = name.startsWith("#");
    return el("th", { scope: "col", class: isNumber ? "number" : null }, isNumber ? name.slice(1) : name);
  });
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}, as a table` },
    el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, heads)), body),
  );
}

/** Terms with their values. Values that are absent are left out with their terms. */
export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  for (const [term, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("div", {}, el("dt", {}, term), el("dd", {}, value)));
  }
  return list;
}

/** What stands where there is nothing. */
export function empty(title, ...more) {
  return el(
    "div",
    { class: "empty" },
    el("p", { class: "empty-title" }, title),
    more.length ? el("p", {}, more) : null,
  );
}

export function code(value) {
  return el("code", {}, value);
}

/** Calls it when nothing has been asked of it for `ms`. */
export function debounce(ms, call) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...args), ms);
  };
}

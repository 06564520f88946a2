// What all parts of the cache browser use: elements, and questions to Python.
// Text always goes in as text. Nothing here reads HTML, so a stored question cannot become any.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((each) => each !== null));
  return node;
}

const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const drawing = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function button(label, key, does) {
  const title = key ? `${label} (key ${key})` : label;
  const node = element("button", { type: "button", class: "button", title, "aria-keyshortcuts": key || null }, label);
  node.addEventListener("click", does);
  return node;
}

const percent = (rate, digits = 2) => `${(100 * rate).toFixed(digits)}%`;

// Questions to Python and its replies. Views of one widget share its messages: each knows its own by the view's name.
function line(model) {
  const view = Math.random().toString(36).slice(2);
  const waiting = new Map();
  let count = 0;
  const hear = (message) => {
    const asked = message && waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if ("ok" in message) asked.resolve(message.ok);
    else asked.reject(new Error(message.error));
  };
  model.on("msg:custom", hear);
  return {
    ask: (what, words = {}) =>
      new Promise((resolve, reject) => {
        const id = `${view}:${(count += 1)}`;
        waiting.set(id, { resolve, reject, since: Date.now() });
        model.send({ ...words, id, ask: what });
      }),
    // Milliseconds that the oldest question waits.
    waits: () => Math.max(0, ...[...waiting.values()].map((each) => Date.now() - each.since)),
    close: () => model.off("msg:custom", hear),
  };
}

function remember(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

function later(wait_ms, does) {
  let timer = null;
  return (...words) => {
    clearTimeout(timer);
    timer = setTimeout(() => does(...words), wait_ms);
  };
}

// A page of the size of a test: the part of the DOM that the widgets use, and a person who types and clicks.
// Commands come in as lines of JSON on standard input, as do Python's replies; what the widget sends goes out.

import { createInterface } from "node:readline";

class Node {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), parent: null, children: [], attributes: {}, listeners: {} });
    Object.assign(this, { style: {}, value: "", scrollTop: 0, clientHeight: 0, hidden: false });
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  get className() { return this.attributes.class ?? ""; }
  set className(value) { this.attributes.class = value; }
  append(...nodes) {
    for (const each of nodes) {
      const node = typeof each === "object" ? each : Object.assign(new Node("#text"), { text: String(each) });
      node.remove();
      node.parent = this;
      this.children.push(node);
    }
  }
  prepend(node) { this.append(node); this.children.unshift(this.children.pop()); }
  remove() {
    if (this.parent) this.parent.children = this.parent.children.filter((each) => each !== this);
    this.parent = null;
  }
  replaceChildren(...nodes) { for (const each of [...this.children]) each.remove(); this.append(...nodes); }
  get textContent() { return this.text ?? this.children.map((each) => each.textContent).join(""); }
  set textContent(text) { this.replaceChildren(...(text === "" ? [] : [text])); }
  addEventListener(kind, hear) { (this.listeners[kind] ??= []).push(hear); }
  dispatch(kind, facts = {}) {
    const event = { ...facts, target: this, isStopped: false, defaultPrevented: false };
    event.stopPropagation = () => { event.isStopped = true; };
    event.preventDefault = () => { event.defaultPrevented = true; };
    for (let node = this; node && !event.isStopped; node = node.parent) {
      for (const hear of node.listeners[kind] ?? []) hear(event);
    }
    return event;
  }
  focus() { document.activeElement = this; }
  select() {}
  *walk() { yield this; for (const each of this.children) yield* each.walk(); }
}

globalThis.document = {
  hidden: false, activeElement: null,
  createElement: (tag) => new Node(tag),
  createElementNS: (space, tag) => new Node(tag),
};
globalThis.addEventListener = () => {};

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const [path, state] = process.argv.slice(2);
const page = new Node("body");
const traits = JSON.parse(state);
const hearers = new Set();
const model = {
  get: (name) => traits[name],
  set: (name, value) => { traits[name] = value; },
  save_changes: () => say({ saved: traits }),
  send: (message) => say({ sent: message }),
  on: (kind, hear) => hearers.add(hear),
  off: (kind, hear) => hearers.delete(hear),
};

// Like a selector: `.class`, `tag`, or `name=value` of an attribute.
function fits(node, wanted) {
  if (wanted.startsWith(".")) return node.className.split(" ").includes(wanted.slice(1));
  const [name, value] = wanted.split("=");
  return value === undefined ? node.tagName === wanted.toUpperCase() : node.getAttribute(name) === value;
}
const all = (wanted) => [...page.walk()].filter((node) => fits(node, wanted));
function first(wanted) {
  const found = all(wanted)[0];
  if (!found) throw new Error(`nothing fits ${wanted}`);
  return found;
}

const commands = {
  press: ({ key, at }) => {
    const event = (at ? first(at) : document.activeElement ?? page).dispatch("keydown", { key });
    return { escaped: !event.isStopped };
  },
  type: ({ text, at }) => {
    const node = at ? first(at) : document.activeElement;
    node.value = text;
    node.dispatch("input");
  },
  click: ({ at, text }) => {
    const node = all(at).find((each) => text === undefined || each.textContent === text);
    if (!node) throw new Error(`nothing fits ${at} ${text}`);
    node.dispatch("click");
  },
  scroll: ({ at, top }) => { const node = first(at); node.scrollTop = top; node.dispatch("scroll"); },
  texts: ({ at }) => all(at).map((node) => node.textContent),
  get: ({ at, name }) => all(at).map((node) => node.getAttribute(name)),
  focused: () => document.activeElement?.className,
  hidden: ({ at }) => first(at).hidden,
  tags: () => [...new Set([...page.walk()].map((node) => node.tagName))],
  close: () => { close(); return { hearers: hearers.size }; },
};

let close = () => {};
const widget = await import(path);
close = widget.default.render({ model, el: page });
createInterface({ input: process.stdin }).on("line", (text) => {
  const message = JSON.parse(text);
  if ("reply" in message) { for (const hear of hearers) hear(message.reply); return; }
  try {
    say({ did: message.number, gave: commands[message.does](message) ?? null });
  } catch (error) {
    say({ did: message.number, failed: error.message });
  }
}).on("close", () => process.exit(0));

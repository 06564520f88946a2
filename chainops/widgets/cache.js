// The cache browser: what is where, the keys, and when it looks again.

const EVERY = 5000; // milliseconds between looks at the statistics, while in sight
const BUSY = 1500; // milliseconds after which a waiting question is worth a word
const KEYS = [
  ["/", "search the questions"], ["↑ ↓ PgUp PgDn Home End", "select an entry"],
  ["Enter", "why would this question be served?"], ["w", "report as wrong, with a reason, and drop"],
  ["v", "verify"], ["d", "drop"], ["t", "try a question"], ["r", "look again now"],
  ["Esc", "leave a field or form: back to the list"], ["?", "show or hide these keys"],
];

function helpOf() {
  const rows = KEYS.map(([key, does]) => element("div", {}, element("kbd", {}, key), ` ${does}`));
  const node = element("div", { class: "help", role: "note", "aria-label": "Keys" }, ...rows);
  node.hidden = true;
  return node;
}

function render({ model, el }) {
  const to = line(model);
  const status = element("div", { class: "status", role: "status", "aria-live": "polite" });
  const say = (text, isError = false) => {
    status.textContent = text;
    status.className = isError ? "status failed" : "status";
  };
  const shared = { ask: to.ask, model, say };
  const help = helpOf();
  let seen = null; // entries at the last look

  const error = estimate({ ...shared, refreshed: (told) => {
    if (seen !== null && told.entries !== seen) list.reload();
    seen = told.entries;
  } });
  const tried = trying({ ...shared, show: (id) => detail.show(id) });
  const detail = entryDetail({ ...shared, attempt: tried.attempt, changed: async (what) => {
    if (what === "gone") { if (seen !== null) seen -= 1; await list.next(); } else await list.reload();
    await error.refresh();
  } });
  const list = entryList({ ...shared, choose: (id) => detail.show(id) });
  const look = () => Promise.all([list.reload(), error.refresh()]);

  const toggleHelp = () => { help.hidden = !help.hidden; };
  const root = element("div", {
    class: "chainops-cache", role: "region", "aria-label": model.get("title"), "data-lm-suppress-shortcuts": "true",
  },
  element("div", { class: "bar title" }, element("strong", {}, model.get("title")), status,
    button("Refresh", "r", look), button("Keys", "?", toggleHelp)),
  help, error.node, element("div", { class: "both" }, list.node, detail.node), tried.node);

  const toList = () => list.grid.focus();
  const does = {
    "/": () => { list.search.focus(); list.search.select(); }, t: () => { tried.question.focus(); tried.question.select(); },
    w: () => detail.act("wrong", toList), v: () => detail.act("verify"), d: () => detail.act("drop", toList),
    r: look, "?": toggleHelp,
  };
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // the notebook has its own meaning for letters
    if (event.defaultPrevented) return;
    const isWriting = event.target.tagName === "INPUT";
    if (event.key === "Escape") toList();
    else if (event.key === "Enter" && event.target === list.grid) detail.act("why");
    else if (!isWriting && does[event.key]) does[event.key]();
    else return;
    event.preventDefault();
  });
  el.append(root);

  let isInSight = true;
  const watcher = typeof IntersectionObserver === "undefined" ? null
    : new IntersectionObserver((entries) => { isInSight = entries.some((each) => each.isIntersecting); });
  if (watcher) watcher.observe(root);
  const looks = setInterval(() => { if (isInSight && !document.hidden) error.refresh(); }, EVERY);
  let isWaiting = false;
  const busy = setInterval(() => {
    if (to.waits() > BUSY) { isWaiting = true; say("Waiting for Python: a cell is running, or the kernel has stopped."); }
    else if (isWaiting) { isWaiting = false; say(""); }
  }, 500);

  look();
  if (model.get("selected")) detail.show(model.get("selected"));
  return () => {
    clearInterval(looks);
    clearInterval(busy);
    if (watcher) watcher.disconnect();
    to.close();
  };
}

export default { render };

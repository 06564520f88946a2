// The list of entries: only the rows in sight exist, and only their pages are asked for.

const ROW = 28; // pixels; the style sheet's .row has the same
const PAGE = 50;
const SPARE = 5; // rows drawn beyond the edges
const COLUMNS = ["question", "answer", "age", "served", "saved", "tenant"];

// First and last row (exclusive) to draw.
function window_of(top, height, total) {
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  return [first, Math.min(total, Math.ceil((top + height) / ROW) + SPARE)];
}

function entryList({ ask, model, say, choose }) {
  let pages = new Map(); // number of a page: its rows, or null while it is on its way
  let total = 0;
  let isWhole = true; // whether `total` is known, or more is found by going on
  let at = -1; // the selected row
  let containing = model.get("containing") || "";
  let round = 0; // answers to an earlier search are not for this one
  let isFinding = false;

  const search = element("input", {
    type: "search", class: "search", placeholder: "Search questions  ( / )", "aria-label": "Search the questions",
    "aria-keyshortcuts": "/",
  });
  search.value = containing;
  const count = element("span", { class: "dim", "aria-live": "polite" });
  const space = element("div", { class: "space", role: "presentation" });
  const grid = element("div", {
    class: "rows", role: "grid", tabindex: "0", "aria-label": "Cached answers, newest first", "aria-colcount": "6",
  }, space);
  const heads = COLUMNS.map((name) => element("span", { role: "columnheader", class: `cell ${name}` }, name));
  const node = element("div", { class: "list" },
    element("div", { class: "bar" }, search, count),
    element("div", { class: "row heads", role: "row", "aria-hidden": "true" }, ...heads),
    grid);

  const rowAt = (index) => (pages.get(Math.floor(index / PAGE)) || [])[index % PAGE];
  const height = () => grid.clientHeight || 10 * ROW;

  function drawn(index) {
    const row = rowAt(index);
    const cells = COLUMNS.map((name) => element("span", { role: "gridcell", class: `cell ${name}` },
      row ? String(row[name]) : name === "question" ? "…" : ""));
    if (row && row.verified) cells[0].append(element("span", { class: "tick", title: "verified" }, " ✓"));
    const made = element("div", {
      class: index === at ? "row chosen" : "row", role: "row", id: `${name_of_view}-${index}`,
      "aria-rowindex": index + 1, "aria-selected": String(index === at), style: `top:${index * ROW}px`,
    }, ...cells);
    made.addEventListener("click", () => { move(index); grid.focus(); });
    return made;
  }
  const name_of_view = `row-${Math.random().toString(36).slice(2)}`;

  function draw() {
    const [first, end] = window_of(grid.scrollTop, height(), total);
    space.style.height = `${total * ROW}px`;
    grid.setAttribute("aria-rowcount", isWhole ? total : -1);
    space.replaceChildren(...Array.from({ length: Math.max(0, end - first) }, (_, step) => drawn(first + step)));
    if (at >= first && at < end) grid.setAttribute("aria-activedescendant", `${name_of_view}-${at}`);
    else grid.removeAttribute("aria-activedescendant");
    const found = `${total.toLocaleString("en")}${isWhole ? "" : "+"}`;
    count.textContent = isFinding ? "…" : total ? `${found} ${containing ? "found" : total === 1 ? "entry" : "entries"}`
      : containing ? "nothing found" : "nothing stored yet";
  }

  async function load(page) {
    if (pages.has(page)) return;
    pages.set(page, null);
    const [mine, store] = [round, pages];
    try {
      const reply = await ask("page", { containing, offset: page * PAGE, limit: PAGE });
      if (mine !== round) return;
      isFinding = false;
      store.set(page, reply.rows);
      const seen = reply.offset + reply.rows.length;
      if (reply.total !== null) [total, isWhole] = [reply.total, true];
      else if (reply.rows.length === 0 && page > 0) total = Math.min(total, reply.offset); // there were more before
      else if (!reply.more) [total, isWhole] = [seen, true];
      else if (seen > total) [total, isWhole] = [seen, false];
      draw();
    } catch (error) {
      store.delete(page);
      isFinding = false;
      say(error.message, true);
    }
  }

  // Pages that are only flown over are not asked for.
  const need = later(40, () => {
    const [first, end] = window_of(grid.scrollTop, height(), Math.max(total, 1) + (isWhole ? 0 : PAGE));
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(first, end - 1) / PAGE); page += 1) load(page);
  });

  const chosen = later(60, (row) => choose(row.id));

  async function move(to) {
    if (!total) return;
    at = Math.max(0, Math.min(total - 1, to));
    if (at * ROW < grid.scrollTop) grid.scrollTop = at * ROW;
    else if ((at + 1) * ROW > grid.scrollTop + height()) grid.scrollTop = (at + 1) * ROW - height();
    draw();
    const [wanted, mine] = [at, round];
    if (!rowAt(at)) await load(Math.floor(at / PAGE));
    need();
    if (wanted === at && mine === round && rowAt(at)) chosen(rowAt(at));
  }

  // Ask again for what is in sight; the selected row stays, or what took its place.
  async function reload({ from_top = false } = {}) {
    round += 1;
    pages = new Map();
    if (from_top) [grid.scrollTop, at, total, isFinding] = [0, -1, 0, true];
    await load(Math.floor(window_of(grid.scrollTop, height(), Infinity)[0] / PAGE));
    if (at >= total) at = total - 1;
    draw();
    need();
  }

  async function find() {
    if (containing === search.value) return;
    containing = search.value;
    remember(model, "containing", containing);
    await reload({ from_top: true });
  }
  search.addEventListener("input", later(150, find));
  search.addEventListener("keydown", async (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    grid.focus();
    await find(); // who types fast means what was found for all of it
    move(Math.max(at, 0));
  });
  grid.addEventListener("scroll", () => { draw(); need(); });
  grid.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(height() / ROW) - 1);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: total - 1 };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(steps[event.key]);
  });

  return {
    node, search, grid, reload,
    // The selected row is gone: the next one takes its place.
    next: async () => { await reload(); if (total) await move(at); else choose(""); },
    total: () => (containing ? null : total),
  };
}

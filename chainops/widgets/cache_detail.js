// One entry in full, and what can be done about it.

function entryDetail({ ask, model, say, changed, attempt }) {
  const node = element("div", { class: "detail", role: "region", "aria-label": "The selected entry" });
  let shown = null;
  let form = null;

  function list(title, items) {
    return items.length ? element("div", {}, element("h4", {}, title), element("ul", {}, ...items)) : null;
  }

  function draw() {
    form = null;
    if (!shown) {
      node.replaceChildren(element("p", { class: "dim" }, "Select an entry to see its answer and where it came from."));
      return;
    }
    const actions = element("div", { class: "actions" },
      button("Wrong…", "w", () => act("wrong")),
      shown.verified ? null : button("Verify", "v", () => act("verify")),
      button("Drop…", "d", () => act("drop")),
      button("Why?", "Enter", () => act("why")));
    const facts = shown.facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
    const hidden = shown.hidden ? element("p", { class: "dim" }, `… and ${shown.hidden} more characters`) : null;
    const sources = shown.sources.map((each) =>
      element("li", {}, each.place, element("div", { class: "quote" }, each.quote)));
    node.replaceChildren(...[
      element("h3", {}, shown.question),
      element("div", { class: "answer" }, shown.answer),
      hidden, actions,
      list("Sources", sources),
      list("What it used", shown.used.map((each) => element("li", {}, each))),
      element("dl", {}, ...facts),
    ].filter((each) => each !== null));
  }

  async function show(id) {
    remember(model, "selected", id);
    if (!id) { shown = null; draw(); return; }
    try {
      const told = await ask("entry", { entry: id });
      if (model.get("selected") !== id) return;
      shown = told;
    } catch (error) {
      shown = null;
      say(error.message, true);
    }
    draw();
  }

  // `wrong` asks for a reason, `drop` whether it is meant; Escape leaves both.
  function openForm(what, back) {
    if (form) form.remove();
    const close = () => { if (form) form.remove(); form = null; back(); };
    const reason = element("input", { type: "text", "aria-label": "What is wrong with it?",
      placeholder: "What is wrong with it?" });
    const go = button(what === "wrong" ? "Drop as wrong" : "Drop it", null, () => send());
    const fields = what === "wrong" ? [reason, go] : [element("span", {}, "It will be asked anew next time."), go];
    form = element("div", { class: "form", role: "group", "aria-label": what === "wrong" ? "Report as wrong" : "Drop" },
      ...fields, button("Cancel", "Escape", close));
    async function send() {
      if (what === "wrong" && !reason.value.trim()) { say("Say in a few words what is wrong.", true); reason.focus(); return; }
      const words = { entry: shown.id, ...(what === "wrong" ? { reason: reason.value } : {}) };
      try {
        await ask(what, words);
        say(what === "wrong" ? "Reported as wrong and dropped." : "Dropped.");
        shown = null;
        draw();
        await changed("gone");
      } catch (error) {
        say(error.message, true);
      }
      back();
    }
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.preventDefault(); close(); }
      else if (event.key === "Enter" && event.target === reason) { event.preventDefault(); send(); }
    });
    node.prepend(form);
    (what === "wrong" ? reason : go).focus();
  }

  async function act(what, back = () => {}) {
    if (!shown) { say("Select an entry first."); return; }
    if (what === "why") { attempt(shown.question); return; }
    if (what !== "verify") { openForm(what, back); return; }
    try {
      const { id } = shown;
      await ask("verify", { entry: id });
      say("Verified: with `share: all` it may now be served to other tenants.");
      await show(id);
      await changed("verified");
    } catch (error) {
      say(error.message, true);
    }
  }

  draw();
  return { node, show, act };
}

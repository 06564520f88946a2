// A question tried (why it would be served, or asked), and the error estimate.

const SHOWN_PARTS = 10;

function trying({ ask, model, say, show }) {
  const question = element("input", { type: "text", class: "tried", placeholder: "Try a question  ( t )",
    "aria-label": "Try a question: would it be served from the cache?", "aria-keyshortcuts": "t" });
  const tenant = element("input", { type: "text", class: "tenant", placeholder: "as tenant",
    "aria-label": "On behalf of which tenant" });
  question.value = model.get("question") || "";
  tenant.value = model.get("tenant") || "";
  const told = element("div", { class: "told", "aria-live": "polite" });
  const node = element("section", { class: "trying", "aria-label": "Try a question" },
    element("div", { class: "bar" }, question, tenant, button("Explain", null, () => explain())), told);

  function neighbours(all) {
    const rows = all.map((each) => {
      const open = button(each.question, null, () => show(each.entry));
      open.className = "link";
      return element("tr", {},
        element("td", { class: "number" }, each.similarity.toFixed(3)),
        element("td", {}, element("span", { class: each.same_answer ? "badge good" : "badge bad" },
          each.same_answer ? "same" : "another")),
        element("td", {}, open));
    });
    const heads = ["similarity", "answer", "stored question"].map((name) => element("th", { scope: "col" }, name));
    return rows.length ? element("table", { "aria-label": "Neighbours, nearest first" },
      element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)) : null;
  }

  // To the right what speaks for "wrong", to the left what speaks against it.
  function bars(parts) {
    const most = Math.max(...parts.map((each) => Math.abs(each.log_odds)), 1e-9);
    const rows = parts.slice(0, SHOWN_PARTS).map(({ feature, value, log_odds }) => {
      const width = 50 * Math.abs(log_odds) / most;
      const bar = element("span", { class: log_odds > 0 ? "bar-in bad" : "bar-in good",
        style: `left:${log_odds > 0 ? 50 : 50 - width}%;width:${width}%` });
      const number = typeof value === "number" ? ` = ${Number(value.toPrecision(3))}` : "";
      return element("tr", {}, element("td", {}, `${feature}${number}`),
        element("td", { class: "bar-cell", "aria-hidden": "true" }, bar),
        element("td", { class: "number" }, `${log_odds > 0 ? "+" : "−"}${Math.abs(log_odds).toFixed(2)}`));
    });
    return parts.length ? element("table", { class: "bars" }, element("caption", {},
      "What adds to the log odds of a wrong answer (+, right) and takes from them (−, left)"), element("tbody", {}, ...rows))
      : null;
  }

  function drawn(reply) {
    const decision = reply.match ? `served (${reply.match})` : "asked";
    const risk = reply.risk === null ? null
      : element("div", {}, `risk ${percent(reply.risk)}, allowed now ${percent(reply.limit ?? 0)}`);
    const changes = reply.would_change.slice(0, 6).map((each) => element("li", {}, each));
    return [
      element("div", {}, element("span", { class: reply.match ? "badge good" : "badge" }, decision), ` ${reply.reason}`),
      reply.standalone === reply.question ? null : element("div", { class: "dim" }, `stands alone as: ${reply.standalone}`),
      risk,
      reply.answer === null ? null : element("div", { class: "answer short" }, reply.answer),
      neighbours(reply.neighbours), bars(reply.contributions),
      changes.length ? element("div", {}, element("h4", {}, "What would change it"), element("ul", {}, ...changes)) : null,
    ].filter((each) => each !== null);
  }

  async function explain() {
    remember(model, "question", question.value);
    remember(model, "tenant", tenant.value);
    try {
      told.replaceChildren(...drawn(await ask("explain", { question: question.value, tenant: tenant.value })));
    } catch (error) {
      told.replaceChildren();
      say(error.message, true);
    }
  }

  for (const field of [question, tenant]) {
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); explain(); }
    });
  }
  return { node, question, attempt: (text) => { question.value = text; return explain(); } };
}

// The right end of the scale: the bound stands at most in the middle, unless the interval needs more room.
const scale_of = ({ bound, upper }) => Math.min(1, Math.max(2 * (bound ?? 0), Math.min(upper, 1), 1e-4) * 1.1);

function errorBar(told) {
  const [width, most] = [360, scale_of(told)];
  const x = (rate) => ((Math.min(rate, most) / most) * width + 8).toFixed(1);
  const bound = told.bound ?? 0;
  const state = told.bound === null ? "" : told.upper <= bound ? "good" : told.lower <= bound ? "open" : "bad";
  const says = `measured error ${percent(told.error_rate)}, between ${percent(told.lower)} and ${percent(told.upper)}`;
  const limit = told.bound === null ? [] : [
    drawing("line", { x1: x(bound), y1: 4, x2: x(bound), y2: 30, class: "bound" }),
    drawing("text", { x: Number(x(bound)) + 4, y: 42 }, `bound ${percent(bound, 1)}`)];
  return drawing("svg", { viewBox: `0 0 ${width + 90} 46`, class: `error ${state}`, role: "img",
    "aria-label": told.bound === null ? says : `${says}; bound ${percent(bound)}` },
    drawing("line", { x1: x(0), y1: 17, x2: x(most), y2: 17, class: "axis" }),
    drawing("line", { x1: x(told.lower), y1: 17, x2: x(told.upper), y2: 17, class: "interval" }),
    drawing("circle", { cx: x(told.error_rate), cy: 17, r: 5 }),
    ...limit, drawing("text", { x: width + 14, y: 21 }, percent(most, 1)));
}

function estimate({ ask, say, refreshed }) {
  const body = element("div", { class: "estimate-body" });
  const node = element("section", { class: "estimate", "aria-label": "Error estimate and savings" }, body);
  let asking = false;

  function draw(told) {
    const kinds = [...Object.entries(told.hits), ["missed", told.missed]];
    const share = element("div", { class: "share", "aria-hidden": "true" }, ...kinds.map(([kind, count]) =>
      element("span", { class: kind, title: `${count} ${kind}`, style: `flex-grow:${count}` })));
    const words = kinds.map(([kind, count]) => element("span", { class: `kind ${kind}` }, `${count.toLocaleString("en")} ${kind}`));
    body.replaceChildren(
      element("div", {}, element("div", {}, element("b", {}, told.rule)),
        told.audits ? errorBar(told) : element("div", { class: "dim" }, "No audits yet: the error is not measured."),
        element("div", { class: "dim" }, told.standing)),
      element("div", {}, element("div", {}, `${percent(told.hit_rate, 1)} of ${told.requests.toLocaleString("en")} requests served`),
        share, element("div", { class: "kinds" }, ...words),
        element("div", { class: "dim" }, `saved ${told.saved}; ${told.audited}`),
        element("div", { class: "dim" }, `${told.entries.toLocaleString("en")} entries, ${told.size_mb.toFixed(1)} MB`)));
  }

  async function refresh() {
    if (asking) return; // Python is busy: one question in line is enough
    asking = true;
    try {
      const told = await ask("stats");
      draw(told);
      refreshed(told);
    } catch (error) {
      say(error.message, true);
    }
    asking = false;
  }
  return { node, refresh };
}

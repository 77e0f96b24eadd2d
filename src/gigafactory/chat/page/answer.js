// An answer as elements. Everything that people wrote goes in as text: no string is ever read as markup.

const MARKS = { supported: "✓", partly: "~", contradicted: "✗", unsupported: "?" };
const WORDS = { supported: "", partly: "partly supported", contradicted: "contradicted", unsupported: "not supported" };

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null));
  return element;
}

// What turns the direction of writing stays inside its own element.
function bdi(text) {
  return make("bdi", "", text);
}

export function utc(iso) {
  return iso.slice(0, 10) + " " + iso.slice(11, 19) + " UTC";
}

export function span(seconds) {
  for (const [unit, name] of [[86400, "days"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return (seconds / unit).toFixed(1) + " " + name;
  }
  return seconds.toFixed(1) + " s";
}

function time(iso) {
  const element = make("time", "", utc(iso));
  element.dateTime = iso;
  element.title = new Date(iso).toLocaleString() + " here";
  return element;
}

// Only http and https are followed; the server has checked that too.
function link(url) {
  if (!/^https?:\/\//i.test(url)) return null;
  const a = make("a", "", "open");
  a.href = url;
  a.target = "_blank";
  a.rel = "noopener noreferrer nofollow";
  return a;
}

function post(citation, prefix, className = "post") {
  const by = make("div", "by", "[" + citation.n + "] ", make("b", "", bdi("@" + citation.author)), " · ",
    time(citation.created_at), " · ", bdi(citation.source));
  const a = link(citation.url);
  if (a) by.append(" · ", a);
  const item = make("li", className, by, make("blockquote", "", bdi(citation.quote)));
  item.id = prefix + citation.n;
  item.dir = "auto";
  return item;
}

function posts(title, citations, prefix) {
  const seen = new Map(citations.map((citation) => [citation.n, citation]));
  if (!seen.size) return [];
  return [make("h3", "", title), make("ul", "posts", ...[...seen.values()].map((one) => post(one, prefix)))];
}

function pointer(n, prefix) {
  const button = make("button", "to", "[" + n + "]");
  button.type = "button";
  button.setAttribute("aria-label", "post " + n);
  button.addEventListener("click", () => {
    for (const lit of document.querySelectorAll(".post.lit")) lit.classList.remove("lit");
    const target = document.getElementById(prefix + n);
    if (!target) return;
    target.classList.add("lit");
    target.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  return button;
}

function sentence(claim, prefix) {
  const numbers = [...new Set(claim.citations.map((citation) => citation.n))];
  const said = make("div", "", make("span", "said", bdi(claim.text)), " ", ...numbers.map((n) => pointer(n, prefix)));
  const why = [WORDS[claim.verdict], claim.reasons.join("; ")].filter(Boolean).join(": ");
  if (why) said.append(make("div", "verdict", why));
  const mark = make("span", "mark", MARKS[claim.verdict] || "?");
  mark.title = (WORDS[claim.verdict] || "supported") + ", support " + claim.support.toFixed(2);
  mark.setAttribute("aria-label", claim.verdict);
  const known = claim.verdict in MARKS ? claim.verdict : "unsupported";
  return make("li", known, mark, said);
}

function touched(touch) {
  const why = touch.change === "deleted" ? "was deleted" + (touch.reason ? " (" + touch.reason + ")" : "") : "was edited";
  return make("p", "", "A post that this answer showed " + why + " at ", time(touch.at), "; the answer was changed.");
}

// An older statement and, unless it stands above already, the newer one in its place.
function replaced(pair, prefix, above) {
  const item = post(pair.old, prefix + "old-", "post old");
  const now = make("div", "by", "replaced by ", pointer(pair.new.n, prefix), make("b", "", bdi("@" + pair.new.author)),
    " · ", time(pair.new.created_at));
  if (!above.has(pair.new.n)) now.append(make("div", "now", bdi(pair.new.quote)));
  item.append(now);
  return item;
}

function footer(answer) {
  const parts = ["as of " + utc(answer.as_of)];
  if (answer.freshness_ms !== null) parts.push("newest post " + span(answer.freshness_ms / 1000) + " old");
  if (answer.window.since || answer.window.until) {
    parts.push("posts " + (answer.window.since ? "from " + utc(answer.window.since) + " " : "")
      + (answer.window.until ? "to " + utc(answer.window.until) : ""));
  }
  const cost = answer.cost;
  parts.push(cost.posts_read + " posts read", cost.ms.toFixed(0) + " ms");
  if (cost.output_tokens) parts.push(cost.prompt_tokens + " + " + cost.output_tokens + " tokens");
  parts.push("$" + cost.usd.toFixed(4), "worded by " + answer.written_by);
  if (!answer.complete) parts.push("the search was cut by its time limit");
  return make("p", "foot", parts.join(" · "));
}

// answer: as /v1/answers gives it. prefix: makes the ids of its posts unlike those of other answers.
export function render(answer, prefix) {
  const box = make("div", "answer");
  if (answer.touched.length) box.append(make("div", "changed", ...answer.touched.map(touched)));
  if (answer.claims.length) {
    box.append(make("ul", "claims", ...answer.claims.map((claim) => sentence(claim, prefix))));
  } else if (answer.written_by !== "quotes" && !answer.abstained && !answer.nearest.length) {
    box.append(make("p", "note", "Free text of " + answer.written_by + ": it rests on no post."));
    box.append(make("p", "free", bdi(answer.text)));
  } else {
    box.append(make("p", "", bdi(answer.text)));
  }
  box.append(...posts("Posts", answer.claims.flatMap((claim) => claim.citations), prefix));
  if (!answer.claims.length) box.append(...posts("Nearest posts", answer.nearest, prefix));
  if (answer.superseded.length) {
    box.append(make("h3", "", "Superseded"));
    const above = new Set(answer.claims.flatMap((claim) => claim.citations.map((citation) => citation.n)));
    box.append(make("ul", "posts", ...answer.superseded.map((pair) => replaced(pair, prefix, above))));
  }
  if (answer.removed.length) {
    const lines = answer.removed.map((claim) => make("li", "", bdi(claim.text), " (" + claim.reasons.join("; ") + ")"));
    box.append(make("details", "", make("summary", "", "Taken out by the check: " + answer.removed.length),
      make("ul", "", ...lines)));
  }
  box.append(footer(answer));
  return box;
}

// The page: asks, shows what was answered, and follows what becomes of it.
import { make, render, span, utc } from "/answer.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2000;
let conversation = "";
let serial = null; // of the store: rises when a post is edited or deleted
let asking = false;

async function call(path, options = {}) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = "Bearer " + key;
  if (options.body) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401) {
    await askForKey();
    return call(path, options);
  }
  if (!reply.ok) {
    const body = await reply.json().catch(() => null);
    const after = reply.headers.get("Retry-After");
    const wait = after ? " (again in " + after + " s)" : "";
    throw new Error(((body && body.error && body.error.message) || "the server answered " + reply.status) + wait);
  }
  return reply;
}

let keyAsked = null; // one dialog, however many calls need the key
function askForKey() {
  keyAsked ??= new Promise((resolve) => {
    $("key").addEventListener("close", () => {
      sessionStorage.setItem("key", $("secret").value.trim());
      $("secret").value = "";
      keyAsked = null;
      resolve();
    }, { once: true });
    $("key").showModal();
  });
  return keyAsked;
}

function turn(question, ...content) {
  const element = make("section", "turn", make("h2", "asked", make("bdi", "", question)), ...content);
  element.dir = "auto";
  return element;
}

function show(answers) {
  $("welcome").hidden = answers.length > 0;
  $("thread").replaceChildren(...answers.map((one) => turn(one.question, render(one, "p" + one.id + "-"))));
}

async function openConversation(id) {
  const reply = await call("/v1/conversations/" + encodeURIComponent(id));
  show((await reply.json()).answers);
  conversation = id;
  await listConversations();
}

async function listConversations() {
  const list = (await (await call("/v1/conversations")).json()).data;
  $("conversations").replaceChildren(...list.map((one) => {
    const title = make("button", "title", make("bdi", "", one.title));
    title.type = "button";
    title.title = utc(one.asked_at);
    title.setAttribute("aria-current", String(one.id === conversation));
    title.addEventListener("click", () => openConversation(one.id).catch(complain));
    const drop = make("button", "drop", "×");
    drop.type = "button";
    drop.setAttribute("aria-label", "Delete this conversation");
    drop.addEventListener("click", () => dropConversation(one.id).catch(complain));
    return make("li", "", title, drop);
  }));
}

async function dropConversation(id) {
  await call("/v1/conversations/" + encodeURIComponent(id), { method: "DELETE" });
  if (id === conversation) begin();
  await listConversations();
}

function begin() {
  conversation = "";
  show([]);
  $("question").focus();
}

function handles(text) {
  return text.split(/[\s,]+/).filter(Boolean);
}

function request(question) {
  const search = { type: "x_search" };
  if ($("from").value) search.from_date = $("from").value;
  if ($("to").value) search.to_date = $("to").value;
  if ($("only").value.trim()) search.allowed_x_handles = handles($("only").value);
  if ($("not").value.trim()) search.excluded_x_handles = handles($("not").value);
  const body = { model: $("model").value || "grok", input: question, tools: [search] };
  body.timezone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  if (conversation) body.conversation = conversation;
  return body;
}

async function ask(question) {
  const waiting = make("p", "free", make("span", "dots", "…"));
  const pending = turn(question, make("div", "answer waiting", waiting));
  $("welcome").hidden = true;
  $("thread").append(pending);
  pending.scrollIntoView({ block: "start" });
  try {
    const body = request(question);
    const free = body.model !== "grok";
    const reply = await call("/v1/responses", { method: "POST", body: JSON.stringify({ ...body, stream: free }) });
    const made = free ? await streamed(reply, waiting) : await reply.json();
    conversation = made.conversation.id;
    const answer = await (await call("/v1/answers/" + made.answer_id)).json();
    pending.replaceWith(turn(question, render(answer, "p" + answer.id + "-")));
    listConversations().catch(complain);
  } catch (error) {
    pending.replaceWith(turn(question, make("div", "answer", make("p", "wrong", error.message))));
  }
}

// The events of a streamed response: text as it is written, and the whole in the end.
async function streamed(reply, place) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the answer was cut off");
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (!data) continue;
      const told = JSON.parse(data.slice(6));
      if (told.type === "response.output_text.delta") place.append(told.delta);
      if (told.type === "response.completed" || told.type === "response.incomplete") return told.response;
      if (told.type === "error" || told.type === "response.failed") throw new Error(told.message || "the model failed");
    }
  }
}

function complain(error) {
  $("state").textContent = error.message;
  $("state").classList.add("lost");
}

function sourceLines(source) {
  const facts = [source.kind + ", " + source.state, source.posts + " posts, " + source.posts_per_s.toFixed(1) + "/s"];
  if (source.source_delay_p50_s !== null) facts.push("reaches us after " + span(source.source_delay_p50_s));
  if (source.searchable_p99_s !== null) facts.push("searchable after " + span(source.searchable_p99_s) + " (p99)");
  if (source.budget_usd !== null || source.spent_usd) {
    const of = source.budget_usd === null ? "" : " of $" + source.budget_usd.toFixed(2);
    facts.push("spent $" + source.spent_usd.toFixed(2) + of);
  }
  if (source.last_error) facts.push("last error: " + source.last_error);
  return [make("dt", source.state, make("bdi", "", source.name)), ...facts.map((fact) => make("dd", "", fact))];
}

function offer(examples) {
  for (const button of $("welcome").querySelectorAll("button")) button.remove();
  $("welcome").append(...examples.map((example) => {
    const button = make("button", "", example);
    button.type = "button";
    button.addEventListener("click", () => {
      $("question").value = example;
      $("ask").requestSubmit();
    });
    return button;
  }));
}

async function look() {
  const status = await (await call("/status")).json();
  const newest = status.newest_created_at;
  const age = newest ? Math.max(0, (Date.parse(status.now) - Date.parse(newest)) / 1000) : null;
  const facts = [status.posts.toLocaleString("en") + " posts"];
  facts.push(age === null ? "none yet" : "newest " + span(age) + " old", "it is " + utc(status.now));
  if (status.trouble) facts.push(status.trouble);
  $("state").textContent = facts.join(" · ");
  $("state").classList.toggle("lost", Boolean(status.trouble));
  const sources = status.feed ? status.feed.sources : [];
  if (sources.length) $("sources").replaceChildren(make("dl", "", ...sources.flatMap(sourceLines)));
  else $("sources").replaceChildren(make("p", "", "No source is being read."));
  if ($("model").options.length !== status.models.length) {
    const names = status.models.map((name) => make("option", "", name));
    names.forEach((option) => (option.value = option.textContent));
    names[0].textContent = "grok: from posts";
    $("model").replaceChildren(...names);
    $("model").hidden = names.length < 2;
  }
  if ($("welcome").querySelectorAll("button").length !== status.examples.length) offer(status.examples);
  const changed = serial !== null && status.serial !== serial;
  serial = status.serial;
  if (changed && conversation && !asking) {
    const reply = await call("/v1/conversations/" + encodeURIComponent(conversation));
    show((await reply.json()).answers);
  }
}

async function watch() {
  try {
    if (!document.hidden) await look();
  } catch (error) {
    complain(error);
  }
  setTimeout(watch, POLL_MS);
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || asking) return;
  asking = true;
  $("send").disabled = true;
  $("question").value = "";
  await ask(question);
  asking = false;
  $("send").disabled = false;
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("new").addEventListener("click", begin);
if (matchMedia("(max-width: 760px)").matches) for (const id of ["feed", "past"]) $(id).open = false;
watch();
listConversations().catch(complain);

// The Jobs page: sends pictures, follows their jobs by the one stream, and shows each answer. Everything that comes from
// the server or from a file goes into the page as text, never as markup.

import { $, say, template } from "./dom.js";
import { bytes, milliseconds, number, score, sentence, span, timeOfDay, utc } from "./format.js";
import { listen } from "./listen.js";
import { ServerClock } from "./stream.js";

const root = document.documentElement;
const API = root.dataset.api;
const MOST_BYTES = Number(root.dataset.mostBytes);
const PAGE = 30;
const SENDING_AT_ONCE = 2;
const MANY = 12; // more changed jobs than this are read as one page
const LONG_WAIT_MS = 10_000;
const COUNT_EVERY_MS = 500;
const PREVIEW_PX = 512;

const clock = new ServerClock();
const jobs = new Map(); // id -> job, all that the page knows
const items = new Map(); // id -> its row in the history
const previews = new Map(); // id -> canvas, until the server has a picture
const mine = new Set(); // ids of jobs sent from here, to be announced
let listed = []; // ids in the order of the history
let older = null; // cursor of the page after
let wanted = ""; // the state shown; "" for all
let chosen = null; // id of the job shown large
let chosenByHand = false;
let waiting = []; // files to be sent
let sendingNow = 0;
let trouble = null;
let linkOpen = false;
let heard = false;
let version = null;
let changed = new Set(); // ids to read again; null for everything
let reading = false;

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// -- the stream, shared with all tabs ------------------------------------------------------------------------------------

function take({ kind, content }) {
  if (kind === "link") {
    if (content.open && !linkOpen) note(null);
    linkOpen = content.open;
  } else {
    heard = true;
    clock.note(Date.parse(content.now));
    if (kind === "trouble") trouble = content.trouble;
    if (kind === "snapshot") {
      trouble = null;
      version = content.version;
      note(null);
    }
    if (kind === "jobs") note(content.jobs);
  }
  drawLink();
}

function drawLink() {
  const [link, text] = !heard
    ? ["connecting", "Connecting"]
    : !linkOpen ? ["lost", "Reconnecting"] : trouble ? ["lost", "Server in trouble"] : ["live", "Live"];
  document.body.dataset.link = link;
  say($("link-text"), text);
  let banner = "";
  if (trouble) banner = `${sentence(trouble.text)}. ${sentence(trouble.cure)}.`;
  else if (version && version !== root.dataset.version) banner = "The server has a newer version of this page: reload to get it.";
  say($("banner"), banner);
  $("banner").hidden = banner === "";
}

// -- reading -------------------------------------------------------------------------------------------------------------

/** Read some jobs again, or with null all that is shown; many notes in a row cost one reading. */
function note(ids) {
  if (ids === null || changed === null || changed.size + ids.length > MANY) changed = null;
  else for (const id of ids) changed.add(id);
  read();
}

async function read() {
  if (reading) return;
  reading = true;
  try {
    while (changed === null || changed.size > 0) {
      const ids = changed;
      changed = new Set();
      if (ids === null) await readPage();
      else await Promise.all([...ids].map(readOne));
      count();
    }
  } catch {
    setTimeout(() => note(null), 2_000); // the stream tells of the trouble; this only tries again
  } finally {
    reading = false;
  }
}

async function ask(path) {
  const response = await fetch(`${API}${path}`, { cache: "no-store" });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.json();
}

async function readPage(cursor = null) {
  const filter = wanted ? `&state=${wanted}` : "";
  const now = wanted;
  const page = await ask(`/jobs?limit=${PAGE}${filter}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  if (now !== wanted) return note(null);
  const running = wanted === "queued" && !cursor ? await ask(`/jobs?limit=${PAGE}&state=running`) : { jobs: [] };
  const found = [...running.jobs, ...page.jobs];
  for (const job of found) know(job);
  const ids = found.map((job) => job.id);
  listed = cursor ? [...listed, ...ids.filter((id) => !listed.includes(id))] : ids;
  older = page.next;
  drawAll();
}

async function readOne(id) {
  const job = await ask(`/jobs/${id}`);
  if (job === null) {
    listed = listed.filter((other) => other !== id);
    jobs.delete(id);
  } else {
    know(job);
    place(job);
  }
  drawAll();
}

function know(job) {
  const before = jobs.get(job.id);
  jobs.set(job.id, job);
  if (job.picture_url) previews.delete(job.id);
  if (mine.has(job.id) && isOver(job) && !(before && isOver(before))) {
    say($("announce"), `${job.name || "Picture"}: ${headline(job)}${job.result ? `, ${score(job.result.score)}` : ""}`);
  }
}

function isOver(job) {
  return job.finished_at !== null;
}

function fits(job) {
  return wanted === "" || job.state === wanted || (wanted === "queued" && job.state === "running");
}

/** Put a job where its age puts it, or take it out when it does not belong to what is shown. */
function place(job) {
  const at = listed.indexOf(job.id);
  if (!fits(job)) {
    if (at >= 0) listed.splice(at, 1);
    return;
  }
  if (at >= 0) return;
  const after = listed.findIndex((id) => jobs.get(id).created_at < job.created_at);
  if (after >= 0) listed.splice(after, 0, job.id);
  else if (older === null) listed.push(job.id);
}

let counting = null;
function count() {
  counting ??= setTimeout(async () => {
    counting = null;
    try {
      drawSummary(await ask("/jobs-summary"));
    } catch {
      // told by the stream
    }
  }, COUNT_EVERY_MS);
}

function drawSummary(counts) {
  const open = counts.queued + counts.running;
  const parts = [open ? `${number(open)} waiting` : "", counts.done ? `${number(counts.done)} done` : ""];
  const lost = counts.failed + counts.dead;
  if (lost) parts.push(`${number(lost)} without an answer`);
  say($("summary"), parts.filter(Boolean).join(" · ") || "No jobs yet");
}

// -- words ---------------------------------------------------------------------------------------------------------------

const ICONS = {
  queued: "M10 5.5V10l3 2M17 10a7 7 0 1 1-14 0 7 7 0 0 1 14 0z",
  running: "M10 5.5V10l3 2M17 10a7 7 0 1 1-14 0 7 7 0 0 1 14 0z",
  done: "M4 14l4-4 3 3 2-2 3 3M3 4.5h14v11H3z",
  failed: "M10 6v5M10 13.6v.2M10 2.8l7.6 13.4H2.4z",
  dead: "M10 6v5M10 13.6v.2M10 2.8l7.6 13.4H2.4z",
};

function headline(job) {
  if (job.state === "queued") return job.attempts ? "Waiting for another try" : "Waiting";
  if (job.state === "running") return "Looking at it";
  if (job.state === "failed") return "Cannot be read";
  if (job.state === "dead") return "Given up";
  return job.result.known ? job.result.title : "Not recognised";
}

function tone(job) {
  if (job.state === "failed" || job.state === "dead") return "bad";
  return job.state === "done" && job.result.known ? "sure" : "soft";
}

function explain(job) {
  const { result } = job;
  if (job.state === "queued" && job.attempts) return `Try ${job.attempts + 1} follows shortly`;
  if (job.state === "queued") {
    const long = clock.now() - Date.parse(job.created_at) > LONG_WAIT_MS;
    return long ? "No worker has taken it yet. See that one runs: shelfwire-cloud worker" : "In the queue for the next free worker";
  }
  if (job.state === "running") return job.attempts > 1 ? `Try ${job.attempts}` : "A worker has it";
  if (!result) return "";
  if (result.known) return `${score(result.score)} sure`;
  return `Too unsure to say. Best guess: ${result.top[0].title}, ${score(result.score)}`;
}

function ageOf(moment) {
  const seconds = Math.max(0, (clock.now() - Date.parse(moment)) / 1000);
  if (seconds < 10) return "just now";
  return seconds < 3600 ? `${span(seconds)} ago` : timeOfDay(moment, clock.now());
}

// -- history -------------------------------------------------------------------------------------------------------------

function drawAll() {
  drawHistory();
  if (!chosenByHand || !jobs.has(chosen)) chosen = listed[0] ?? (jobs.has(chosen) ? chosen : null);
  for (const [id, item] of items) item.open.setAttribute("aria-current", String(id === chosen));
  drawAnswer();
}

function drawHistory() {
  for (const [id, item] of items) {
    if (listed.includes(id)) continue;
    item.element.remove();
    items.delete(id);
  }
  listed.forEach((id, at) => {
    let item = items.get(id);
    if (item === undefined) items.set(id, item = newItem(id));
    const list = $("jobs");
    if (list.children[at] !== item.element) list.insertBefore(item.element, list.children[at] ?? null);
    drawItem(item, jobs.get(id));
  });
  $("jobs-more").hidden = older === null;
  $("jobs-none").hidden = listed.length > 0 || (wanted === "" && jobs.size === 0);
}

function newItem(id) {
  const element = template("job-template");
  const one = (selector) => element.querySelector(selector);
  const item = {
    element, open: one(".job-open"), thumb: one(".job-thumb"), label: one(".job-label"), name: one(".job-name"),
    age: one(".job-age"), score: one(".job-score"), bar: one(".job-bar"), fill: one(".fill"), shown: null,
  };
  element.dataset.id = id;
  item.open.addEventListener("click", () => choose(id));
  return item;
}

function drawItem(item, job) {
  item.element.dataset.state = job.state;
  item.element.dataset.tone = tone(job);
  say(item.label, headline(job));
  say(item.name, job.name);
  say(item.age, ageOf(job.created_at));
  say(item.score, job.result ? score(job.result.score) : "");
  item.bar.hidden = tone(job) === "bad";
  if (job.result) item.fill.style.setProperty("--part", String(job.result.score));
  drawThumb(item, job);
}

function drawThumb(item, job) {
  const shown = job.picture_url ?? `${job.state}${previews.has(job.id)}`;
  if (item.shown === shown) return;
  item.shown = shown;
  if (job.picture_url) item.thumb.replaceChildren(picture(job));
  else if (previews.has(job.id)) item.thumb.replaceChildren(copyOf(previews.get(job.id)));
  else item.thumb.replaceChildren(icon(job.state));
}

function picture(job) {
  const image = new Image();
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.addEventListener("error", () => image.replaceWith(icon("done")));
  image.src = job.picture_url;
  return image;
}

function icon(state) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 20 20");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[state]);
  drawing.append(path);
  return drawing;
}

function choose(id) {
  chosen = id;
  chosenByHand = true;
  drawAll();
  const detail = $("detail");
  const top = detail.getBoundingClientRect().top;
  if (top < 0 || top > innerHeight * 0.6) {
    detail.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    detail.focus({ preventScroll: true });
  }
}

for (const button of document.querySelectorAll(".filters button")) {
  button.addEventListener("click", () => {
    wanted = button.dataset.state;
    chosenByHand = false;
    for (const other of document.querySelectorAll(".filters button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    note(null);
  });
}

$("jobs-more").addEventListener("click", async () => {
  const first = listed.length;
  try {
    await readPage(older);
    items.get(listed[first])?.open.focus();
  } catch {
    note(null);
  }
});

// -- one answer ----------------------------------------------------------------------------------------------------------

let shownShot = null;

function drawAnswer() {
  const job = jobs.get(chosen);
  $("answer").hidden = job === undefined;
  $("empty").hidden = job !== undefined || !heard || wanted !== "";
  if (job === undefined) return;
  $("answer").dataset.tone = tone(job);
  $("answer").dataset.id = job.id;
  drawShot(job);
  say($("answer-name"), job.name || "Picture without a name");
  say($("answer-label"), headline(job));
  say($("answer-say"), explain(job));
  $("answer-say").hidden = explain(job) === "";
  $("answer-fault").hidden = job.error === null;
  if (job.error) {
    say($("fault-text"), `${sentence(job.error.detail)}.`);
    say($("fault-cure"), `What to do: ${job.error.hint}.`);
    say($("fault-code"), job.error.code);
  }
  drawTop(job.result?.top ?? []);
  drawFacts(job);
  drawNotices(job.notices);
}

function drawShot(job) {
  const shot = $("answer-shot");
  shot.dataset.waiting = String(!isOver(job));
  $("answer").dataset.shot = String(!isOver(job) || job.picture_url !== null || previews.has(job.id));
  const shown = `${job.id}${job.picture_url ?? previews.has(job.id)}`;
  if (shown === shownShot) return;
  shownShot = shown;
  if (job.picture_url) {
    const image = picture(job);
    image.loading = "eager";
    image.alt = job.name ? `The picture ${job.name}` : "The picture that was sent";
    shot.replaceChildren(image);
  } else if (previews.has(job.id)) shot.replaceChildren(copyOf(previews.get(job.id)));
  else shot.replaceChildren(make("p", "", isOver(job) ? "No picture to show" : "The picture shows when a worker has read it"));
}

function drawTop(top) {
  const list = $("answer-top");
  while (list.children.length > top.length) list.lastElementChild.remove();
  while (list.children.length < top.length) {
    const item = make("li");
    const bar = make("span", "rank-bar");
    bar.setAttribute("aria-hidden", "true");
    bar.append(make("span", "fill"));
    item.append(make("span", "rank-name"), make("span", "rank-value"), bar);
    list.append(item);
  }
  top.forEach((entry, at) => {
    const [name, value, bar] = list.children[at].children;
    say(name, entry.title);
    say(value, score(entry.score));
    bar.firstElementChild.style.setProperty("--part", String(entry.score));
  });
}

function drawFacts(job) {
  const facts = [["Sent", timeOfDay(job.created_at, clock.now()), utc(job.created_at)]];
  if (job.took_ms !== null) facts.push(["Answered in", milliseconds(job.took_ms)]);
  if (job.result) facts.push(["Classified in", milliseconds(job.result.prepare_ms + job.result.inference_ms)]);
  if (job.attempts > 1) facts.push(["Tries", number(job.attempts)]);
  facts.push(["Picture", `${number(job.width)} × ${number(job.height)} ${job.kind.toUpperCase()}, ${bytes(job.bytes)}`]);
  if (job.model) facts.push(["Model", `${job.model.name} ${job.model.version}`]);
  if (job.submitted_by !== "anybody") facts.push(["Sender", job.submitted_by]);
  facts.push(["Job", job.id]);
  $("answer-facts").replaceChildren(...facts.flatMap(([name, value, title]) => {
    const shown = make("dd", "", value);
    if (title) shown.title = title;
    return [make("dt", "", name), shown];
  }));
}

const NOTICE_STATES = { waiting: "On its way", sent: "Delivered", dead: "Given up" };

function drawNotices(notices) {
  $("answer-notices").hidden = notices.length === 0;
  $("notice-list").replaceChildren(...notices.map((notice) => {
    const item = make("li", "notice");
    item.dataset.state = notice.state;
    const head = make("p", "notice-head");
    head.append(make("span", "", notice.target), make("span", "notice-state", NOTICE_STATES[notice.state]));
    const log = make("ol");
    for (const one of notice.deliveries) log.append(make("li", "", `${timeOfDay(one.at, clock.now())}: ${one.detail}`));
    item.append(head, log);
    return item;
  }));
}

// -- sending -------------------------------------------------------------------------------------------------------------

function submit(files) {
  for (const file of files) {
    const element = template("sending-template");
    const one = (selector) => element.querySelector(selector);
    const send = {
      file, key: crypto.randomUUID(), element, name: one(".send-name"), bar: one(".send-bar"), say: one(".send-say"),
      cure: one(".send-cure"), again: one(".again"), away: one(".away"), thumb: one(".job-thumb"), request: null, preview: null,
    };
    say(send.name, file.name || "Picture");
    send.bar.setAttribute("aria-label", `Sending ${file.name || "the picture"}`);
    say(send.say, "Waits to be sent");
    say(send.away, "Cancel");
    send.thumb.append(icon("queued"));
    send.away.addEventListener("click", () => forget(send));
    send.again.addEventListener("click", () => { waiting.push(send); next(); });
    $("sending").append(element);
    const fault = judge(file);
    if (fault) fail(send, ...fault);
    else {
      look(send);
      waiting.push(send);
    }
  }
  next();
}

/** What can be said before anything is sent; the server judges again. */
function judge(file) {
  if (file.size === 0) return ["The file is empty", "choose another file"];
  if (file.size > MOST_BYTES) return [`The file has ${bytes(file.size)}, at most ${bytes(MOST_BYTES)} are taken`, "save it smaller or at a lower quality"];
  return null;
}

/** Draw a small preview on a canvas, where the browser can read the picture. */
async function look(send) {
  try {
    const bitmap = await createImageBitmap(send.file, { resizeWidth: PREVIEW_PX, resizeQuality: "medium" });
    const canvas = make("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    send.preview = canvas;
    if (send.id && !jobs.get(send.id)?.picture_url) {
      previews.set(send.id, canvas);
      drawAll();
    }
    send.thumb.replaceChildren(copyOf(canvas));
  } catch {
    // not one that this browser reads; the server says what is wrong with it
  }
}

function copyOf(canvas) {
  const copy = make("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}

function next() {
  while (sendingNow < SENDING_AT_ONCE && waiting.length > 0) start(waiting.shift());
}

/** Send one picture. The key makes a second try safe: the server takes the same picture once. */
function start(send) {
  sendingNow += 1;
  send.element.dataset.state = "sending";
  send.again.hidden = send.cure.hidden = true;
  send.bar.hidden = false;
  say(send.away, "Cancel");
  say(send.say, "Sending");
  const form = new FormData();
  for (const field of ["email", "callback"]) if ($(field).value.trim()) form.append(field, $(field).value.trim());
  form.append("picture", send.file, send.file.name || "picture");
  const request = new XMLHttpRequest(); // fetch tells no progress of what it sends
  send.request = request;
  request.open("POST", `${API}/jobs`);
  request.setRequestHeader("Idempotency-Key", send.key);
  request.responseType = "json";
  request.upload.onprogress = (event) => {
    if (!event.lengthComputable) return;
    send.bar.value = event.loaded / event.total;
    say(send.say, event.loaded < event.total ? `${bytes(event.loaded)} of ${bytes(event.total)}` : "Sent; being checked");
  };
  request.onloadend = () => {
    sendingNow -= 1;
    send.request = null;
    if (send.element.isConnected) ended(send, request.status, request.response);
    next();
  };
  request.send(form);
}

function ended(send, status, said) {
  if (status === 200 || status === 202) {
    send.id = said.id;
    mine.add(said.id);
    if (send.preview) previews.set(said.id, send.preview);
    chosenByHand = false;
    send.element.remove();
    know(said);
    place(said);
    if (listed.includes(said.id)) chosen = said.id;
    drawAll();
    note([said.id]);
    return;
  }
  if (status === 0) fail(send, "The connection was lost", "try again: the same picture is taken only once");
  else fail(send, said?.detail ?? `The server answered ${status}`, said?.hint ?? "try again later");
  send.again.hidden = status !== 0 && status < 500;
}

function fail(send, what, cure) {
  send.element.dataset.state = "wrong";
  send.bar.hidden = true;
  say(send.say, `${sentence(what)}.`);
  say(send.cure, `${sentence(cure)}.`);
  send.cure.hidden = false;
  say(send.away, "Dismiss");
  send.thumb.replaceChildren(icon("failed"));
  say($("announce"), `${send.file.name}: ${what}. ${sentence(cure)}.`);
}

function forget(send) {
  waiting = waiting.filter((other) => other !== send);
  send.element.remove();
  send.request?.abort();
  $("choose").focus();
}

// -- ways in: chooser, camera, drag-and-drop, paste ----------------------------------------------------------------------

for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    submit([...$(input).files]);
    $(input).value = "";
  });
}

let depth = 0; // dragenter and dragleave come for every element on the way
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

function cover(shown) {
  $("cover").hidden = !shown;
  $("drop").dataset.over = String(shown);
}

addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth += 1;
  cover(true);
});
addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (depth === 0) cover(false);
});
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth = 0;
  cover(false);
  submit([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length > 0) submit(files);
});

setInterval(() => {
  if (document.hidden) return;
  for (const [id, item] of items) say(item.age, ageOf(jobs.get(id).created_at));
  drawAnswer();
}, 5_000);
if (navigator.maxTouchPoints > 0) root.dataset.touch = "true"; // a phone has a camera, and nothing to drop from
say($("host"), location.host);
listen(take);

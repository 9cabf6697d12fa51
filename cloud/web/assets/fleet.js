// The Fleet page: asks for the fleet again and again, and draws rollouts and devices from the same answer.

import { $, say } from "./dom.js";
import { bytes, number, sentence, span, timeOfDay, timeToSecond, utc } from "./format.js";
import { Head } from "./head.js";
import { listen } from "./listen.js";
import { Poll } from "./poll.js";
import { ServerClock } from "./stream.js";

const API = document.documentElement.dataset.api;
const EVERY_MS = 3_000;
const PATIENCE_MS = 10_000;
const OLD_S = 15;
const ASTRAY_S = 5; // a clock that is off by less is told by nobody
const LOW_BYTES = 256 * 2 ** 20; // as the doctor's HOST-2
const WARM_C = 80; // as the doctor's HOST-6
const UNDER_WAY = ["offered", "deferred", "downloading", "verified", "compiled", "golden", "shadow", "trial"];
const BAD = ["failed", "rejected", "rolled-back"];
const OVER = ["finished", "aborted", "replaced"];
const PARTS = ["done", "ordered", "failed", "rejected", "rolled-back", "silent", "waiting", "dropped"];
const WORDS = { "catching-up": "catching up", ordered: "under way", waiting: "to come", dropped: "left as they were", "rolled-back": "rolled back" };
const ACTIONS = { pause: "Pause", resume: "Resume", abort: "Abort" };

const clock = new ServerClock();
const head = new Head();
let shown = null; // the last answer of the server
let show = "all";
let older = false;

// -- asking -------------------------------------------------------------------------------------------------------------

const poll = new Poll(() => `${API}/fleet`, { everyMs: EVERY_MS, patienceMs: PATIENCE_MS }, (answer) => {
  shown = answer;
  clock.note(Date.parse(answer.now));
  draw();
});

async function change(rollout, action) {
  $("fault").hidden = true;
  try {
    const path = `${API}/fleet/rollouts/${encodeURIComponent(rollout)}/${action}`;
    const response = await fetch(path, { method: "POST", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!response.ok) {
      const problem = await response.json();
      throw new Error(`${sentence(problem.detail)}. ${sentence(problem.hint)}.`);
    }
  } catch (error) {
    say($("fault"), error.name === "Error" ? error.message : "The server does not answer: it was not changed. Try again.");
    $("fault").hidden = false;
  }
  poll.ask();
}

// -- drawing ------------------------------------------------------------------------------------------------------------

function draw() {
  drawRollouts();
  drawDevices();
  drawSummary();
}

/** Make the children of a list match `items`, keeping the elements of those that stay. */
function match(list, items, keyOf, make, fill) {
  const had = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, i) => {
    const key = keyOf(item);
    const child = had.get(key) ?? make();
    had.delete(key);
    child.dataset.key = key;
    if (list.children[i] !== child) list.insertBefore(child, list.children[i] ?? null);
    fill(child, item);
  });
  for (const gone of had.values()) gone.remove();
}

const fromTemplate = (id) => () => $(id).content.firstElementChild.cloneNode(true);

function drawRollouts() {
  const all = shown.rollouts;
  const open = all.filter((one) => !OVER.includes(one.state));
  const first = open.length ? open : all.slice(0, 1);
  $("no-rollout").hidden = all.length > 0;
  $("older").hidden = all.length <= first.length;
  say($("older"), older ? "Hide older rollouts" : "Show older rollouts");
  $("older").setAttribute("aria-expanded", String(older));
  match($("rollouts"), older ? all : first, (one) => one.id, fromTemplate("rollout-one"), drawRollout);
}

function drawRollout(card, one) {
  const at = (selector) => card.querySelector(selector);
  card.dataset.state = one.state;
  card.dataset.over = String(OVER.includes(one.state));
  say(at(".rollout-name"), one.id);
  say(at(".rollout-word"), sentence(WORDS[one.state] ?? one.state));
  const back = one.reverts ? `, reverts ${one.reverts}` : "";
  say(at(".rollout-title"), `${one.title}${back} · by ${one.made_by}, ${timeOfDay(one.made_at, clock.now())}`);
  say(at(".rollout-counts"), countsText(one));
  say(at(".rollout-reason"), one.reason ? `${sentence(one.reason)}.` : "");
  match(at(".rollout-buttons"), one.may, (action) => action, newButton, (button, action) => {
    say(button, ACTIONS[action]);
    button.dataset.action = action;
    button.setAttribute("aria-label", `${ACTIONS[action]} ${one.id}`);
    button.onclick = () => (action === "abort" ? sure(one.id) : change(one.id, action));
  });
  match(at(".batches"), one.batches.map((batch, n) => ({ ...batch, n })), (batch) => String(batch.n), newBatch, drawBatch);
}

function newButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small-button";
  return button;
}

function countsText(one) {
  const counts = PARTS.filter((part) => one.counts[part]).map((part) => `${number(one.counts[part])} ${WORDS[part] ?? part}`);
  const away = one.offline ? `, ${number(one.offline)} of them offline` : "";
  return `${number(one.devices)} ${one.devices === 1 ? "device" : "devices"}: ${counts.join(", ")}${away}`;
}

function newBatch() {
  const batch = document.createElement("li");
  batch.className = "batch";
  const name = document.createElement("span");
  name.className = "batch-name";
  const bar = document.createElement("div");
  bar.className = "batch-bar";
  bar.setAttribute("role", "img");
  batch.append(name, bar);
  return batch;
}

function drawBatch(item, batch) {
  item.dataset.open = String(batch.open);
  item.hidden = batch.devices === 0;
  item.style.setProperty("--devices", Math.max(1, Math.sqrt(batch.devices)));
  say(item.firstChild, `${batch.batch} · ${number(batch.devices)} ${batch.devices === 1 ? "device" : "devices"}`);
  const parts = PARTS.filter((part) => batch.counts[part]);
  const text = parts.map((part) => `${batch.counts[part]} ${WORDS[part] ?? part}`).join(", ");
  item.lastChild.setAttribute("aria-label", `Batch ${batch.n + 1}, ${batch.batch}, ${batch.open ? "open" : "not open yet"}: ${text}`);
  match(item.lastChild, parts, (part) => part, () => document.createElement("span"), (piece, part) => {
    piece.dataset.part = part;
    piece.style.flexGrow = batch.counts[part];
  });
}

function current(device) {
  const order = [...device.updates].sort((a, b) => b.revision - a.revision);
  return order.find((update) => UNDER_WAY.includes(update.state)) ?? order.find((update) => BAD.includes(update.state)) ?? null;
}

const isUpdating = (device) => UNDER_WAY.includes(current(device)?.state);
const isTroubled = (device) =>
  device.presence !== "online" || device.clock === "unsure" || BAD.includes(current(device)?.state) ||
  device.warnings.some((warning) => warning.severity !== "info");
const SHOWS = { all: () => true, trouble: isTroubled, updating: isUpdating };

function drawDevices() {
  const devices = shown.devices.filter(SHOWS[show]);
  $("empty").hidden = shown.devices.length > 0;
  $("filters").hidden = shown.devices.length === 0;
  $("none").hidden = shown.devices.length === 0 || devices.length > 0;
  say($("none"), show === "trouble" ? "No device has trouble." : "No device is updating now.");
  match($("grid"), devices, (device) => device.device, fromTemplate("device-one"), drawDevice);
}

function drawDevice(card, device) {
  const at = (selector) => card.querySelector(selector);
  card.dataset.presence = device.presence;
  say(at(".unit-name"), device.device);
  say(at(".presence-word"), presenceText(device));
  say(at(".unit-store"), [device.store || "no shop", ...device.labels].join(" · "));
  drawUpdate(at(".unit-update"), current(device));
  match(at(".unit-facts"), facts(device), ([name]) => name, newFact, (row, [name, text, mood]) => {
    say(row.firstChild, name);
    say(row.lastChild, text);
    row.lastChild.dataset.mood = mood ?? "";
  });
  match(at(".warnings"), device.warnings, (warning) => warning.code, newWarning, (item, warning) => {
    item.dataset.severity = warning.severity;
    say(item.firstChild, `${sentence(warning.text)}. `);
    say(item.lastChild, warning.cure ? `${sentence(warning.cure)}.` : "");
  });
  const button = at(".why-button");
  button.setAttribute("aria-label", `Why does ${device.device} have what it has?`);
  button.onclick = () => why(device.device);
}

function presenceText(device) {
  if (device.presence === "online") return "Online";
  if (device.presence === "unknown") return "Never heard";
  return `${sentence(device.presence)} ${span((clock.now() - Date.parse(device.last_heard_at)) / 1000)}`;
}

function drawUpdate(box, update) {
  box.hidden = update === null;
  if (update === null) return;
  box.dataset.mood = BAD.includes(update.state) ? "bad" : update.state === "deferred" ? "wait" : "";
  const part = update.state === "downloading" ? ` ${Math.round(update.progress * 100)} %` : "";
  const said = [update.text, update.code && `[${update.code}]`].filter(Boolean).join(" ");
  const what = update.what === "config" ? "Settings" : "Model";
  say(box.querySelector(".unit-step"), `${what} ${WORDS[update.state] ?? update.state}${part}${said ? ": " : ""}`);
  say(box.querySelector(".unit-said"), said);
}

const isAstray = (device) => Math.abs(device.clock_ahead_s ?? 0) > ASTRAY_S;

function clockText(device) {
  const set = device.clock === "synced" ? "set by the network" : "not sure";
  if (!isAstray(device)) return set;
  return `${set}, ${span(Math.abs(device.clock_ahead_s))} ${device.clock_ahead_s > 0 ? "ahead" : "behind"}`;
}

function facts(device) {
  const model = device.model ? `${device.model.name} ${device.model.version}` : "not known";
  const held = device.pinned ? ", held by a technician" : "";
  const rows = [["Model", device.model ? `${model}, release ${device.model.release}${held}` : model], ["Agent", device.agent || "not known"]];
  if (device.rows !== null) {
    const oldest = device.rows ? `, oldest ${span(device.oldest_age_s)}` : "";
    rows.push(["Waiting", `${number(device.rows)} ${device.rows === 1 ? "record" : "records"}${oldest}`, device.rows && device.oldest_age_s > 300 ? "warn" : ""]);
  }
  if (device.clock !== "unknown") rows.push(["Clock", clockText(device), device.clock === "unsure" || isAstray(device) ? "warn" : ""]);
  if (device.disk_bytes) rows.push(["Disk", `${bytes(device.disk_free_bytes)} of ${bytes(device.disk_bytes)} free`, device.disk_free_bytes < LOW_BYTES ? "warn" : ""]);
  if (device.temperature_c !== null) rows.push(["Heat", `${Math.round(device.temperature_c)} °C`, device.temperature_c >= WARM_C ? "warn" : ""]);
  return rows;
}

/** A name and what it says: a `div` keeps the pair together, which a `dl` allows. */
function newFact() {
  const row = document.createElement("div");
  row.className = "fact";
  row.append(document.createElement("dt"), document.createElement("dd"));
  return row;
}

function newWarning() {
  const item = document.createElement("li");
  item.append(document.createElement("strong"), document.createElement("span"));
  return item;
}

function drawSummary() {
  const old = (clock.now() - Date.parse(shown.now)) / 1000;
  const online = shown.devices.filter((device) => device.presence === "online").length;
  const trouble = shown.devices.filter(isTroubled).length;
  const total = shown.devices.length;
  let text = total === 0 ? "No device yet" : `${online} of ${total} ${total === 1 ? "device" : "devices"} online${trouble ? `, ${trouble} with trouble` : ""}`;
  if (old > OLD_S) text = `This is ${span(old)} old`;
  say($("summary"), text);
  $("summary").dataset.mood = old > OLD_S || trouble ? "warn" : "fine";
}

// -- why, and whether one is sure -----------------------------------------------------------------------------------------

async function why(device) {
  say($("why-title"), device);
  say($("why-text"), "Asking…");
  $("why-steps").replaceChildren();
  $("why-nothing").hidden = true;
  $("why").showModal();
  try {
    const path = `${API}/fleet/devices/${encodeURIComponent(device)}/why`;
    const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    say($("why-text"), answer.why);
    $("why-nothing").hidden = answer.steps.length > 0;
    $("why-steps").replaceChildren(...answer.steps.map(stepItem));
  } catch {
    say($("why-text"), "The server does not answer. Close this and try again.");
  }
}

function stepItem(step) {
  const item = document.createElement("li");
  const piece = (name, text) => {
    const made = document.createElement("span");
    made.className = name;
    made.textContent = text;
    item.append(made);
    return made;
  };
  piece("why-when", timeToSecond(step.received_at)).title = utc(step.received_at);
  piece("why-state", WORDS[step.state] ?? step.state);
  const said = piece("why-said", [step.text, step.code && `[${step.code}]`].filter(Boolean).join(" ") || (step.what === "config" ? "settings" : "model"));
  const numbers = Object.entries(step.numbers).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`);
  if (numbers.length) {
    const small = document.createElement("div");
    small.className = "why-numbers";
    small.textContent = numbers.join(" · ");
    said.append(small);
  }
  return item;
}

function sure(rollout) {
  say($("sure-title"), `Abort ${rollout}?`);
  say($("sure-revert"), `shelfwire-cloud fleet rollout revert ${rollout}`);
  $("sure-yes").onclick = () => {
    $("sure").close();
    change(rollout, "abort");
  };
  $("sure").showModal();
}

$("sure-no").addEventListener("click", () => $("sure").close());
$("why-close").addEventListener("click", () => $("why").close());
for (const box of [$("why"), $("sure")]) box.addEventListener("click", (event) => { if (event.target === box) box.close(); });

$("older").addEventListener("click", () => {
  older = !older;
  drawRollouts();
});

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    show = button.dataset.show;
    for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", String(other === button));
    if (shown) drawDevices();
  });
}

setInterval(() => {
  if (!document.hidden && shown) drawSummary();
}, 1000);

listen((message) => {
  const before = head.isLive;
  head.take(message);
  if (message.kind !== "link" && message.content.now) clock.note(Date.parse(message.content.now));
  if (head.isLive && !before) poll.ask(); // the server is back: what is shown is old
});
poll.ask();

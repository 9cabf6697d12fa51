// The Live page: takes the stream's messages, keeps the tiles right, and never shows what is old as if it were new.
// Everything that comes from a device goes into the page as text, never as markup.

import { $, say, template } from "./dom.js";
import { bytes, milliseconds, number, score, sentence, span, timeOfDay, timeToSecond, utc } from "./format.js";
import { listen } from "./listen.js";
import { modeName, modeSign, sayMode } from "./mode.js";
import { Known, ServerClock, keyOf } from "./stream.js";

const root = document.documentElement;
const QUIET_MS = 7_000; // two beats missed: say how old the page is
const TICK_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 250;
const DEVICES_SHOWN = 4;
const ALSO_MS = 60_000; // so long a tile tells of a late answer
const BLINDING = new Set(["camera-black", "camera-covered", "camera-blinded", "camera-frozen"]);

const known = new Known();
const clock = new ServerClock();
const tiles = new Map();
const rows = new Map();
const alertItems = new Map();
let linkOpen = false;
let heardMs = null; // the server's time of the last event
let allDevices = false;
let enlarged = null; // key of the camera in the dialog
let pending = new Set(); // keys of cameras to draw; null stands for all
let drawing = false;

// -- the stream ---------------------------------------------------------------------------------------------------------

function take({ kind, content }) {
  if (kind === "link") {
    linkOpen = content.open;
  } else {
    const at = Date.parse(content.now);
    clock.note(at);
    heardMs = Math.max(heardMs ?? 0, at);
    const touched = known.take(kind, content);
    if (touched === null) pending = null;
    else if (pending !== null) for (const key of touched) pending.add(key);
  }
  schedule();
}

function schedule() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

// -- drawing ------------------------------------------------------------------------------------------------------------

function draw() {
  const touched = pending ?? new Set([...known.cameras.keys(), ...tiles.keys()]);
  pending = new Set();
  for (const key of touched) drawCamera(key);
  drawDevices();
  drawAlerts();
  drawEmpty();
  tick();
}

function drawCamera(key) {
  const camera = known.cameras.get(key);
  if (camera === undefined) {
    tiles.get(key)?.element.remove();
    tiles.delete(key);
    return;
  }
  let tile = tiles.get(key);
  if (tile === undefined) {
    tile = newTile(key);
    tiles.set(key, tile);
    place(tile, camera);
  }
  tile.camera = camera;
  const answer = camera.answer;
  const part = tile.part;
  say(part.camera, camera.camera);
  say(part.device, camera.store ? `${camera.device} · ${camera.store}` : camera.device);
  say(part.open, `Enlarge ${camera.camera} of ${camera.device}`);
  if (answer) sayMode(part.mode, answer.mode, answer.mode);
  part.mode.hidden = !answer;
  part.score.hidden = part.notes.hidden = !answer;
  say(part.label, answer ? answer.title : "No answer yet");
  tile.element.dataset.state = answer?.state ?? "none";
  if (answer) drawAnswer(part, answer, camera);
  drawRanks(part.ranks, answer ? others(answer, 2) : []);
  drawConditions(part.unsound, camera.conditions);
  showPicture(tile, camera.picture);
  if (enlarged === key) drawCloser();
}

function drawAnswer(part, answer, camera) {
  say(part.value, answer.state === "unknown" ? `best guess ${guess(answer)}` : score(answer.score));
  part.fill.style.setProperty("--part", String(Math.max(0, Math.min(1, answer.score))));
  say(part.stateText, stateText(answer, camera));
  const late = answer.late_ms !== null;
  say(part.took, late ? lateText(answer) : milliseconds(answer.total_ms));
  part.took.title = late ? "" : "From capture to answer, on the device";
  part.took.dataset.late = String(late);
  say(part.truth, truthText(answer));
  part.truth.dataset.correct = String(answer.correct);
}

/** What is wrong with what a camera shows: its answers go on, so it stands beside them. */
function drawConditions(list, conditions) {
  const signature = JSON.stringify(conditions);
  if (list.dataset.shown === signature) return;
  list.dataset.shown = signature;
  list.hidden = conditions.length === 0;
  list.replaceChildren(...conditions.map((condition) => {
    const item = document.createElement("li");
    for (const [name, text] of [["strong", sentence(condition.text)], ["span", sentence(condition.cure)], ["code", condition.code]]) {
      const part = document.createElement(name);
      part.textContent = text;
      item.append(part);
    }
    if (condition.since) item.title = `Since ${utc(condition.since)}`;
    return item;
  }));
}

function stateText(answer, camera) {
  if (camera.conditions.some((condition) => BLINDING.has(condition.code))) return "Not counted: the camera sees nothing";
  if (answer.state === "confirmed") return "Confirmed";
  if (answer.state === "unknown") return "Not recognised";
  return answer.labels[0] && answer.labels[0].label !== answer.label ? `Changing to ${answer.labels[0].title}?` : "Pending";
}

function lateText(answer) {
  return `Late: answered ${milliseconds(answer.late_ms)} after capture`;
}

/** What a late answer says: "Serverless says Lemon 91%, agrees". */
function lateSays(late) {
  const verdict = late.agrees === null ? "" : late.agrees ? ", agrees" : ", disagrees";
  return `${modeName(late.mode)} says ${late.title} ${score(late.score)}${verdict}`;
}

/** The newest late answer that came just now, by another way than the one shown large. */
function alsoOf(camera, now) {
  return camera.late.find((late) => now - Date.parse(late.stored_at) < ALSO_MS && late.mode !== camera.answer?.mode);
}

function truthText(answer) {
  if (answer.correct === null) return "";
  return answer.correct ? "✓ Correct" : `✗ Really ${answer.truth_title}`;
}

function guess(answer) {
  const best = answer.labels[0];
  return best ? `${best.title} ${score(best.score)}` : "";
}

/** The labels beside the one shown large. */
function others(answer, most) {
  const shown = answer.state === "unknown" ? answer.labels[0]?.label : answer.label;
  return answer.labels.filter((item) => item.label !== shown).slice(0, most);
}

function drawRanks(list, items) {
  while (list.children.length > items.length) list.lastElementChild.remove();
  while (list.children.length < items.length) {
    const item = document.createElement("li");
    for (const name of ["rank-label", "rank-score"]) {
      const part = document.createElement("span");
      part.className = name;
      item.append(part);
    }
    list.append(item);
  }
  items.forEach((item, i) => {
    const [name, value] = list.children[i].children;
    say(name, item.title);
    say(value, score(item.score));
  });
  list.hidden = items.length === 0;
}

function newTile(key) {
  const element = template("tile-template");
  const one = (selector) => element.querySelector(selector);
  const part = {
    shot: one(".shot"), noShot: one(".no-shot"), also: one(".also"), mode: one(".mode"), age: one(".age"), veil: one(".veil"),
    veilText: one(".veil-text"), veilCure: one(".veil-cure"), veilCode: one(".veil-code"), camera: one(".camera"),
    device: one(".device"), label: one(".words > .label"), score: one(".score"), fill: one(".fill"), value: one(".value"),
    notes: one(".notes"), stateText: one(".state-text"), truth: one(".truth"), took: one(".took"), ranks: one(".ranks"),
    open: one(".open"), unsound: one(".unsound"),
  };
  const tile = { key, element, part, camera: null, shown: null, loading: false, seen: true };
  part.open.addEventListener("click", () => enlarge(key));
  element.dataset.key = key;
  sight.observe(element);
  return tile;
}

/** Keep tiles in the order of store, device and camera, so that each one stays where it is. */
function place(tile, camera) {
  const order = (c) => [c.store, c.device, c.camera];
  const mine = order(camera);
  const after = [...$("grid").children].find((other) => {
    const theirs = order(tiles.get(other.dataset.key).camera);
    const at = mine.findIndex((word, i) => word !== theirs[i]);
    return at >= 0 && mine[at].localeCompare(theirs[at], undefined, { numeric: true }) < 0;
  });
  tile.camera = camera;
  $("grid").insertBefore(tile.element, after ?? null);
}

// -- pictures -----------------------------------------------------------------------------------------------------------

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.get(entry.target.dataset.key);
    if (tile === undefined) continue;
    tile.seen = entry.isIntersecting;
    if (tile.seen) showPicture(tile, tile.camera?.picture);
  }
}, { rootMargin: "200px" });

/** Load the newest picture, one at a time per tile, and swap it in when it is decoded, so that nothing flickers. */
async function showPicture(tile, picture) {
  if (!picture || tile.loading || tile.shown === picture.url || document.hidden || !tile.seen) return;
  tile.loading = true;
  const image = new Image();
  image.alt = `Last picture of ${tile.camera.camera}`;
  image.width = picture.width;
  image.height = picture.height;
  try {
    image.src = picture.url;
    await image.decode();
    tile.part.shot.querySelector("img")?.remove();
    tile.part.shot.prepend(image);
    tile.part.noShot.hidden = true;
    tile.shown = picture.url;
  } catch {
    tile.shown = picture.url; // a newer one comes with the next event
  } finally {
    tile.loading = false;
  }
  if (enlarged === tile.key) copyPicture(tile);
  const newest = tile.camera?.picture;
  if (newest && newest.url !== tile.shown) setTimeout(() => showPicture(tile, tile.camera?.picture), 50);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const tile of tiles.values()) showPicture(tile, tile.camera?.picture);
  schedule();
});

// -- ages: what is old is never shown as fresh --------------------------------------------------------------------------

function tick() {
  const now = clock.now();
  for (const tile of tiles.values()) if (tile.camera) tickTile(tile, now);
  for (const row of rows.values()) tickDevice(row, now);
  for (const item of alertItems.values()) tickAlert(item, now);
  tickLink(now);
  drawSummary(now);
  if (enlarged !== null) tickCloser(now);
}

function ageOf(camera, now) {
  return camera.answer ? Math.max(0, (now - Date.parse(camera.answer.as_of)) / 1000) : null;
}

function isStale(camera, now) {
  const age = ageOf(camera, now);
  return age === null || age > camera.stale_after_s;
}

/** What to say over a camera's picture: its trouble, once it shows or is certain. A fresh answer outweighs old news. */
function troubleOf(camera, now) {
  if (camera.trouble && (camera.trouble.severity === "failure" || isStale(camera, now))) return camera.trouble;
  return null;
}

function tickTile(tile, now) {
  const { camera, part, element } = tile;
  const age = ageOf(camera, now);
  const stale = isStale(camera, now);
  const trouble = troubleOf(camera, now);
  const fresh = trouble ? "trouble" : stale && age !== null ? "stale" : age === null ? "none" : "fresh";
  if (element.dataset.fresh !== fresh) element.dataset.fresh = fresh;
  part.age.hidden = age === null;
  if (age !== null) {
    say(part.age, stale ? `No answer for ${span(age)}` : `${span(age)} ago`);
    const title = `Captured ${utc(camera.answer.captured_at)}`;
    if (part.age.title !== title) part.age.title = title;
  }
  const also = trouble ? undefined : alsoOf(camera, now);
  part.also.hidden = also === undefined;
  if (also) {
    sayMode(part.also, also.mode, lateSays(also));
    part.also.dataset.agrees = String(also.agrees);
  }
  part.veil.hidden = trouble === null;
  if (trouble === null) return;
  part.veil.dataset.severity = trouble.severity;
  say(part.veilText, sentence(trouble.text));
  say(part.veilCure, sentence(trouble.cure));
  say(part.veilCode, trouble.code);
}

function tickLink(now) {
  const quiet = heardMs === null ? null : now - heardMs;
  const old = quiet !== null && quiet > QUIET_MS;
  let link = "live";
  let text = "Live";
  if (heardMs === null) [link, text] = linkOpen ? ["live", "Live"] : ["connecting", "Connecting"];
  else if (!linkOpen) [link, text] = ["lost", quiet > 1500 ? `Reconnecting · data is ${span(quiet / 1000)} old` : "Reconnecting"];
  else if (old) [link, text] = ["lost", `Data is ${span(quiet / 1000)} old`];
  else if (known.trouble) [link, text] = ["lost", "Server in trouble"];
  if (document.body.dataset.link !== link) document.body.dataset.link = link;
  say($("link-text"), text);
  drawBanner();
}

function drawBanner() {
  const banner = $("banner");
  let text = "";
  if (known.trouble) text = `${sentence(known.trouble.text)}. ${sentence(known.trouble.cure)}.`;
  else if (known.version && known.version !== root.dataset.version) text = "The server has a newer version of this page: reload to get it.";
  say(banner, text);
  banner.hidden = text === "";
}

setInterval(() => { if (!document.hidden) tick(); }, TICK_MS);

// -- summary ------------------------------------------------------------------------------------------------------------

function drawSummary(now) {
  if (heardMs === null) return;
  const cameras = [...known.cameras.values()];
  const working = cameras.filter((camera) => !isStale(camera, now) && !troubleOf(camera, now) && !camera.conditions.length).length;
  const devices = [...known.devices.values()];
  const offline = devices.filter((device) => presenceOf(device, now) !== "online").length;
  const parts = [];
  if (cameras.length) parts.push(working === cameras.length ? allWorking(working) : `${working} of ${cameras.length} cameras working`);
  const unsound = cameras.filter((camera) => camera.conditions.length && !troubleOf(camera, now)).length;
  if (unsound) parts.push(unsound === 1 ? "1 does not show what it should" : `${number(unsound)} do not show what they should`);
  if (offline) parts.push(`${offline} of ${devices.length} ${devices.length === 1 ? "device" : "devices"} not online`);
  const open = known.alerts.open.length;
  if (open) parts.push(open === 1 ? "1 alert" : `${number(open)} alerts`);
  const text = parts.join(" · ") || "Waiting for the first device";
  say($("summary"), text);
  $("summary").dataset.mood = offline || unsound || working < cameras.length ? "warn" : "fine";
  const title = open ? `(${open}) Live · Shelfwire` : "Live · Shelfwire";
  if (document.title !== title) document.title = title;
}

function allWorking(count) {
  return count === 1 ? "The camera is working" : `All ${number(count)} cameras working`;
}

// -- devices ------------------------------------------------------------------------------------------------------------

/** A device is heard by its answers too, so one that sends them is there even when its status is late. */
function heardFrom(device) {
  let heard = Date.parse(device.last_heard_at);
  for (const camera of known.cameras.values()) {
    if (camera.device === device.device && camera.answer) heard = Math.max(heard, Date.parse(camera.answer.received_at));
  }
  return heard;
}

function presenceOf(device, now) {
  if (device.presence !== "online" && device.presence !== "stale") return device.presence;
  return now - heardFrom(device) > device.stale_after_s * 1000 ? "stale" : "online";
}

function drawDevices() {
  const rank = { offline: 0, stale: 1, unknown: 2, online: 3 };
  const now = clock.now();
  const sorted = [...known.devices.values()].sort((a, b) =>
    rank[presenceOf(a, now)] - rank[presenceOf(b, now)] || a.store.localeCompare(b.store) || a.device.localeCompare(b.device));
  const shown = allDevices ? sorted : sorted.slice(0, DEVICES_SHOWN);
  $("devices").hidden = sorted.length === 0;
  const more = $("devices-more");
  more.hidden = sorted.length <= DEVICES_SHOWN;
  say(more, allDevices ? "Show fewer devices" : `Show all ${number(sorted.length)} devices`);
  more.setAttribute("aria-expanded", String(allDevices));
  keep(rows, $("device-list"), shown.map((device) => [device.device, device]), () => template("device-template"));
  for (const row of rows.values()) drawDevice(row.element, row.item);
}

$("devices-more").addEventListener("click", () => {
  allDevices = !allDevices;
  schedule();
});

function drawDevice(element, device) {
  const one = (selector) => element.querySelector(selector);
  say(one(".name"), device.device);
  say(one(".store"), device.store);
  const idle = device.cameras_total > 0 && device.cameras_working < device.cameras_total;
  figure(one(".f-cameras"), device.cameras_total ? `${device.cameras_working} of ${device.cameras_total} working` : "", { warn: idle });
  figure(one(".f-outbox"), outboxText(device.outbox), {
    warn: device.outbox !== null && device.outbox.oldest_age_s > 60,
    title: device.outbox ? `${bytes(device.outbox.bytes)} wait on the device; ${number(device.outbox.dead)} records were refused for good` : "",
  });
  figure(one(".f-clock"), { synced: "Trusted", unsure: "Not trusted", unknown: "" }[device.clock]);
  figure(one(".f-model"), device.model ? `${device.model.name} ${device.model.version}` : "", {
    title: [device.runtime && `runs on ${device.runtime}`, device.agent && `agent ${device.agent}`].filter(Boolean).join(", "),
  });
  drawShares(element, device);
  drawWarnings(one(".warnings"), device.presence === "online" ? device.warnings : []);
}

/** One figure of a device; what it did not tell is left out. */
function figure(element, text, { warn = false, title = "" } = {}) {
  say(element, text);
  element.title = title;
  element.dataset.mood = warn ? "warn" : "";
  element.parentElement.dataset.told = String(text !== "");
}

const PLACES = [["local", "answered here"], ["serverless", "sent to the function"], ["deferred", "left for the night"], ["dropped", "dropped"]];

/** Who answers a device's frames, once that is not the device alone. */
function drawShares(element, device) {
  const placed = device.frames && device.frames.captured > 0 ? device.frames : null;
  const elsewhere = placed !== null && placed.local < placed.captured;
  const late = device.answered.some((one) => one.mode !== "real-time");
  element.querySelector(".shares").hidden = !elsewhere && !late;
  element.querySelector(".shares-frames").hidden = !elsewhere;
  element.querySelector(".shares-answers").hidden = !late;
  if (elsewhere) {
    const parts = PLACES.map(([key, words]) => [key, placed[key] / placed.captured, words]).filter(([, part]) => part > 0);
    const waiting = placed.unanswered ? ` · ${number(placed.unanswered)} still without an answer` : "";
    say(element.querySelector(".shares-frames .shares-text"), parts.map(([, part, words]) => `${score(part)} ${words}`).join(" · ") + waiting);
    drawBar(element.querySelector(".shares-bar"), parts);
  }
  if (late) say(element.querySelector(".shares-answers .shares-text"), device.answered.map((one) => `${number(one.n)} ${one.mode}`).join(" · "));
}

function drawBar(bar, parts) {
  while (bar.children.length > parts.length) bar.lastElementChild.remove();
  while (bar.children.length < parts.length) bar.append(document.createElement("span"));
  parts.forEach(([key, part], i) => {
    bar.children[i].dataset.place = key;
    bar.children[i].style.flexGrow = String(Math.max(part, 0.01));
  });
}

function outboxText(outbox) {
  if (!outbox) return "";
  if (!outbox.rows) return "Empty";
  const waiting = `${number(outbox.rows)} waiting`;
  return outbox.oldest_age_s >= 2 ? `${waiting}, oldest ${span(outbox.oldest_age_s)}` : waiting;
}

function drawWarnings(list, warnings) {
  const worth = warnings.filter((warning) => warning.severity !== "info");
  list.hidden = worth.length === 0;
  const signature = JSON.stringify(worth);
  if (list.dataset.signature === signature) return;
  list.dataset.signature = signature;
  list.replaceChildren(...worth.map((warning) => {
    const item = document.createElement("li");
    const text = document.createElement("strong");
    text.textContent = sentence(warning.text);
    item.append(text, warning.cure ? `. ${sentence(warning.cure)}` : "");
    item.dataset.severity = warning.severity;
    return item;
  }));
}

function tickDevice({ element, item: device }, now) {
  const presence = presenceOf(device, now);
  element.dataset.presence = presence;
  const since = presence === "stale" ? heardFrom(device) : device.presence_since;
  const word = { online: "Online", stale: "Silent", offline: "Offline", unknown: "Not seen yet" }[presence];
  const text = element.querySelector(".presence-text");
  const told = presence !== "unknown" && (presence !== "online" || device.presence === "online");
  say(text, told ? `${word} since ${timeOfDay(since, now)}` : word);
  text.title = utc(since);
  say(element.querySelector(".f-heard"), `${span(Math.max(0, now - heardFrom(device)) / 1000)} ago`);
}

// -- alerts -------------------------------------------------------------------------------------------------------------

function alertKey(alert) {
  return `${alert.device}/${alert.run}/${alert.seq}`;
}

let announced = null;

function drawAlerts() {
  const { open, recent } = known.alerts;
  const shownRecent = recent.slice(0, 5);
  const wanted = [...open.map((a) => [`open ${alertKey(a)}`, a]), ...shownRecent.map((a) => [`over ${alertKey(a)}`, a])];
  const parts = new Map(wanted);
  for (const [key, item] of alertItems) {
    if (!parts.has(key)) { item.element.remove(); alertItems.delete(key); }
  }
  keep(alertItems, $("alerts-open"), wanted.slice(0, open.length), newAlert, false);
  keep(alertItems, $("alerts-recent"), wanted.slice(open.length), newAlert, false);
  for (const { element, item } of alertItems.values()) drawAlert(element, item);
  $("alerts").dataset.open = String(open.length > 0);
  $("alerts-count").hidden = open.length === 0;
  say($("alerts-count"), number(open.length));
  $("alerts-open").hidden = open.length === 0;
  $("alerts-none").hidden = open.length > 0;
  $("recent").hidden = shownRecent.length === 0;
  announce(open);
}

/** Tell screen readers of new alerts in one sentence; those that stood when the page was opened are in the summary. */
function announce(open) {
  const keys = new Set(open.map(alertKey));
  const fresh = announced === null ? [] : open.filter((alert) => !announced.has(alertKey(alert)));
  if (heardMs !== null) announced = keys;
  if (fresh.length) say($("announce"), fresh.slice(0, 3).map((a) => `Alert: ${a.title} at ${a.camera}, ${a.device}`).join(". "));
}

function newAlert(alert) {
  const element = template("alert-template");
  if (alert.thumbnail_url) {
    const image = new Image();
    image.alt = "";
    image.loading = "lazy";
    image.src = alert.thumbnail_url;
    element.querySelector(".thumb").append(image);
  } else element.querySelector(".thumb").classList.add("bare");
  return element;
}

function drawAlert(element, alert) {
  say(element.querySelector(".alert-label"), alert.title);
  say(element.querySelector(".alert-where"), `${alert.camera} · ${alert.store || alert.device}`);
  element.title = `${alert.rule}: ${alert.reason} · began ${utc(alert.since)}`;
}

function tickAlert({ element, item: alert }, now) {
  const since = Date.parse(alert.since);
  const when = element.querySelector(".alert-when");
  if (alert.state === "cleared") {
    const ended = Date.parse(alert.ended_at);
    say(when, `${span((now - ended) / 1000)} ago, after ${span((ended - since) / 1000)}`);
    when.title = utc(alert.ended_at);
    return;
  }
  say(when, `For ${span((now - since) / 1000)}, since ${timeOfDay(alert.since, now)}`);
  when.title = utc(alert.since);
  const device = known.devices.get(alert.device);
  const away = device && presenceOf(device, now) !== "online";
  say(element.querySelector(".alert-note"), away ? "The device is not online: this is the last that is known." : "");
}

/** Make a list hold exactly `wanted` ([key, item] in order), reusing elements. */
function keep(kept, list, wanted, make, prune = true) {
  const keys = new Set(wanted.map(([key]) => key));
  if (prune) for (const [key, entry] of kept) if (!keys.has(key)) { entry.element.remove(); kept.delete(key); }
  wanted.forEach(([key, item], i) => {
    let entry = kept.get(key);
    if (entry === undefined) {
      entry = { element: make(item), item };
      kept.set(key, entry);
    }
    entry.item = item;
    if (list.children[i] !== entry.element) list.insertBefore(entry.element, list.children[i] ?? null);
  });
}

// -- nothing to show yet: say what to do --------------------------------------------------------------------------------

function drawEmpty() {
  const nothing = heardMs !== null && known.cameras.size === 0 && !known.trouble;
  $("empty").hidden = !nothing;
  $("grid").hidden = nothing;
  if (!nothing) return;
  const device = [...known.devices.values()][0];
  if (device === undefined) {
    emptyState("No devices yet", "A camera's tile appears here with its first answer. Nothing needs to be added by hand.", [
      ["Try everything on this machine", "scripts/demo"],
      ["Or start a device", "shelfwire-agent config example > shelfwire.toml"],
      ["and", "shelfwire-agent run --config shelfwire.toml"],
    ]);
  } else {
    emptyState("No cameras yet", `${device.device} is known and has told of no camera. Add one to its configuration, under [[camera]], and start it again.`, [
      ["What the device says", "shelfwire-agent status"],
      ["See every key", "shelfwire-agent config example"],
    ]);
  }
}

function emptyState(title, text, steps) {
  say($("empty-title"), title);
  say($("empty-text"), text);
  const signature = JSON.stringify(steps);
  if ($("empty-steps").dataset.signature === signature) return;
  $("empty-steps").dataset.signature = signature;
  $("empty-steps").replaceChildren(...steps.map(([what, command]) => {
    const step = document.createElement("p");
    const code = document.createElement("code");
    code.textContent = command;
    step.append(`${what} `, code);
    return step;
  }));
}

// -- one camera, enlarged -----------------------------------------------------------------------------------------------

const closer = $("closer");

function enlarge(key) {
  enlarged = key;
  drawCloser();
  copyPicture(tiles.get(key));
  tick();
  closer.showModal();
}

closer.addEventListener("close", () => {
  const tile = tiles.get(enlarged);
  enlarged = null;
  $("closer-shot").replaceChildren();
  tile?.part.open.focus();
});
closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });
$("closer-close").addEventListener("click", () => closer.close());

function copyPicture(tile) {
  const image = tile?.part.shot.querySelector("img");
  if (image) $("closer-shot").replaceChildren(image.cloneNode());
  else say($("closer-shot"), "No picture yet");
}

function drawCloser() {
  const camera = known.cameras.get(enlarged);
  if (camera === undefined) return closer.close();
  const answer = camera.answer;
  say($("closer-title"), camera.camera);
  say($("closer-label"), answer ? answer.title : "No answer yet");
  drawRanks($("closer-ranks"), answer ? answer.labels : []);
  [...$("closer-ranks").children].forEach((item, i) => item.style.setProperty("--part", String(answer.labels[i].score)));
  const facts = [["Device", camera.device], ["Store", camera.store]];
  if (answer) {
    facts.push(
      ["State", stateText(answer, camera)],
      ["Truth", answer.correct === null ? "" : `${answer.truth_title}${answer.correct ? ", as answered" : ""}`],
      ["Answered by", `${answer.mode}${answer.model ? `, ${answer.model.name} ${answer.model.version}` : ""}`],
      ["Capture to answer", answer.late_ms === null ? milliseconds(answer.total_ms) : lateText(answer)],
      ["Captured", `${timeToSecond(answer.captured_at)} (${utc(answer.captured_at)})`],
      ["Frame", `${number(answer.frame)}${camera.picture && camera.picture.frame !== answer.frame ? `; the picture is frame ${number(camera.picture.frame)}` : ""}`],
      ["Record", `${camera.device}/${answer.run}/${answer.seq}`],
    );
  }
  facts.push(["Rate", camera.rate_fps ? `${camera.rate_fps.toFixed(1)} frames/s` : ""], ["Source", camera.kind]);
  drawLates(camera);
  drawFacts($("closer-list"), facts.filter(([, value]) => value));
}

function drawLates(camera) {
  const list = $("closer-late-list");
  $("closer-late").hidden = camera.late.length === 0;
  const signature = JSON.stringify(camera.late);
  if (list.dataset.signature === signature) return;
  list.dataset.signature = signature;
  list.replaceChildren(...camera.late.map((late) => {
    const item = document.createElement("li");
    item.dataset.mode = late.mode;
    item.dataset.agrees = String(late.agrees);
    const words = document.createElement("p");
    words.textContent = lateSays(late);
    const more = document.createElement("p");
    more.className = "late-more";
    const frame = late.frame === null ? "" : `frame ${number(late.frame)}, `;
    more.textContent = sentence(`${frame}answered ${milliseconds(late.late_ms)} after capture${late.agrees === null ? "; the device gave none" : ""}`);
    item.append(modeSign(late.mode), words, more);
    return item;
  }));
}

function drawFacts(list, facts) {
  while (list.children.length > facts.length * 2) list.lastElementChild.remove();
  while (list.children.length < facts.length * 2) {
    list.append(document.createElement("dt"), document.createElement("dd"));
  }
  facts.forEach(([name, value], i) => {
    say(list.children[i * 2], name);
    say(list.children[i * 2 + 1], value);
  });
}

function tickCloser(now) {
  const camera = known.cameras.get(enlarged);
  if (camera === undefined) return;
  const trouble = troubleOf(camera, now);
  const age = ageOf(camera, now);
  const stale = isStale(camera, now);
  closer.dataset.fresh = trouble ? "trouble" : stale ? "stale" : "fresh";
  const ageText = age === null ? "" : stale ? `No answer for ${span(age)}` : `${span(age)} ago`;
  say($("closer-why"), trouble ? `${sentence(trouble.text)}. ${sentence(trouble.cure)} (${trouble.code}).` : ageText);
}

listen(take);

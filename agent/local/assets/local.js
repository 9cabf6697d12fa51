// The device's page: asks for its state every second, for pictures only while they are looked at, and lets ages count
// up by themselves. When the device does not answer any more it says so, greys out what it shows, and goes on asking.

const LOOK_EVERY_MS = 1_000;
const ANSWER_WITHIN_MS = 4_000;
const LOST_AFTER_MS = 3_500;
const PICTURE_EVERY_MS = 200; // of one camera
const PICTURES_AT_ONCE = 2; // a browser has six connections for all of its tabs on this device
const TICK_MS = 250;

const $ = (id) => document.getElementById(id);
const now = () => performance.now();
const SERIOUS = ["failure", "warning"];
const cameras = new Map(); // name -> Camera, in the order of the configuration
let heardMs = null;
let state = null;
let large = null; // the camera that is shown alone

// -- words

const tenths = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const count = new Intl.NumberFormat();

/** A length of time in its one fitting unit. */
function span(seconds) {
  if (seconds < 9.95) return `${tenths.format(Math.max(0, seconds))} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  if (seconds < 171_000) return `${Math.round(seconds / 3600)} h`;
  return `${count.format(Math.round(seconds / 86_400))} days`;
}

function percent(score) {
  if (score < 1 && score >= 0.995) return ">99%";
  return `${Math.round(100 * score)}%`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let step = 0;
  while (bytes >= 999.5 && step < units.length - 1) { bytes /= 1000; step += 1; }
  return `${step && bytes < 9.95 ? tenths.format(bytes) : Math.round(bytes)} ${units[step]}`;
}

/** With a capital first, as a sentence begins; but names stay as they were given. */
function sentence(text) {
  const first = (text ?? "").split(/[\s:,]/, 1)[0];
  if (!first || first === state.model.name || first === state.device || cameras.has(first)) return text ?? "";
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// -- lists that are touched only where something has changed

/** Make `list` show `items`, each drawn into a copy of a template by `draw(element, item)`. */
function fill(list, template, items, draw) {
  while (list.children.length > items.length) list.lastElementChild.remove();
  while (list.children.length < items.length) list.append($(template).content.cloneNode(true));
  items.forEach((item, n) => draw(list.children[n], item));
}

function drawCard(element, { code, severity, what, detail, cure }) {
  element.dataset.severity = severity;
  say(element.querySelector(".what"), sentence(what));
  say(element.querySelector(".detail"), sentence(detail));
  say(element.querySelector(".cure"), cure ? `${sentence(cure)}.` : "");
  say(element.querySelector(".code"), code);
}

// -- a camera

const PHASES = { opening: "Opening", stalled: "No new pictures", failed: "No pictures", ended: "Ended" };
const ANSWERS = { confirmed: "Confirmed", pending: "Not sure yet", unknown: "Not known to the model" };

class Camera {
  facts = null;
  frame = 0; // number of the frame whose picture is shown
  takenMs = null; // when that frame was taken, on this page's clock
  askedMs = -Infinity;
  visible = false;
  busy = false;
  #answeredMs = null; // when the frame of the answer was taken

  constructor(name) {
    this.name = name;
    this.element = $("tile").content.firstElementChild.cloneNode(true);
    this.element.dataset.camera = name;
    say(this.element.querySelector(".name"), name);
    const open = this.element.querySelector(".open");
    open.setAttribute("aria-label", `${name}: show large`);
    open.addEventListener("click", () => enlarge(this));
    watcher.observe(this.element);
    watched.set(this.element, this);
  }

  /** Take what the device says of the camera. */
  take(facts) {
    this.facts = facts;
    this.#answeredMs = facts.answer ? now() - 1000 * facts.answer.age_s : null;
    this.draw(this.element);
    if (large === this) this.draw($("closer"));
  }

  draw(root) {
    const { answer, phase } = this.facts;
    root.dataset.answer = answer ? answer.state : "none";
    const label = answer ? (answer.label === "unknown" ? "Unknown" : answer.label) : (PHASES[phase] ?? "No answer yet");
    say(root.querySelector(".label"), label);
    const best = answer?.top.find((one) => one.label === answer.label); // none when unknown, or when another comes up
    const score = best?.score ?? 0;
    say(root.querySelector(".value"), best ? percent(score) : "");
    root.querySelector(".fill").style.setProperty("--part", score);
    fill(root.querySelector(".conditions"), "card", this.conditions(), drawCard);
    if (root === this.element) {
      root.toggleAttribute("data-bare", !this.address && Boolean(this.facts.code)); // its cure matters more than a black box
      say(root.querySelector(".rate"), phase === "streaming" ? `${tenths.format(this.facts.rate_fps)}/s` : "");
      const nearest = answer && !best ? `; nearest is ${answer.top[0].label}, ${percent(answer.top[0].score)}` : "";
      say(root.querySelector(".state"), answer ? ANSWERS[answer.state] + nearest : "");
      say(root.querySelector(".took"), answer ? `answered in ${Math.round(answer.took_ms)} ms` : "");
    } else {
      const next = answer ? answer.top.filter((one) => one.label !== label && one.score >= 0.005).slice(0, 2) : [];
      const ranks = $("closer-ranks");
      ranks.replaceChildren(...next.map((one) => {
        const row = document.createElement("li");
        const [name, value] = [document.createElement("span"), document.createElement("span")];
        name.textContent = one.label;
        value.textContent = percent(one.score);
        row.append(name, value);
        return row;
      }));
    }
  }

  /** What is wrong with it, in its own words, with the doctor's code where there is one. */
  conditions() {
    const { code, message, hint, conditions } = this.facts;
    const own = code ? [{ code, message, hint }] : [];
    const found = state.checks.find((one) => this.isAbout(one) && SERIOUS.includes(one.severity));
    return [...own, ...conditions.filter((one) => one.code !== code)].map((one, n) => ({
      code: n === 0 && found ? `${found.code} · ${one.code}` : one.code,
      severity: n === 0 && found ? found.severity : own.includes(one) ? "failure" : "warning",
      what: one.message,
      detail: "",
      cure: one.hint,
    }));
  }

  /** Whether the doctor speaks of this camera. */
  isAbout({ area, title }) {
    return area === "camera" && title.startsWith(`${this.name}:`);
  }

  /** Let the ages count up. */
  tick() {
    if (this.facts === null) return;
    this.#age(this.element);
    if (large === this) this.#age($("closer"));
  }

  #age(root) {
    const age = root.querySelector(".age");
    const oldestMs = Math.min(...[this.takenMs, this.#answeredMs].filter((ms) => ms !== null));
    const known = Number.isFinite(oldestMs);
    const seconds = known ? (now() - (this.takenMs ?? oldestMs)) / 1000 : 0;
    const answer = this.#answeredMs === null ? 0 : (now() - this.#answeredMs) / 1000;
    const isStale = known && Math.max(seconds, answer) > this.facts.stale_after_s;
    root.dataset.fresh = isStale ? "stale" : "fresh";
    age.hidden = !known;
    say(age, isStale ? `Old: ${span(Math.max(seconds, answer))}` : span(seconds));
  }

  // -- pictures

  get isWanted() {
    return !document.hidden && !this.busy && (large ? large === this : this.visible) && now() - this.askedMs >= PICTURE_EVERY_MS;
  }

  async fetchPicture() {
    this.busy = true;
    this.askedMs = now();
    try {
      const wide = large === this ? "&wide=1" : "";
      const answer = await ask(`/local/cameras/${encodeURIComponent(this.name)}.jpg?after=${this.frame}${wide}`);
      if (answer.status === 200) this.#show(await answer.blob(), answer.headers);
    } catch {
      this.askedMs = now() + LOOK_EVERY_MS; // the state's own answer tells whether the device is there
    } finally {
      this.busy = false;
      pictures();
    }
  }

  #show(blob, headers) {
    this.frame = Number(headers.get("Shelfwire-Frame") ?? 0);
    this.takenMs = now() - Number(headers.get("Shelfwire-Age-Ms"));
    const address = URL.createObjectURL(blob);
    this.#put(this.element, address);
    if (large === this) this.#put($("closer"), address);
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = address;
  }

  #put(root, address) {
    const picture = root.querySelector(".shot img");
    picture.src = address;
    picture.alt = `Live picture of ${this.name}`;
    picture.hidden = false;
    root.querySelector(".no-shot").hidden = true;
  }

  showIn(root) {
    root.querySelector(".shot img").hidden = true;
    root.querySelector(".no-shot").hidden = false;
    if (this.address) this.#put(root, this.address);
  }
}

const watched = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const camera = watched.get(entry.target);
    if (camera) camera.visible = entry.isIntersecting;
  }
  pictures();
}, { rootMargin: "300px" });

/** Ask for the pictures that are looked at, the one that was asked for longest ago first. */
function pictures() {
  if (document.body.dataset.link !== "live") return;
  let free = PICTURES_AT_ONCE - [...cameras.values()].filter((camera) => camera.busy).length;
  const wanted = [...cameras.values()].filter((camera) => camera.isWanted).sort((a, b) => a.askedMs - b.askedMs);
  for (const camera of wanted.slice(0, Math.max(0, free))) camera.fetchPicture();
}

// -- one camera alone

let awake = null;

function enlarge(camera) {
  large = camera;
  say($("closer-title"), camera.name);
  camera.showIn($("closer"));
  camera.draw($("closer"));
  camera.tick();
  $("closer").showModal();
  navigator.wakeLock?.request("screen").then((lock) => { awake = lock; }, () => {});
  pictures();
}

$("closer-close").addEventListener("click", () => $("closer").close());
$("closer").addEventListener("close", () => {
  large = null;
  awake?.release();
  awake = null;
});

// -- the device

function ask(address) {
  return fetch(address, { cache: "no-store", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
}

async function look() {
  const askedMs = now();
  if (!document.hidden) {
    try {
      const answer = await ask("/local/state");
      if (answer.status === 401) { location.assign("/login"); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      state = await answer.json();
      heardMs = now();
      show();
    } catch { /* said by `tick` once it lasts */ }
    tick();
  }
  setTimeout(look, Math.max(100, LOOK_EVERY_MS - (now() - askedMs)));
}

function show() {
  say($("device"), state.device);
  say($("store"), state.store);
  document.title = `${state.device} · Shelfwire`;
  $("logout").hidden = !state.password;
  showCameras();
  showNeeds();
  showFacts();
  showChecks();
}

function showCameras() {
  const names = state.cameras.map((camera) => camera.name);
  for (const [name, camera] of cameras) {
    if (names.includes(name)) continue;
    if (large === camera) $("closer").close();
    watcher.unobserve(camera.element);
    camera.element.remove();
    cameras.delete(name);
  }
  for (const facts of state.cameras) {
    if (!cameras.has(facts.name)) {
      const camera = new Camera(facts.name);
      cameras.set(facts.name, camera);
      camera.take(facts);
      $("grid").append(camera.element);
    } else cameras.get(facts.name).take(facts);
  }
}

/** Give what needs somebody, the worst first. */
function needs() {
  const bad = state.checks.filter((one) => SERIOUS.includes(one.severity));
  const found = bad.map((one) => ({ ...one, what: one.title }));
  const others = state.troubles.filter((one) => SERIOUS.includes(one.severity));
  found.push(...others.map((one) => ({ ...one, what: one.text, detail: "", area: "" })));
  return found.sort((a, b) => SERIOUS.indexOf(a.severity) - SERIOUS.indexOf(b.severity));
}

/** Whether the camera's own tile says this already. */
function isOnTile(one) {
  return [...cameras.values()].some((camera) => one.title && camera.isAbout(one) && camera.conditions().length > 0);
}

function showNeeds() {
  const found = needs();
  const worst = found.length ? found[0].severity : state.checks.length ? "fine" : "looking";
  $("needs").dataset.mood = worst;
  const many = found.length === 1 ? "1 thing needs you" : `${found.length} things need you`;
  say($("mood"), found.length ? many : worst === "fine" ? "All is well" : "Looking");
  const cards = found.filter((one) => !isOnTile(one));
  $("todo").hidden = cards.length === 0;
  fill($("cards"), "card", cards, drawCard);
  $("spoken").hidden = !state.spoken;
  if ($("spoken-code").textContent !== state.spoken) {
    $("spoken-code").replaceChildren(...state.spoken.split(" ").flatMap((code) => {
      const whole = document.createElement("span");
      whole.textContent = code;
      return [whole, " "];
    }).slice(0, -1));
  }
}

function fact(id, text, isBad = false) {
  say($(id), text);
  $(id).dataset.mood = isBad ? "warn" : "";
}

function showFacts() {
  const { sync, outbox, frames, model } = state;
  if (!sync) fact("f-cloud", "not known");
  else if (!sync.wanted) fact("f-cloud", "no broker is configured");
  else if (!sync.runs) fact("f-cloud", "sync does not run", true);
  else fact("f-cloud", sync.connected ? `connected to ${sync.broker}` : `not connected${sync.broker ? ` to ${sync.broker}` : ""}`, !sync.connected);
  if (!outbox) fact("f-outbox", "cannot be read", true);
  else {
    const waits = outbox.waiting === 1 ? "1 record waits" : `${count.format(outbox.waiting)} records wait`;
    const text = outbox.waiting ? `${waits} (${size(outbox.bytes)}), the oldest for ${span(outbox.oldest_age_s)}` : "empty";
    const night = outbox.for_the_night ? `; ${count.format(outbox.for_the_night)} for the night` : "";
    const dead = outbox.dead ? `; ${count.format(outbox.dead)} set aside` : "";
    fact("f-outbox", text + night + dead, outbox.dead > 0);
  }
  fact("f-model", `${model.name} ${model.version} on ${model.runtime}`);
  fact("f-frames", frames ? `${count.format(frames.classified)} answered here of ${count.format(frames.captured)}` : "not known");
  fact("f-running", span(state.running_s));
  fact("f-agent", `Shelfwire ${state.agent}`);
}

const VERDICTS = { ok: "Fine", warning: "Warning", failure: "Failure", skipped: "Not looked" };

function showChecks() {
  $("checks").hidden = state.checks.length === 0;
  say($("checks-title"), state.checks.length === 1 ? "1 check" : `All ${state.checks.length} checks`);
  const list = $("checks-list");
  while (list.children.length > state.checks.length) list.lastElementChild.remove();
  while (list.children.length < state.checks.length) {
    const row = document.createElement("li");
    for (const name of ["verdict", "title", "detail"]) {
      const part = document.createElement("span");
      part.className = name;
      row.append(part);
    }
    list.append(row);
  }
  state.checks.forEach(({ severity, title, detail, code }, n) => {
    const row = list.children[n];
    row.dataset.severity = severity;
    say(row.querySelector(".verdict"), SERIOUS.includes(severity) ? code : VERDICTS[severity]);
    say(row.querySelector(".title"), sentence(title));
    say(row.querySelector(".detail"), sentence(detail));
  });
}

/** Say whether the device answers, and let everything grow old. */
function tick() {
  const silentMs = heardMs === null ? now() : now() - heardMs;
  const link = silentMs > LOST_AFTER_MS ? "lost" : heardMs === null ? "connecting" : "live";
  if (document.body.dataset.link !== link) document.body.dataset.link = link;
  say($("link-text"), { live: "Live", lost: "No answer", connecting: "Connecting" }[link]);
  $("banner").hidden = link !== "lost";
  // Read aloud once: the count beside it is for the eye alone.
  say($("banner-text"), link === "lost" ? "This device does not answer: it is off, starting anew, or out of reach. Look at its power and at your own connection; this page goes on by itself." : "");
  say($("banner-since"), `Last heard ${span(Math.round(silentMs / 1000))} ago.`);
  for (const camera of cameras.values()) camera.tick();
  pictures();
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) heardMs = heardMs === null ? null : now(); });
setInterval(tick, TICK_MS);
look();

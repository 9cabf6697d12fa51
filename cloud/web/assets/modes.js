// The Modes page: asks for the figures again and again, and draws cards, plots and table from the same answer.

import { $, say } from "./dom.js";
import { bytes, milliseconds, number, score, sentence, span } from "./format.js";
import { Head } from "./head.js";
import { listen } from "./listen.js";
import { sayMode } from "./mode.js";
import { drawFlow, drawSpans } from "./plot.js";
import { Poll } from "./poll.js";
import { ServerClock } from "./stream.js";

const API = document.documentElement.dataset.api;
const EVERY_MS = 5_000;
const PATIENCE_MS = 12_000;
const DASH = "–";

const clock = new ServerClock();
const head = new Head();
const buttons = [...document.querySelectorAll("[data-window]")];
const windows = new Map(buttons.map((button) => [Number(button.dataset.window), button.textContent]));
let window_s = wanted();
let shown = null; // the last answer of the server

// -- asking -------------------------------------------------------------------------------------------------------------

function wanted() {
  const told = Number(new URLSearchParams(location.search).get("window"));
  return windows.has(told) ? told : Number(buttons[0].dataset.window);
}

const poll = new Poll(() => `${API}/modes?window_s=${window_s}`, { everyMs: EVERY_MS, patienceMs: PATIENCE_MS }, (answer) => {
  shown = answer;
  clock.note(Date.parse(answer.now));
  draw();
});

for (const button of buttons) {
  button.addEventListener("click", () => {
    window_s = Number(button.dataset.window);
    history.replaceState(null, "", window_s === Number(buttons[0].dataset.window) ? location.pathname : `?window=${window_s}`);
    press();
    poll.ask();
  });
}

function press() {
  for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.window) === window_s));
}

// -- drawing ------------------------------------------------------------------------------------------------------------

function draw() {
  for (const figures of shown.modes) drawWay(figures);
  const any = shown.modes.some((figures) => figures.answers > 0);
  for (const id of ["spans", "figures"]) $(id).hidden = !any;
  if (any) {
    drawPlot();
    drawTable();
  }
  tick();
  drawSummary();
}

function lately() {
  return `the last ${windows.get(shown.window_s)}`;
}

function drawWay(figures) {
  const way = $(`way-${figures.mode}`);
  const one = (selector) => way.querySelector(selector);
  sayMode(one(".way-name"), figures.mode, figures.title);
  one(".way-now").hidden = figures.answers === 0;
  one(".way-none").hidden = figures.answers > 0;
  if (figures.answers === 0) {
    const ever = figures.newest_at !== null;
    say(one(".none-title"), ever ? `None in ${lately()}` : `No ${figures.mode} answer yet`);
    one(".none-cure").hidden = ever;
    return;
  }
  say(one(".way-p50"), milliseconds(figures.latency_ms.p50));
  const rates = figures.rates.map((rate) => rate.per_minute);
  const most = Math.max(...rates, 0);
  drawFlow(one(".flow-plot"), rates, most);
  say(one(".flow-most"), `at most ${rateText(most)}`);
  say(one(".flow-from"), `${windows.get(shown.window_s)} ago`);
  one(".flow-plot").setAttribute("aria-label",
    `Over ${lately()}: ${rateText(figures.per_minute)} answers per minute on average, ${rateText(most)} at most`);
}

function rateText(rate) {
  if (rate > 0 && rate < 0.1) return "<0.1";
  return rate < 9.95 ? rate.toFixed(rate === 0 ? 0 : 1) : number(Math.round(rate));
}

function drawPlot() {
  const ways = shown.modes.map(({ mode, title, latency_ms: { p50, p95, p99 } }) => ({ mode, title, p50, p95, p99 }));
  drawSpans($("spans-plot"), ways, milliseconds);
}

const resized = new ResizeObserver(() => { if (shown && !$("spans").hidden) drawPlot(); });
resized.observe($("spans-plot"));

/** The rows of the table: a name, and what it says of one way's figures. */
const ROWS = [
  ["Answers", answersText],
  ["Half within", (f) => milliseconds(f.latency_ms.p50)],
  ["95 of 100 within", (f) => milliseconds(f.latency_ms.p95)],
  ["99 of 100 within", (f) => milliseconds(f.latency_ms.p99)],
  ["Per minute", (f) => (f.answers ? rateText(f.per_minute) : "")],
  ["Sent per answer", (f) => (f.bytes_per_answer === null ? "" : bytes(f.bytes_per_answer))],
  ["Cost", (f) => costText(f, f.usd)],
  ["Cost of 1,000", (f) => costText(f, f.usd_per_1000)],
  ["Agrees with the device", agreementText],
  ["Newest answer", newestText],
];

function answersText(figures) {
  if (!figures.bounded) return number(figures.answers);
  return figures.mode === "real-time" ? `about ${number(round(figures.answers))}` : `over ${number(figures.answers)}`;
}

/** To three digits: an estimate claims no more. */
function round(value) {
  return Number(value.toPrecision(3));
}

function costText(figures, usd) {
  if (!figures.answers) return "";
  if (figures.mode === "real-time") return "none";
  return usd === null ? "not metered" : dollars(usd);
}

function dollars(usd) {
  if (usd === 0) return "$0";
  return `$${usd >= 1 ? usd.toFixed(2) : usd >= 0.01 ? usd.toFixed(3) : usd.toPrecision(2)}`;
}

function agreementText(figures) {
  return figures.agreement === null ? "" : `${score(figures.agreement)} of ${number(figures.compared)}`;
}

function newestText(figures) {
  return figures.newest_at === null ? "" : `${span((clock.now() - Date.parse(figures.newest_at)) / 1000)} ago`;
}

function drawTable() {
  const body = $("sides");
  while (body.children.length < ROWS.length) body.append(newRow());
  ROWS.forEach(([name, text], i) => {
    const [title, ...cells] = body.children[i].children;
    say(title, name);
    shown.modes.forEach((figures, n) => sayCell(cells[n], text(figures)));
  });
  say($("sides-caption"), `The four ways over ${lately()}`);
  const notes = [];
  const bounded = shown.modes.filter((figures) => figures.bounded);
  if (bounded.some((figures) => figures.mode === "real-time")) notes.push("Real-time answers are estimated from samples of the whole time.");
  for (const figures of bounded) if (figures.mode !== "real-time") notes.push(`${figures.title}: figures are of the newest ${number(figures.answers)}.`);
  notes.push("Real-time ends when the device has the answer, the other ways when the cloud has it. Sent: the record of a real-time answer, the picture for the others. Cost: list price of the function's calls.");
  say($("footnote"), notes.join(" "));
}

function sayCell(cell, text) {
  say(cell, text || DASH);
  cell.dataset.told = String(text !== "");
}

function newRow() {
  const row = document.createElement("tr");
  row.setAttribute("role", "row");
  const title = document.createElement("th");
  title.scope = "row";
  title.setAttribute("role", "rowheader");
  row.append(title);
  for (const figures of shown.modes) {
    const cell = document.createElement("td");
    cell.setAttribute("role", "cell");
    cell.dataset.mode = figures.mode;
    row.append(cell);
  }
  return row;
}

// -- ages ---------------------------------------------------------------------------------------------------------------

function tick() {
  if (shown === null) return;
  for (const figures of shown.modes) {
    const newest = newestText(figures);
    say($(`way-${figures.mode}`).querySelector(".way-new"), newest ? `Newest ${newest}` : "");
    const cell = $("sides").lastElementChild?.querySelector(`[data-mode="${figures.mode}"]`);
    if (cell) sayCell(cell, newest);
  }
}

function drawSummary() {
  const old = (clock.now() - Date.parse(shown.now)) / 1000;
  const patient = Math.max(20, Math.min(60, shown.window_s / 600) + 15);
  const used = shown.modes.filter((figures) => figures.answers > 0).length;
  const text = old > patient ? `These figures are ${span(old)} old` : used === 0 ? `No answers in ${lately()}` : `${used} of 4 ways in use in ${lately()}`;
  say($("summary"), sentence(text));
  $("summary").dataset.mood = old > patient ? "warn" : "fine";
}

setInterval(() => {
  if (document.hidden || shown === null) return;
  tick();
  drawSummary();
}, 1000);

listen((message) => {
  const before = head.isLive;
  head.take(message);
  if (message.kind !== "link" && message.content.now) clock.note(Date.parse(message.content.now));
  if (head.isLive && !before) poll.ask(); // the server is back: what is shown is old
});
press();
poll.ask();

// Two small plots. Pure drawing: what they show is also in the table beside them.

const SVG = "http://www.w3.org/2000/svg";

/** Milliseconds at which the axis of `drawSpans` may carry a mark. */
const MARKS = [
  [1, "1 ms"], [10, "10 ms"], [100, "100 ms"], [1e3, "1 s"], [1e4, "10 s"], [6e4, "1 min"], [6e5, "10 min"], [36e5, "1 h"],
  [36e6, "10 h"], [864e5, "1 d"], [864e6, "10 d"],
];
const ROW_PX = 46; // with the name above the bar
const WIDE_ROW_PX = 62; // with the name beside it
const WIDE_PX = 440;
const NAMES_PX = 112;
const AXIS_PX = 26;
const EDGE_PX = 22; // half of the widest mark
const LEAST_BETWEEN_PX = 39;

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The rate over time as stairs, in the two paths of a `.flow-plot` of 100 by 40. `rates` are numbers; `most` is the top. */
export function drawFlow(svg, rates, most) {
  const step = 100 / Math.max(1, rates.length);
  const stairs = rates.map((rate, i) => `V${(40 - (most > 0 ? rate / most : 0) * 38).toFixed(2)}H${((i + 1) * step).toFixed(2)}`);
  const line = `M0 40${stairs.join("")}`;
  svg.querySelector(".flow-line").setAttribute("d", line);
  svg.querySelector(".flow-area").setAttribute("d", `${line}V40Z`);
}

/**
 * How long each way takes, on one logarithmic axis: a dot at the half, a tick at 95 and a bar up to 99 of 100.
 * `ways` are `{mode, title, p50, p95, p99}` in milliseconds, or with null where nothing was measured; `text` writes a time.
 */
export function drawSpans(place, ways, text) {
  const width = Math.max(240, place.clientWidth);
  const beside = width >= WIDE_PX;
  const rowPx = beside ? WIDE_ROW_PX : ROW_PX;
  const height = ways.length * rowPx + AXIS_PX;
  const measured = ways.filter((way) => way.p50 !== null);
  const least = Math.min(...measured.map((way) => way.p50), 100);
  const most = Math.max(...measured.map((way) => way.p99), 1000);
  const from = MARKS.filter(([ms]) => ms <= Math.max(1, least)).at(-1)[0];
  const to = (MARKS.find(([ms]) => ms >= most) ?? MARKS.at(-1))[0];
  const left = beside ? NAMES_PX + EDGE_PX : EDGE_PX;
  const x = (ms) => {
    const part = Math.log(Math.max(ms, from) / from) / Math.log(to / from);
    return left + Math.min(1, part) * (width - left - EDGE_PX);
  };
  const said = ways.map((way) => (way.p50 === null
    ? `${way.title}: nothing measured`
    : `${way.title}: half within ${text(way.p50)}, 95 of 100 within ${text(way.p95)}, 99 within ${text(way.p99)}`));
  const svg = make("svg", { class: "spans-svg", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${said.join(". ")}.` });
  svg.append(...axis(x, from, to, height));
  ways.forEach((way, i) => svg.append(row(way, i * rowPx, beside, x, text, width)));
  place.replaceChildren(svg);
}

function axis(x, from, to, height) {
  const parts = [];
  let last = -Infinity;
  for (const [ms, label] of MARKS) {
    if (ms < from || ms > to) continue;
    const at = x(ms);
    if (at - last < LEAST_BETWEEN_PX) continue;
    last = at;
    parts.push(make("path", { class: "spans-grid", d: `M${at.toFixed(1)} 4V${height - AXIS_PX + 4}` }));
    parts.push(make("text", { class: "spans-mark", x: at.toFixed(1), y: height - 6, "text-anchor": "middle" }, label));
  }
  return parts;
}

function row(way, top, beside, x, text, width) {
  const y = top + (beside ? WIDE_ROW_PX / 2 : ROW_PX * 0.68);
  const group = make("g", { "data-mode": way.mode });
  group.append(make("text", { class: "spans-name", x: 0, y: beside ? y + 5 : top + 15 }, way.title));
  if (way.p50 === null) return group;
  const [p50, p95, p99] = [x(way.p50), x(way.p95), x(way.p99)];
  group.append(
    make("path", { class: "spans-bar", d: `M${p50.toFixed(1)} ${y}H${Math.max(p99, p50 + 0.1).toFixed(1)}` }),
    make("path", { class: "spans-tick", d: `M${p95.toFixed(1)} ${y - 9}v18` }),
    make("circle", { class: "spans-dot", cx: p50.toFixed(1), cy: y, r: 6 }),
  );
  const label = text(way.p50);
  const fits = p99 + 14 + label.length * 8 < width;
  const at = fits ? { x: p99 + 14, "text-anchor": "start" } : { x: p50 - 12, "text-anchor": "end" };
  group.append(make("text", { class: "spans-value", y: y + 5, ...at }, label));
  return group;
}

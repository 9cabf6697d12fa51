// The four ways to an answer: their names and signs, so that none is told by its colour alone.

const NAMES = { "real-time": "Real-time", serverless: "Serverless", asynchronous: "Asynchronous", batch: "Batch" };

/** Drawn in a square of 16: a bolt, a cloud, a queue, a moon. */
const SIGNS = {
  "real-time": "M9 1.8L3.6 9h3.7l-.7 5.2L12.4 7H8.6z",
  serverless: "M4.6 12.6a3 3 0 0 1-.3-6 4 4 0 0 1 7.6.7 2.7 2.7 0 0 1-.4 5.3z",
  asynchronous: "M2.5 4h11M2.5 8h11M2.5 12h6",
  batch: "M13.2 9.7A5.7 5.7 0 1 1 6.5 2.8a4.6 4.6 0 0 0 6.7 6.9z",
};

export function modeName(mode) {
  return NAMES[mode] ?? mode;
}

/** The sign of a mode, for the eye only: its name stands beside it. */
export function modeSign(mode) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("sign");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", SIGNS[mode] ?? "");
  svg.append(path);
  return svg;
}

/** Put sign and text of a mode into an element, and touch it only when either has changed. */
export function sayMode(element, mode, text) {
  if (element.dataset.mode !== mode) {
    element.dataset.mode = mode;
    element.replaceChildren(modeSign(mode), document.createElement("span"));
  }
  const words = element.lastElementChild;
  if (words.textContent !== text) words.textContent = text;
}

// How a page comes to the server's one stream: through a worker that all tabs share, or alone where there is none.

import { Feed } from "./stream.js";

const root = document.documentElement;
const EVENTS = `${root.dataset.api}/events`;
const WORKER_WAIT_MS = 4_000;

/** Give every message of the stream to `take`, for as long as the page lives. */
export function listen(take) {
  if (typeof SharedWorker === "undefined") return listenAlone(take);
  let port = null;
  let answered = false;
  const alone = () => {
    if (answered) return;
    answered = true;
    port?.close();
    listenAlone(take);
  };
  try {
    const address = `/assets/worker.js?events=${encodeURIComponent(EVENTS)}&v=${encodeURIComponent(root.dataset.version)}`;
    const worker = new SharedWorker(address, { type: "module", name: `shelfwire ${root.dataset.version}` });
    worker.onerror = alone;
    port = worker.port;
  } catch {
    return alone();
  }
  const waiting = setTimeout(alone, WORKER_WAIT_MS);
  port.onmessage = ({ data }) => {
    if (data.kind === "hello") {
      clearTimeout(waiting);
      answered = true;
    } else take(data);
  };
  addEventListener("pagehide", () => port.postMessage("bye"));
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

function listenAlone(take) {
  const feed = new Feed(EVENTS, take);
  // A hidden tab gives its connection back: without a shared worker each tab holds one of the browser's six.
  document.addEventListener("visibilitychange", () => (document.hidden ? feed.close() : feed.open()));
}

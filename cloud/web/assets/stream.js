// The one stream of the server: opened, watched over, and merged into what is known now. Used by the shared worker, and
// by the page itself where there are no shared workers.

const SILENT_MS = 12_000; // four beats missed: the connection is dead, whatever the browser thinks
const RETRY_LEAST_MS = 500;
const RETRY_MOST_MS = 10_000;

/** The server's clock, told by its events. It runs on the monotonic clock: the viewer's wall clock may be wrong. */
export class ServerClock {
  #offsetMs = null;

  note(serverMs) {
    // An event arrives late, never early, so the largest offset is the best. A server that set its clock back: start anew.
    const offset = serverMs - performance.now();
    if (this.#offsetMs === null || offset > this.#offsetMs || offset < this.#offsetMs - 2000) this.#offsetMs = offset;
    else this.#offsetMs -= 0.5; // forgets slowly, for clocks that drift apart
  }

  now() {
    return this.#offsetMs === null ? Date.now() : this.#offsetMs + performance.now();
  }
}

/** What is known now: the last snapshot with all updates since. */
export class Known {
  cameras = new Map();
  devices = new Map();
  alerts = { open: [], recent: [] };
  version = null;
  trouble = null;

  /** Take one event; gives the keys of the cameras that it touched, or null for all. */
  take(kind, content) {
    if (kind === "snapshot") {
      this.cameras = new Map(content.cameras.map((camera) => [keyOf(camera), camera]));
      this.devices = new Map(content.devices.map((device) => [device.device, device]));
      this.alerts = content.alerts;
      this.version = content.version;
      this.trouble = null;
      return null;
    }
    if (kind === "trouble") this.trouble = content.trouble;
    if (kind !== "update") return [];
    for (const camera of content.cameras) this.cameras.set(keyOf(camera), camera);
    for (const device of content.devices) this.devices.set(device.device, device);
    for (const key of content.gone) this.cameras.delete(keyOf(key));
    if (content.alerts) this.alerts = content.alerts;
    return [...content.cameras, ...content.gone].map(keyOf);
  }

  snapshot(now) {
    const lists = { cameras: [...this.cameras.values()], devices: [...this.devices.values()] };
    return { now, version: this.version, ...lists, alerts: this.alerts };
  }
}

export function keyOf(camera) {
  return `${camera.device}/${camera.camera}`;
}

/** Keeps one EventSource open. Tells `{kind, content}`: the server's events, and `link` with `{open}` when that changes. */
export class Feed {
  #url;
  #tell;
  #source = null;
  #heardMs = 0;
  #retryMs = RETRY_LEAST_MS;
  #timer = null;
  #clock = new ServerClock();
  #known = new Known();
  #isOpen = false;

  constructor(url, tell) {
    this.#url = url;
    this.#tell = tell;
    setInterval(() => this.#watch(), 1000);
    this.open();
  }

  open() {
    this.close();
    this.#heardMs = performance.now();
    this.#source = new EventSource(this.#url);
    this.#source.onerror = () => this.#lost();
    for (const kind of ["snapshot", "update", "jobs", "beat", "trouble"]) {
      this.#source.addEventListener(kind, (event) => this.#take(kind, JSON.parse(event.data)));
    }
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#source?.close();
    this.#source = null;
  }

  /** Everything known now, as messages for someone who has just come. */
  whole() {
    const link = { kind: "link", content: { open: this.#isOpen } };
    if (this.#known.version === null) return [link];
    const now = new Date(this.#clock.now()).toISOString();
    const messages = [{ kind: "snapshot", content: this.#known.snapshot(now) }, link];
    if (this.#known.trouble) messages.push({ kind: "trouble", content: { now, trouble: this.#known.trouble } });
    return messages;
  }

  #take(kind, content) {
    this.#heardMs = performance.now();
    this.#retryMs = RETRY_LEAST_MS;
    this.#clock.note(Date.parse(content.now));
    this.#known.take(kind, content);
    this.#tell({ kind, content });
    this.#setOpen(true);
  }

  #lost() {
    this.#setOpen(false);
    // The browser tries again by itself unless the server answered with an error.
    if (this.#source?.readyState === EventSource.CLOSED) this.#retry();
  }

  #retry() {
    this.close();
    const pause = this.#retryMs * (0.5 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS);
    this.#timer = setTimeout(() => this.open(), pause);
  }

  #watch() {
    if (this.#source === null || performance.now() - this.#heardMs < SILENT_MS) return;
    this.#setOpen(false);
    this.#retry();
  }

  #setOpen(open) {
    if (open === this.#isOpen) return;
    this.#isOpen = open;
    this.#tell({ kind: "link", content: { open } });
  }
}

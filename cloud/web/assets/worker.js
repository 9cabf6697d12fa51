// One stream for all tabs: a browser opens at most six connections to a server, and a stream holds one for good.

import { Feed } from "./stream.js";

const tabs = new Set();
const api = new URL(self.location.href).searchParams.get("events");
const feed = new Feed(api, (message) => {
  for (const tab of tabs) tab.postMessage(message);
});

self.onconnect = (event) => {
  const tab = event.ports[0];
  tabs.add(tab);
  tab.onmessage = (message) => {
    if (message.data === "bye") tabs.delete(tab);
  };
  tab.postMessage({ kind: "hello" });
  for (const message of feed.whole()) tab.postMessage(message);
};

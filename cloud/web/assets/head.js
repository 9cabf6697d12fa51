// The head of a page: whether the stream lives, what is wrong with the server, and whether the page is outdated.

import { $, say } from "./dom.js";
import { sentence } from "./format.js";

const root = document.documentElement;

export class Head {
  #open = false;
  #heard = false;
  #trouble = null;
  #version = null;

  /** Take one message of the stream. */
  take({ kind, content }) {
    if (kind === "link") this.#open = content.open;
    else this.#heard = true;
    if (kind === "trouble") this.#trouble = content.trouble;
    if (kind === "snapshot") {
      this.#trouble = null;
      this.#version = content.version;
    }
    this.draw();
  }

  /** Whether what the page shows can be had anew. */
  get isLive() {
    return this.#heard && this.#open && this.#trouble === null;
  }

  draw() {
    const [link, text] = !this.#heard
      ? ["connecting", "Connecting"]
      : !this.#open ? ["lost", "Reconnecting"] : this.#trouble ? ["lost", "Server in trouble"] : ["live", "Live"];
    document.body.dataset.link = link;
    say($("link-text"), text);
    let banner = "";
    if (this.#trouble) banner = `${sentence(this.#trouble.text)}. ${sentence(this.#trouble.cure)}.`;
    else if (this.#version && this.#version !== root.dataset.version) banner = "The server has a newer version of this page: reload to get it.";
    say($("banner"), banner);
    $("banner").hidden = banner === "";
  }
}

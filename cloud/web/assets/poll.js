// Asks the server for one thing again and again while the page is seen.

export class Poll {
  #address;
  #times;
  #take;
  #timer = null;
  #asked = 0; // an answer to an older question is not taken

  /** `address` gives where to ask, `take` takes each answer; `everyMs` between two questions, `patienceMs` for one. */
  constructor(address, times, take) {
    this.#address = address;
    this.#times = times;
    this.#take = take;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.#timer);
      else this.ask();
    });
  }

  /** Ask now, and go on from there. */
  async ask() {
    clearTimeout(this.#timer);
    const mine = ++this.#asked;
    let answer = null;
    try {
      const signal = AbortSignal.timeout(this.#times.patienceMs);
      const response = await fetch(this.#address(), { cache: "no-store", signal });
      if (response.ok) answer = await response.json();
    } catch {
      // The head tells what is wrong with the server, and the page how old its figures are.
    }
    if (mine !== this.#asked) return;
    if (!document.hidden) this.#timer = setTimeout(() => this.ask(), this.#times.everyMs);
    if (answer !== null) this.#take(answer);
  }
}

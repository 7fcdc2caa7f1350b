// The server's events and its snapshots in their order. An event that comes while a snapshot is on its way would be undone by
// it, and of two snapshots the older one might arrive last.

/** @typedef {(late: boolean) => void} Apply late: after a snapshot that was on its way */

export class Turns {
  constructor() {
    /** @type {Apply[] | null} what waits for a snapshot; null: none is on its way */
    this.waiting = null;
    this.wanted = false;
  }

  /** @param {Apply} apply */
  event(apply) {
    if (this.waiting) this.waiting.push(apply);
    else apply(false);
  }

  /** Takes a snapshot; if one is on its way, another one after it. @param {() => Promise<void>} take */
  async snapshot(take) {
    this.wanted = true;
    if (this.waiting) return;
    /** @type {Apply[]} */
    const waiting = this.waiting = [];
    const applyAll = () => waiting.splice(0).forEach((apply) => apply(true));
    try {
      while (this.wanted) {
        this.wanted = false;
        await take().finally(applyAll);
      }
    } finally {
      this.waiting = null;
    }
  }
}

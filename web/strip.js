// The previews of a run, oldest first: thumbnails that a click enlarges, and how many of them are not seen.

import { element, enlarged } from "./element.js";
import { text } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./run.js").Preview} Preview */

/**
 * @typedef {object} Actions
 * @property {(run: Run, number: number, small: boolean) => string} preview a preview's URL
 * @property {(run: Run, preview: Preview) => void} keep
 */

export class Strip {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = element("div", { class: "ti-train-strip", role: "list", "data-label": "previews", onscroll: () => this.count() });
    this.hidden = element("div", { class: "ti-train-hint" });
    this.element = element("div", { class: "ti-train-previews" }, this.hidden, this.list);
    /** @type {Run | null} */
    this.run = null;
  }

  /** @param {Run} run */
  show(run) {
    if (this.run?.id !== run.id) this.list.replaceChildren();
    this.run = run;
    const kept = new Set(run.previews.map((picture) => picture.number));
    const shown = new Set();
    for (const item of [...this.list.children]) {
      const number = Number(item.getAttribute("data-number"));
      if (kept.has(number)) shown.add(number);
      else item.remove();
    }
    const missing = run.previews.filter((picture) => !shown.has(picture.number));
    this.list.append(...missing.map((picture) => this.item(run, picture)));
    this.element.hidden = !run.previews.length;
    if (missing.length) this.showNewest();
    this.count();
  }

  /** @param {Run} run @param {Preview} picture */
  item(run, picture) {
    const label = picture.step ? text("preview.step", picture) : text("preview.untrained");
    const title = `${label}: ${picture.prompt}`;
    const image = element("img", { src: this.actions.preview(run, picture.number, true), alt: title, loading: "lazy", draggable: "false" });
    const keep = () => element("button", {
      type: "button", class: "ti-train-keep", title: text("keep.tooltip"), onclick: () => this.actions.keep(run, picture),
    }, text("keep"));
    const enlarge = () => enlarged(this.actions.preview(run, picture.number, false), title, ...(picture.step ? [keep()] : []));
    const button = element("button", { type: "button", title, onclick: enlarge }, image, element("span", {}, label));
    return element("div", { role: "listitem", "data-number": picture.number }, button);
  }

  /** Rebuilds the items, in another language. */
  translate() {
    this.list.replaceChildren();
    if (this.run) this.show(this.run);
  }

  /** Scrolls to the newest preview. */
  showNewest() {
    this.list.scrollLeft = this.list.scrollWidth;
  }

  /** Says how many previews the server has dropped, and how many are outside of the strip. */
  count() {
    const { previews } = /** @type {Run} */ (this.run);
    const seen = (previews.at(-1)?.number ?? -1) + 1;
    const { scrollLeft, clientWidth } = this.list;
    const outside = [...this.list.children].filter((item) => {
      const middle = /** @type {HTMLElement} */ (item).offsetLeft + /** @type {HTMLElement} */ (item).offsetWidth / 2 - this.list.offsetLeft - scrollLeft;
      return middle < 0 || middle > clientWidth;
    }).length;
    const parts = [];
    if (seen > previews.length) parts.push(text("previews.kept", { kept: previews.length, seen }));
    if (clientWidth && outside) parts.push(text("previews.outside", { outside }));
    this.hidden.textContent = parts.join(" · ");
    this.hidden.hidden = !parts.length;
  }
}

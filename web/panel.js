// The live panel of a training run, in Train Embedding and in the sidebar: progress, chart, previews and buttons.

import { clock } from "./chart.js";
import { element } from "./element.js";
import { HEIGHT, LossChart } from "./loss_chart.js";
import { Strip } from "./strip.js";
import { text, translate } from "./text.js";

const GAP = 4, MARGIN = 28; // pixels: between parts, and around all of them
const NARROWEST = 120;

/** @typedef {import("./run.js").Run} Run */

/**
 * @typedef {object} Actions what the buttons do, and what the panel needs from the page
 * @property {(run: Run) => void} stop
 * @property {() => void} cancel
 * @property {(run: Run) => void} copy
 * @property {import("./strip.js").Actions["preview"]} preview
 * @property {import("./strip.js").Actions["keep"]} keep
 * @property {() => void} resize
 */

export class Panel {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    /** @type {Run | null} null: no run yet */
    this.run = null;
    this.needed = 0; // height in pixels
    this.connected = true;
    this.status = element("div", { class: "ti-train-status", role: "status" });
    this.bar = element("div", { class: "ti-train-done" });
    this.chart = new LossChart();
    this.legend = element(
      "div", { class: "ti-train-legend" },
      ...["measured", "noisy", "best"].map((curve) => element("span", { class: curve, "data-text": `legend.${curve}` })),
    );
    this.strip = new Strip(actions);
    this.facts = element("div", { class: "ti-train-facts" });
    this.warnings = element("ul", { class: "ti-train-warnings", "data-label": "warnings" });
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) => element("button", { type: "button", "data-text": name, "data-title": `${name}.tooltip`, onclick: act });
    this.stop = button("stop", () => this.run && this.actions.stop(this.run));
    this.cancel = button("cancel", () => this.actions.cancel());
    this.copy = button("copy", () => this.run && this.actions.copy(this.run));
    this.buttons = element("div", { class: "ti-train-buttons" }, this.stop, this.cancel, this.copy);
    const bar = element("div", { class: "ti-train-bar" }, this.bar);
    this.element = element(
      "div", { class: "ti-train-panel" },
      this.status, bar, this.chart.element, this.legend, this.strip.element, this.facts, this.warnings, this.buttons,
    );
    const observer = new ResizeObserver(() => this.fit());
    for (const part of [this.element, this.chart.element]) observer.observe(part);
    this.translate();
  }

  /** Writes all texts, in the language that is set. */
  translate() {
    translate(this.element);
    this.strip.translate();
    this.draw();
  }

  /** Height in pixels that the parts need at the node's width, where text may wrap. */
  get height() {
    if (this.element.offsetWidth < NARROWEST) return this.run ? 350 : 44; // not laid out yet
    const parts = [this.status, this.bar, this.legend, this.strip.element, this.facts, this.warnings, this.buttons];
    const high = parts.reduce((sum, part) => sum + (part.offsetHeight ? part.offsetHeight + GAP : 0), MARGIN);
    return this.run ? high + HEIGHT + GAP : Math.max(44, high);
  }

  /** Redraws at the current size, and requests more height if the node has become too small. */
  fit() {
    if (this.chart.element.clientWidth && !this.chart.drawn.width) this.strip.showNewest(); // has just become visible
    this.chart.fit();
    if (this.run) this.strip.count();
    if (this.height === this.needed) return;
    this.needed = this.height;
    this.actions.resize();
  }

  /** Shows a run from the server's snapshot; null: no run yet. @param {Run | null} run */
  show(run) {
    this.run = run;
    this.draw();
  }

  /** @param {boolean} connected */
  connection(connected) {
    this.connected = connected;
    this.draw();
  }

  draw() {
    const run = this.run;
    this.element.classList.toggle("ti-train-idle", !run);
    if (!run) {
      this.status.textContent = text("idle");
      return this.fit();
    }
    const running = run.status === "running";
    this.status.setAttribute("aria-live", running && this.connected && !run.stopping ? "off" : "polite"); // a screen reader does not announce every step
    this.status.textContent = this.statusText(run);
    this.status.title = run.message;
    this.bar.style.width = `${(100 * run.step) / run.steps}%`;
    this.element.dataset.status = this.connected ? run.status : "lost";
    this.strip.show(run);
    this.facts.replaceChildren(...this.factLines(run));
    this.warnings.replaceChildren(...run.warnings.map((warning) => element("li", {}, warning)));
    this.stop.hidden = this.cancel.hidden = !running;
    this.stop.disabled = !this.connected || run.stopping === true;
    this.copy.hidden = running || !["done", "stopped", "used"].includes(run.status) || !run.saved;
    this.chart.show(run); // last: it takes the remaining height
    this.fit();
  }

  /** @param {Run} run */
  statusText(run) {
    const step = text("step", run);
    if (run.status !== "running") return `${run.name}: ${text(`ended.${run.status}`)} (${step})${run.message ? ". " + run.message : ""}`;
    if (!this.connected) return `${run.name}: ${text("disconnected")} (${step})`;
    if (run.stopping) return `${run.name}: ${text("stopping")} (${step})`;
    const parts = [step];
    if (run.rate) parts.push(text("rate", { rate: run.rate.toFixed(run.rate < 1 ? 2 : 1) }));
    if (run.elapsed != null) parts.push(text("elapsed", { time: clock(run.elapsed) }));
    if (run.left != null) parts.push(text("left", { time: clock(run.left) }));
    return `${run.name}: ${parts.join(" · ")}`;
  }

  /** @param {Run} run */
  factLines({ data, norm, vocabulary_norm: usual, nearest: near, best }) {
    const line = (/** @type {string} */ name, /** @type {string} */ value) => element("div", {}, element("span", {}, text(name)), value);
    const lines = [];
    if (data) lines.push(line("data", text("data.value", data)));
    if (best) lines.push(line("best", text("best.value", { loss: best[1].toPrecision(4), step: best[0] })));
    if (norm && usual) lines.push(line("length", text("length.value", { norm: norm.toFixed(2), usual: usual.toFixed(2) })));
    if (near) {
      const words = near.map((ofVector) => ofVector.map(([word, similarity]) => `${word} ${similarity.toFixed(2)}`).join(", "));
      lines.push(line("nearest", words.join("; ")));
    }
    return lines;
  }
}

// The live panel inside Train Embedding: what a run has brought so far, and the buttons that end or use it.

import { clock, extent, nearest, path, scale, smoothed, thinned, ticks } from "./chart.js";

const MOST = 400, PREVIEWS = 24, WARNINGS = 20; // kept: points of a curve, pictures of a prompt, texts
const CHART = 120, GAP = 4, MARGIN = 28; // pixels: the chart's least height, between parts, and around all of them
const NARROWEST = 120;
const LEFT = 46, BOTTOM = 18, TOP = 8, RIGHT = 8; // around the curves
const ENDED = {
  done: "Learnt",
  stopped: "Stopped and kept",
  cancelled: "Cancelled; if_exists = continue goes on",
  failed: "Failed",
  lost: "The server has restarted; what was saved last is in the embeddings folder",
};

/** An element with attributes and children; text is only ever text. */
export function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "g", "title"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export class Panel {
  /** actions: stop(run), cancel(), copy(text), preview(run, number) -> address, resize(). */
  constructor(actions) {
    this.actions = actions;
    this.run = null;
    this.connected = true;
    this.status = element("div", { class: "ti-train-status", role: "status" });
    this.bar = element("div", { class: "ti-train-done" });
    this.chart = element("div", { class: "ti-train-chart" });
    this.strip = element("div", { class: "ti-train-strip", role: "list", "aria-label": "Previews by step" });
    this.facts = element("div", { class: "ti-train-facts" });
    this.warnings = element("ul", { class: "ti-train-warnings" });
    const button = (text, title, act) => element("button", { type: "button", title, onclick: act }, text);
    const keep = "Ends the training now and keeps the best word so far, by the noise-free loss; the graph runs on with it";
    this.stop = button("Stop and keep", keep, () => this.actions.stop(this.run));
    this.cancel = button("Cancel", "Ends the whole graph; the last step is kept on disk", () => this.actions.cancel());
    this.copy = button("Copy prompt", "Puts a prompt with the word on the clipboard", () => this.actions.copy(this.run.prompt));
    this.buttons = element("div", { class: "ti-train-buttons" }, this.stop, this.cancel, this.copy);
    const bar = element("div", { class: "ti-train-bar" }, this.bar);
    this.element = element(
      "div", { class: "ti-train-panel" },
      this.status, bar, this.chart, this.strip, this.facts, this.warnings, this.buttons,
    );
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.element);
    this.show(null);
  }

  remove() {
    this.observer.disconnect();
  }

  /** What the parts need at the node's width; text that is broken into more lines needs more. */
  get height() {
    if (this.element.offsetWidth < NARROWEST) return this.run ? 350 : 44; // not laid out yet: its text stands on end
    const parts = [this.status, this.bar, this.strip, this.facts, this.warnings, this.buttons];
    const text = parts.reduce((sum, part) => sum + (part.offsetHeight ? part.offsetHeight + GAP : 0), MARGIN);
    return this.run ? text + CHART + GAP : Math.max(44, text);
  }

  /** Draws anew at another width, and asks for room where the node has become too small. */
  fit() {
    if (this.run && this.chart.clientWidth !== this.width) this.drawChart();
    if (this.height === this.needed) return;
    this.needed = this.height;
    this.actions.resize();
  }

  /** Shows a run from the server's snapshot; null: none yet. */
  show(run) {
    const other = run?.id !== this.run?.id;
    this.run = run;
    this.element.classList.toggle("ti-train-idle", !run);
    if (other) this.strip.replaceChildren();
    this.draw();
  }

  progress({ run: _, loss, evaluations, ...numbers }) {
    Object.assign(this.run, numbers);
    this.run.loss = thinned(this.run.loss.concat(loss), MOST);
    this.run.evaluations = thinned(this.run.evaluations.concat(evaluations), MOST);
    this.draw();
  }

  preview(picture) {
    const others = this.run.previews.filter((p) => p.prompt !== picture.prompt);
    const same = this.run.previews.filter((p) => p.prompt === picture.prompt);
    this.run.previews = others.concat(thinned([...same, picture], PREVIEWS)).sort((a, b) => a.number - b.number);
    this.draw();
  }

  warning(message) {
    this.run.warnings = [...this.run.warnings, message].slice(-WARNINGS);
    this.draw();
  }

  connection(connected) {
    this.connected = connected;
    this.draw();
  }

  draw() {
    const run = this.run;
    if (!run) {
      this.status.textContent = "Press Run: the loss, previews and the word's neighbours appear here.";
      return this.fit();
    }
    const running = run.status === "running";
    this.status.textContent = this.statusText(running);
    this.status.title = run.message;
    this.bar.style.width = `${(100 * run.step) / run.steps}%`;
    this.element.dataset.status = this.connected ? run.status : "lost";
    this.drawChart();
    this.drawStrip();
    this.facts.replaceChildren(...this.factLines());
    this.warnings.replaceChildren(...run.warnings.map((text) => element("li", {}, text)));
    this.stop.hidden = this.cancel.hidden = !running;
    this.stop.disabled = !this.connected || run.stopping === true;
    this.copy.hidden = running || !["done", "stopped"].includes(run.status) || !run.saved;
    this.fit();
  }

  statusText(running) {
    const run = this.run;
    const step = `step ${run.step} of ${run.steps}`;
    if (!running) return `${run.name}: ${ENDED[run.status]} (${step})${run.message ? ". " + run.message : ""}`;
    if (!this.connected) return `${run.name}: no connection to the server; trying again (${step})`;
    if (run.stopping) return `${run.name}: stopping after this step (${step})`;
    const rate = run.rate ? ` · ${run.rate < 1 ? run.rate.toFixed(2) : run.rate.toFixed(1)} steps/s` : "";
    const left = run.left != null ? `, ${clock(run.left)} left` : "";
    return `${run.name}: ${step}${rate}` + (run.elapsed != null ? ` · ${clock(run.elapsed)} gone${left}` : "");
  }

  factLines() {
    const { norm, vocabulary_norm: usual, nearest: near, best } = this.run;
    const line = (name, value) => element("div", {}, element("span", {}, name), value);
    const lines = [];
    if (best) lines.push(line("Best", `${best[1].toFixed(4)} at step ${best[0]} (noise-free loss)`));
    if (norm && usual) lines.push(line("Length", `${norm.toFixed(2)}; the model's words: ${usual.toFixed(2)}`));
    if (near) {
      const words = near.map((words) => words.map(([word, like]) => `${word} ${like.toFixed(2)}`).join(", "));
      lines.push(line("Nearest words", words.join("; ")));
    }
    return lines;
  }

  drawChart() {
    const { evaluations, steps, best } = this.run;
    const noisy = smoothed(this.run.loss);
    const width = (this.width = this.chart.clientWidth) || 340;
    const height = this.chart.clientHeight || CHART;
    const [low, high] = extent(noisy, evaluations);
    const x = scale(0, steps, LEFT, width - RIGHT);
    const y = scale(low, high, height - BOTTOM, TOP);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img" });
    svg.append(element("title", {}, "Noise-free loss, and the loss of the steps faint behind it"));
    for (const value of ticks(low, high, 4)) {
      svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      svg.append(element("text", { x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" }, String(value)));
    }
    for (const step of ticks(0, steps, 4).filter(Number.isInteger)) {
      svg.append(element("text", { x: x(step), y: height - 4, "text-anchor": "middle" }, String(step)));
    }
    svg.append(element("path", { class: "noisy", d: path(noisy, x, y) }));
    svg.append(element("path", { class: "measured", d: path(evaluations, x, y) }));
    if (best) svg.append(element("circle", { class: "best", cx: x(best[0]), cy: y(best[1]), r: 4 }));
    const cursor = element("line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
    const reading = element("text", { class: "reading", y: TOP + 8 });
    svg.append(cursor, reading);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      this.read((((event.clientX - box.left) / box.width) * width - LEFT) / (width - RIGHT - LEFT) * steps);
    });
    svg.addEventListener("pointerleave", () => this.read(null));
    svg.addEventListener("blur", () => this.read(null));
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      this.read((this.reading ?? this.run.step) + by * Math.max(1, Math.round(steps / 40)));
    });
    this.cursor = { cursor, reading, x, middle: width / 2 };
    const focused = this.chart.contains(document.activeElement);
    this.chart.replaceChildren(svg);
    if (focused) svg.focus({ preventScroll: true });
    this.read(this.reading ?? null);
  }

  /** Shows the values at a step; null: none. */
  read(step) {
    const { cursor, reading, x, middle } = this.cursor;
    const { loss, evaluations, steps } = this.run;
    this.reading = step;
    cursor.setAttribute("visibility", step == null || !evaluations.length ? "hidden" : "visible");
    reading.textContent = "";
    if (step == null || !evaluations.length) return;
    this.reading = Math.min(steps, Math.max(0, Math.round(step)));
    const measured = nearest(evaluations, this.reading);
    const noisy = loss.length ? ` · step ${nearest(loss, this.reading)[0]}: ${nearest(loss, this.reading)[1].toFixed(4)}` : "";
    const at = x(measured[0]);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    reading.textContent = `noise-free, step ${measured[0]}: ${measured[1].toFixed(4)}${noisy}`;
    reading.setAttribute("x", at > middle ? at - 5 : at + 5);
    reading.setAttribute("text-anchor", at > middle ? "end" : "start");
  }

  drawStrip() {
    const kept = new Set(this.run.previews.map((picture) => picture.number));
    for (const item of [...this.strip.children]) if (!kept.has(Number(item.dataset.number))) item.remove();
    const shown = new Set([...this.strip.children].map((item) => Number(item.dataset.number)));
    for (const picture of this.run.previews.filter((p) => !shown.has(p.number))) {
      const label = picture.step ? `step ${picture.step}` : "untrained";
      const src = this.actions.preview(this.run, picture.number);
      const title = `${label}: ${picture.prompt}`;
      const image = element("img", { src, alt: title, loading: "lazy", draggable: "false" });
      const enlarge = element("button", { type: "button", title, onclick: () => enlarged(src, title) }, image, element("span", {}, label));
      this.strip.append(element("div", { role: "listitem", "data-number": picture.number }, enlarge));
      this.strip.scrollLeft = this.strip.scrollWidth;
    }
    this.strip.hidden = !this.run.previews.length;
  }
}

/** A picture over the whole page; a click, Escape or Enter closes it. */
export function enlarged(src, title) {
  const dialog = element("dialog", { class: "ti-train-enlarged", "aria-label": title });
  dialog.append(element("img", { src, alt: title }), element("p", {}, title));
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

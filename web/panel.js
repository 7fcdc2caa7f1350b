// The live panel of a run, in Train Embedding and in the sidebar: what it has brought so far, and buttons to end or use it.

import { clock, extent, nearest, path, scale, ticks } from "./chart.js";
import { text } from "./text.js";

const CHART = 120, GAP = 4, MARGIN = 28; // pixels: the chart's least height, between parts, and around all of them
const NARROWEST = 120;
const LEFT = 46, BOTTOM = 18, TOP = 8, RIGHT = 8; // around the curves

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
    this.strip = element("div", { class: "ti-train-strip", role: "list", "aria-label": text("previews") });
    this.facts = element("div", { class: "ti-train-facts" });
    this.warnings = element("ul", { class: "ti-train-warnings", "aria-label": text("warnings") });
    const button = (name, act) => element("button", { type: "button", title: text(`${name}.tooltip`), onclick: act }, text(name));
    this.stop = button("stop", () => this.actions.stop(this.run));
    this.cancel = button("cancel", () => this.actions.cancel());
    this.copy = button("copy", () => this.actions.copy(this.run.prompt));
    this.buttons = element("div", { class: "ti-train-buttons" }, this.stop, this.cancel, this.copy);
    const bar = element("div", { class: "ti-train-bar" }, this.bar);
    this.element = element(
      "div", { class: "ti-train-panel" },
      this.status, bar, this.chart, this.strip, this.facts, this.warnings, this.buttons,
    );
    this.observer = new ResizeObserver(() => this.fit());
    for (const part of [this.element, this.chart]) this.observer.observe(part);
    this.show(null);
  }

  remove() {
    this.observer.disconnect();
  }

  /** What the parts need at the node's width; text that is broken into more lines needs more. */
  get height() {
    if (this.element.offsetWidth < NARROWEST) return this.run ? 350 : 44; // not laid out yet: its text stands on end
    const parts = [this.status, this.bar, this.strip, this.facts, this.warnings, this.buttons];
    const high = parts.reduce((sum, part) => sum + (part.offsetHeight ? part.offsetHeight + GAP : 0), MARGIN);
    return this.run ? high + CHART + GAP : Math.max(44, high);
  }

  /** Draws anew at another size, and asks for room where the node has become too small. */
  fit() {
    const { clientWidth, clientHeight } = this.chart;
    if (clientWidth && !this.drawn?.width) this.showNewest(); // just come into view
    if (this.run && (clientWidth !== this.drawn.width || clientHeight !== this.drawn.height)) this.drawChart();
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

  connection(connected) {
    this.connected = connected;
    this.draw();
  }

  draw() {
    const run = this.run;
    if (!run) {
      this.status.textContent = text("idle");
      return this.fit();
    }
    const running = run.status === "running";
    this.status.setAttribute("aria-live", running && this.connected && !run.stopping ? "off" : "polite"); // not every step is read out
    this.status.textContent = this.statusText(running);
    this.status.title = run.message;
    this.bar.style.width = `${(100 * run.step) / run.steps}%`;
    this.element.dataset.status = this.connected ? run.status : "lost";
    this.drawStrip();
    this.facts.replaceChildren(...this.factLines());
    this.warnings.replaceChildren(...run.warnings.map((warning) => element("li", {}, warning)));
    this.stop.hidden = this.cancel.hidden = !running;
    this.stop.disabled = !this.connected || run.stopping === true;
    this.copy.hidden = running || !["done", "stopped"].includes(run.status) || !run.saved;
    this.drawChart(); // last: it takes the height that the others leave
    this.fit();
  }

  statusText(running) {
    const run = this.run;
    const step = text("step", run);
    if (!running) return `${run.name}: ${text(`ended.${run.status}`)} (${step})${run.message ? ". " + run.message : ""}`;
    if (!this.connected) return `${run.name}: ${text("disconnected")} (${step})`;
    if (run.stopping) return `${run.name}: ${text("stopping")} (${step})`;
    const parts = [step];
    if (run.rate) parts.push(text("rate", { rate: run.rate.toFixed(run.rate < 1 ? 2 : 1) }));
    if (run.elapsed != null) parts.push(text("elapsed", { time: clock(run.elapsed) }));
    if (run.left != null) parts.push(text("left", { time: clock(run.left) }));
    return `${run.name}: ${parts.join(" · ")}`;
  }

  factLines() {
    const { norm, vocabulary_norm: usual, nearest: near, best } = this.run;
    const line = (name, value) => element("div", {}, element("span", {}, text(name)), value);
    const lines = [];
    if (best) lines.push(line("best", text("best.value", { loss: best[1].toFixed(4), step: best[0] })));
    if (norm && usual) lines.push(line("length", text("length.value", { norm: norm.toFixed(2), usual: usual.toFixed(2) })));
    if (near) {
      const words = near.map((words) => words.map(([word, like]) => `${word} ${like.toFixed(2)}`).join(", "));
      lines.push(line("nearest", words.join("; ")));
    }
    return lines;
  }

  drawChart() {
    const { loss, evaluations, steps, best } = this.run;
    this.drawn = { width: this.chart.clientWidth, height: this.chart.clientHeight };
    const width = this.drawn.width || 340;
    const height = this.drawn.height || CHART;
    const [low, high] = extent(loss, evaluations);
    const x = scale(0, steps, LEFT, width - RIGHT);
    const y = scale(low, high, height - BOTTOM, TOP);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img" });
    svg.append(element("title", {}, text("chart")));
    for (const value of ticks(low, high, 4)) {
      svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      svg.append(element("text", { x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" }, String(value)));
    }
    for (const step of ticks(0, steps, Math.min(4, Math.ceil(width / 80))).filter(Number.isInteger)) {
      svg.append(element("text", { x: x(step), y: height - 4, "text-anchor": "middle" }, String(step)));
    }
    svg.append(element("path", { class: "noisy", d: path(loss, x, y) }));
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
    const said = ([step, value]) => ({ step, loss: value.toFixed(4) });
    const noisy = loss.length ? ` · ${text("reading.step", said(nearest(loss, this.reading)))}` : "";
    const at = x(measured[0]);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    reading.textContent = text("reading.measured", said(measured)) + noisy;
    reading.setAttribute("x", at > middle ? at - 5 : at + 5);
    reading.setAttribute("text-anchor", at > middle ? "end" : "start");
  }

  drawStrip() {
    const kept = new Set(this.run.previews.map((picture) => picture.number));
    for (const item of [...this.strip.children]) if (!kept.has(Number(item.dataset.number))) item.remove();
    const shown = new Set([...this.strip.children].map((item) => Number(item.dataset.number)));
    for (const picture of this.run.previews.filter((p) => !shown.has(p.number))) {
      const label = picture.step ? text("preview.step", picture) : text("preview.untrained");
      const src = this.actions.preview(this.run, picture.number);
      const title = `${label}: ${picture.prompt}`;
      const image = element("img", { src, alt: title, loading: "lazy", draggable: "false" });
      const enlarge = element("button", { type: "button", title, onclick: () => enlarged(src, title) }, image, element("span", {}, label));
      this.strip.append(element("div", { role: "listitem", "data-number": picture.number }, enlarge));
      this.showNewest();
    }
    this.strip.hidden = !this.run.previews.length;
  }

  /** Scrolls the previews to the last one. */
  showNewest() {
    this.strip.scrollLeft = this.strip.scrollWidth;
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

// The loss chart of a run. The pointer and the arrow keys show the values at a step.

import { extent, nearest, outline, path, scale, ticks } from "./chart.js";
import { element, svgElement } from "./element.js";
import { text } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./chart.js").Point} Point */
/** @typedef {import("./chart.js").Scale} Scale */

export const HEIGHT = 120; // pixels, minimum
const WIDTH = 340; // pixels, until the layout is known
const LEFT = 46, BOTTOM = 18, TOP = 8, RIGHT = 8; // margins around the curves

export class LossChart {
  constructor() {
    this.element = element("div", { class: "ti-train-chart" });
    this.drawn = { width: 0, height: 0 };
    /** @type {Run | null} */
    this.run = null;
    /** @type {number | null} the step whose values are shown */
    this.reading = null;
    /** @type {{cursor: SVGLineElement, dots: SVGGElement, reading: SVGTextElement, x: Scale, y: Record<string, Scale>, middle: number} | null} */
    this.cursor = null;
  }

  /** @param {Run} run */
  show(run) {
    this.run = run;
    this.draw();
  }

  /** Redraws if the size has changed. */
  fit() {
    const { clientWidth, clientHeight } = this.element;
    if (clientWidth !== this.drawn.width || clientHeight !== this.drawn.height) this.draw();
  }

  draw() {
    if (!this.run) return;
    const { loss, evaluations, band = [], steps, best } = this.run;
    /** @type {Point[]} */
    const ends = band.flatMap(([step, low, high]) => [[step, low], [step, high]]);
    this.drawn = { width: this.element.clientWidth, height: this.element.clientHeight };
    const width = this.drawn.width || WIDTH;
    const height = this.drawn.height || HEIGHT;
    const [low, high] = extent(evaluations.length ? evaluations.concat(ends) : loss);
    const x = scale(0, steps, LEFT, width - RIGHT);
    const y = scale(low, high, height - BOTTOM, TOP);
    const beside = scale(...extent(loss), height - BOTTOM, TOP); // the two losses are not comparable
    const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img" });
    svg.append(svgElement("title", {}, text("chart")));
    for (const value of ticks(low, high, 4)) {
      svg.append(svgElement("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      svg.append(svgElement("text", { x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" }, String(value)));
    }
    for (const step of ticks(0, steps, Math.min(4, Math.ceil(width / 80))).filter(Number.isInteger)) {
      const anchor = x(step) > width - RIGHT - 20 ? "end" : "middle"; // the last one must not reach over the edge
      svg.append(svgElement("text", { x: x(step) + (anchor === "end" ? RIGHT : 0), y: height - 4, "text-anchor": anchor }, String(step)));
    }
    svg.append(svgElement("path", { class: "band", d: outline(band, x, y) }));
    svg.append(svgElement("path", { class: "noisy", d: path(loss, x, beside) }));
    svg.append(svgElement("path", { class: "measured", d: path(evaluations, x, y) }));
    if (best) svg.append(svgElement("circle", { class: "best", cx: x(best[0]), cy: y(best[1]), r: 4 }));
    const cursor = svgElement("line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
    const dots = svgElement("g", { class: "dots" });
    const reading = svgElement("text", { class: "reading", y: TOP + 8 });
    svg.append(cursor, dots, reading);
    this.listen(svg, width);
    this.cursor = { cursor, dots, reading, x, y: { measured: y, noisy: beside }, middle: width / 2 };
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren(svg);
    if (focused) svg.focus({ preventScroll: true });
    this.read(this.reading);
  }

  /** @param {SVGSVGElement} svg @param {number} width */
  listen(svg, width) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const part = (((event.clientX - box.left) / box.width) * width - LEFT) / (width - RIGHT - LEFT);
      this.read(part * (this.run?.steps ?? 0));
    });
    svg.addEventListener("pointerleave", () => this.read(null));
    svg.addEventListener("blur", () => this.read(null));
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || !this.run) return;
      event.preventDefault();
      event.stopPropagation();
      this.read((this.reading ?? this.run.step) + by * Math.max(1, Math.round(this.run.steps / 40)));
    });
  }

  /** Shows the drawn values that are nearest to a step; null hides them. @param {number | null} step */
  read(step) {
    if (!this.cursor || !this.run) return;
    const { cursor, dots, reading, x, y, middle } = this.cursor;
    const { loss, evaluations, steps } = this.run;
    const at = step === null ? null : Math.min(steps, Math.max(0, Math.round(step)));
    this.reading = at;
    const curves = { measured: evaluations, noisy: loss };
    /** @type {[string, Point][]} */
    const read = at === null ? [] : Object.entries(curves).filter(([, points]) => points.length).map(([name, points]) => [name, nearest(points, at)]);
    cursor.setAttribute("visibility", read.length ? "visible" : "hidden");
    dots.replaceChildren(...read.map(([name, [of, value]]) => svgElement("circle", { class: name, cx: x(of), cy: y[name](value), r: 3 })));
    if (at === null || !read.length) return reading.replaceChildren();
    const place = x(at), left = place > middle;
    cursor.setAttribute("x1", String(place));
    cursor.setAttribute("x2", String(place));
    const lines = read.map(([name, [of, value]]) => text(`reading.${name}`, { step: of, loss: value.toPrecision(4) }));
    reading.replaceChildren(...lines.map((line, i) => svgElement("tspan", { x: left ? place - 5 : place + 5, dy: i ? "1.2em" : 0 }, line)));
    reading.setAttribute("text-anchor", left ? "end" : "start");
  }
}

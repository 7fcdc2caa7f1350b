// Pure functions for the loss chart. Points are [step, value] in step order; the server has already smoothed and thinned them.

/** @typedef {[step: number, value: number]} Point */
/** @typedef {[step: number, low: number, high: number]} Band */
/** @typedef {(value: number) => number} Scale */

const ROUNDING = 1e-9; // of a value

/** [lowest, highest] of the points' values, with a margin; [0, 1] if there are none. Values that differ by rounding are flat. @param {...Point[]} curves @returns {[number, number]} */
export function extent(...curves) {
  const values = curves.flat().map((point) => point[1]);
  if (!values.length) return [0, 1];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const size = Math.max(Math.abs(low), Math.abs(high));
  // a smoothed constant differs in its last bits, between which no number has room for a tick
  const margin = high - low > ROUNDING * size ? 0.08 * (high - low) : 0.05 * size || 1;
  return [low - margin, high + margin];
}

/** About `count` round numbers from low to high. @param {number} low @param {number} high @param {number} count */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5].map((n) => n * power).find((s) => s >= rough) ?? 10 * power;
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/**
 * A function that maps low..high to from..to.
 * @param {number} low @param {number} high @param {number} from @param {number} to
 * @returns {Scale}
 */
export function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

/** An SVG path through the points. @param {Point[]} points @param {Scale} x @param {Scale} y */
export function path(points, x, y) {
  return points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)},${y(value).toFixed(1)}`).join("");
}

/** An SVG path around a band. @param {Band[]} band @param {Scale} x @param {Scale} y */
export function outline(band, x, y) {
  /** @type {Point[]} */
  const above = band.map(([step, , high]) => [step, high]);
  /** @type {Point[]} */
  const below = band.map(([step, low]) => [step, low]);
  return band.length ? `${path([...above, ...below.reverse()], x, y)}Z` : "";
}

/** The point whose step is nearest. @param {Point[]} points @param {number} step */
export function nearest(points, step) {
  return points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best), points[0]);
}

/** 0:07, 12:30, 1:02:03. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

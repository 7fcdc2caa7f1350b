// Training runs, which are the server's snapshots, and what the server's events change. Pure functions.

/** @typedef {import("./chart.js").Point} Point */
/** @typedef {import("./chart.js").Band} Band */
/** @typedef {{number: number, step: number, prompt: string, width: number, height: number}} Preview */

/**
 * @typedef {object} Run a training run, as in the server's snapshot
 * @property {string} id
 * @property {string} node
 * @property {string | null} prompt_id of the queue
 * @property {string} name
 * @property {number} began seconds since 1970
 * @property {Record<string, unknown>} [settings] the options that differ from their defaults
 * @property {number} steps
 * @property {boolean} saved
 * @property {boolean} [syntax] whether ComfyUI reads embedding:name for the model
 * @property {string} prompt
 * @property {Record<"images" | "captions" | "masks" | "side", number>} [data] what it trains with
 * @property {"running" | "done" | "stopped" | "used" | "cancelled" | "failed" | "lost"} status
 * @property {string} message
 * @property {boolean} stopping
 * @property {number} step
 * @property {number | null} [rate] steps a second
 * @property {number} [elapsed] seconds
 * @property {number | null} [left] seconds
 * @property {number} [norm]
 * @property {number} [vocabulary_norm]
 * @property {[word: string, similarity: number][][]} [nearest] per vector
 * @property {Point} [best] the step that is kept, and its validation loss
 * @property {boolean | null} [improved] at the end: whether it is better than the initial vectors, null if not measured
 * @property {Point[]} loss
 * @property {Point[]} evaluations
 * @property {Band[]} [band] of the errors of the evaluations
 * @property {Preview[]} previews
 * @property {string[]} warnings
 */

/** @typedef {[start: number, points: Point[]]} Change the points of a curve from index `start` on */
/** @typedef {{run: string, step: number, loss: Change, evaluations: Change, band?: [start: number, points: Band[]]}} Progress and any of a run's numbers */

const WARNINGS = 20; // kept

/** Event name -> a function that applies the event to a run. An event older than the snapshot changes nothing. */
export const applyEvent = {
  /** @param {Run} run @param {Progress} event */
  progress(run, { run: _, loss, evaluations, band = [0, []], ...numbers }) {
    if (numbers.step < run.step) return;
    // the server thins its curves, so that earlier points may change too
    run.loss = run.loss.slice(0, loss[0]).concat(loss[1]);
    run.evaluations = run.evaluations.slice(0, evaluations[0]).concat(evaluations[1]);
    run.band = (run.band ?? []).slice(0, band[0]).concat(band[1]);
    Object.assign(run, numbers);
  },

  /** @param {Run} run @param {Preview & {run: string, kept: number[]}} event */
  preview(run, { run: _, kept, ...picture }) {
    if (run.previews.some((other) => other.number >= picture.number)) return;
    run.previews = [...run.previews, picture].filter(({ number }) => kept.includes(number));
  },

  /** @param {Run} run */
  stopping(run) {
    run.stopping = true;
  },

  /** @param {Run} run @param {{message: string}} event */
  warning(run, { message }) {
    run.warnings = [...run.warnings, message].slice(-WARNINGS);
  },
};

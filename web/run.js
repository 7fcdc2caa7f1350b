// What an event adds to a run, which is the server's snapshot of it. No page, no state.

import { thinned } from "./chart.js";

const MOST = 400, PREVIEWS = 24, WARNINGS = 20; // kept: points of a curve, pictures of a prompt, texts

/** By the event's name: brings a run up to date. What a snapshot had already is left out. */
export const bring = {
  progress(run, { run: _, loss, evaluations, ...numbers }) {
    for (const [name, points] of Object.entries({ loss, evaluations })) {
      const last = run[name].at(-1)?.[0] ?? -1;
      run[name] = thinned(run[name].concat(points.filter(([step]) => step > last)), MOST);
    }
    Object.assign(run, numbers);
  },

  preview(run, { run: _, ...picture }) {
    if (run.previews.some((other) => other.number === picture.number)) return;
    const others = run.previews.filter((other) => other.prompt !== picture.prompt);
    const same = run.previews.filter((other) => other.prompt === picture.prompt);
    const kept = thinned([...same, picture], PREVIEWS, ({ step }) => step);
    run.previews = others.concat(kept).sort((a, b) => a.number - b.number);
  },

  stopping(run) {
    run.stopping = true;
  },

  warning(run, { message }) {
    run.warnings = [...run.warnings, message].slice(-WARNINGS);
  },
};

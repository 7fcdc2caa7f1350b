// What an event changes in a run, which is the server's snapshot of it. No page, no state.

const WARNINGS = 20; // kept

/** By the event's name: applies it to a run. An event may be older than the snapshot, and then changes nothing. */
export const applyEvent = {
  progress(run, { run: _, loss, evaluations, ...numbers }) {
    if (numbers.step < run.step) return;
    for (const [name, [start, points]] of Object.entries({ loss, evaluations })) {
      run[name] = run[name].slice(0, start).concat(points); // the server thins its curves: they may change from the beginning
    }
    Object.assign(run, numbers);
  },

  preview(run, { run: _, kept, ...picture }) {
    if (run.previews.some((other) => other.number >= picture.number)) return;
    run.previews = [...run.previews, picture].filter(({ number }) => kept.includes(number));
  },

  stopping(run) {
    run.stopping = true;
  },

  warning(run, { message }) {
    run.warnings = [...run.warnings, message].slice(-WARNINGS);
  },
};

// Run by tests/page/test_page_modules.py, which puts web/run.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bring } from "./run.js";

const begun = () => ({ id: "x", name: "toy", step: 0, steps: 10_000, loss: [], evaluations: [], previews: [], warnings: [] });

test("progress adds points and replaces numbers", () => {
  const run = begun();
  bring.progress(run, { run: "x", step: 2, rate: 1.5, loss: [[1, 0.5], [2, 0.4]], evaluations: [[0, 0.3]] });
  assert.deepEqual([run.step, run.rate, run.id], [2, 1.5, "x"]);
  assert.deepEqual([run.loss, run.evaluations], [[[1, 0.5], [2, 0.4]], [[0, 0.3]]]);
});

test("what the snapshot had already is not added again: an event may be older than the snapshot", () => {
  const run = { ...begun(), loss: [[1, 0.5], [2, 0.4]], previews: [{ number: 0, step: 0, prompt: "a *" }] };
  bring.progress(run, { run: "x", step: 3, loss: [[2, 0.4], [3, 0.3]], evaluations: [] });
  bring.preview(run, { run: "x", number: 0, step: 0, prompt: "a *" });
  assert.deepEqual(run.loss.map(([step]) => step), [1, 2, 3]);
  assert.equal(run.previews.length, 1);
});

test("ten thousand steps with previews and warnings of all sizes stay small", () => {
  const run = begun();
  for (let step = 1; step <= 10_000; step++) {
    const evaluations = step % 12 ? [] : [[step, 0.3]];
    bring.progress(run, { run: "x", step, loss: [[step, 0.5]], evaluations });
    if (step % 10 === 0) for (const prompt of ["a *", "two *"]) bring.preview(run, { number: run.seen = (run.seen ?? -1) + 1, step, prompt });
    bring.warning(run, { message: `warning ${step}` });
  }
  assert.ok(run.loss.length <= 400 && run.evaluations.length <= 400 && run.previews.length <= 48);
  assert.deepEqual([run.warnings.length, run.warnings.at(-1)], [20, "warning 10000"]);
  assert.deepEqual([run.previews[0].step, run.previews.at(-1).step], [10, 10_000]);
  const numbers = run.previews.map(({ number }) => number);
  assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
});

test("Stop and keep is seen by every page", () => {
  const run = begun();
  bring.stopping(run, { run: "x" });
  assert.equal(run.stopping, true);
});

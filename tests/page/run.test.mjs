// Run by tests/page/test_page_modules.py, which puts web/run.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { applyEvent } from "./run.js";

const begun = () => ({ id: "x", name: "toy", step: 0, steps: 10_000, loss: [], evaluations: [], previews: [], warnings: [] });

test("progress adds points and replaces numbers", () => {
  const run = begun();
  applyEvent.progress(run, { run: "x", step: 2, rate: 1.5, loss: [0, [[1, 0.5], [2, 0.4]]], evaluations: [0, [[0, 0.3]]] });
  applyEvent.progress(run, { run: "x", step: 3, rate: 1.4, loss: [2, [[3, 0.3]]], evaluations: [1, []] });
  assert.deepEqual([run.step, run.rate, run.id], [3, 1.4, "x"]);
  assert.deepEqual([run.loss, run.evaluations], [[[1, 0.5], [2, 0.4], [3, 0.3]], [[0, 0.3]]]);
});

test("a band comes with its points; older events have none", () => {
  const run = begun();
  applyEvent.progress(run, { run: "x", step: 1, loss: [0, []], evaluations: [0, []] });
  applyEvent.progress(run, { run: "x", step: 2, loss: [0, []], evaluations: [0, []], band: [0, [[0, 0.3, 0.3], [2, 0.1, 0.2]]] });
  applyEvent.progress(run, { run: "x", step: 3, loss: [0, []], evaluations: [0, []], band: [2, [[3, 0.1, 0.3]]] });
  assert.deepEqual(run.band, [[0, 0.3, 0.3], [2, 0.1, 0.2], [3, 0.1, 0.3]]);
});

test("a curve that the server has thinned takes the place of the one before", () => {
  const run = { ...begun(), step: 3, loss: [[1, 0.5], [2, 0.4], [3, 0.3]] };
  applyEvent.progress(run, { run: "x", step: 4, loss: [0, [[1, 0.5], [3, 0.3], [4, 0.2]]], evaluations: [0, []] });
  assert.deepEqual(run.loss, [[1, 0.5], [3, 0.3], [4, 0.2]]);
});

test("an event that is older than the snapshot changes nothing", () => {
  const run = { ...begun(), step: 3, rate: 2, loss: [[1, 0.5], [2, 0.4], [3, 0.3]], previews: [{ number: 1, step: 3, prompt: "a *" }] };
  applyEvent.progress(run, { run: "x", step: 2, rate: 1, loss: [0, [[1, 0.5], [2, 0.4]]], evaluations: [0, []] });
  applyEvent.preview(run, { run: "x", number: 0, step: 0, prompt: "a *", kept: [0] });
  assert.deepEqual([run.step, run.rate, run.loss.length, run.previews.length], [3, 2, 3, 1]);
});

test("an event after a snapshot that had a part of its points adds the others", () => {
  const run = { ...begun(), step: 3, loss: [[1, 0.5], [2, 0.4], [3, 0.3]] };
  applyEvent.progress(run, { run: "x", step: 4, loss: [2, [[3, 0.3], [4, 0.2]]], evaluations: [0, []] });
  assert.deepEqual(run.loss.map(([step]) => step), [1, 2, 3, 4]);
});

test("previews that the server keeps no longer are dropped", () => {
  const run = begun();
  for (const [number, kept] of [[0, [0]], [1, [0, 1]], [2, [0, 2]]]) {
    applyEvent.preview(run, { run: "x", number, step: number, prompt: "a *", kept });
  }
  assert.deepEqual(run.previews, [{ number: 0, step: 0, prompt: "a *" }, { number: 2, step: 2, prompt: "a *" }]);
});

test("of many warnings the last ones are kept", () => {
  const run = begun();
  for (let number = 1; number <= 50; number++) applyEvent.warning(run, { message: `warning ${number}` });
  assert.deepEqual([run.warnings.length, run.warnings.at(-1)], [20, "warning 50"]);
});

test("Stop and keep is seen by every page", () => {
  const run = begun();
  applyEvent.stopping(run, { run: "x" });
  assert.equal(run.stopping, true);
});

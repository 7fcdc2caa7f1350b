// Run by tests/page/test_page_modules.py, which puts web/chart.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, extent, nearest, outline, path, scale, ticks } from "./chart.js";

test("the extent holds every value with a margin, for flat and for empty curves too", () => {
  const [low, high] = extent([[0, 0.2]], [[1, 0.4], [2, 0.3]]);
  assert.ok(low < 0.2 && low > 0.15 && high > 0.4 && high < 0.45);
  const [below, above] = extent([[0, 0.25], [9, 0.25]]);
  assert.ok(below < 0.25 && 0.25 < above);
  assert.deepEqual(extent([], []), [0, 1]);
});

test("values that differ by rounding only have room for ticks, which else were counted without end", () => {
  const curve = [0.1234, 0.1234 + 2 ** -55].map((value, step) => [step, value]);
  assert.notEqual(curve[0][1], curve[1][1]);
  const [low, high] = extent(curve);
  assert.ok(high - low > 0.01, `${low}..${high}`);
  assert.ok(ticks(low, high, 4).length > 1);
});

test("ticks are round and lie within", () => {
  assert.deepEqual(ticks(0, 120, 4), [0, 50, 100]);
  assert.deepEqual(ticks(0.031, 0.052, 4), [0.04, 0.05]);
  for (const [low, high] of [[0, 3], [-0.2, 0.9], [1e-6, 3e-6], [0, 10_000]]) {
    const found = ticks(low, high, 4);
    assert.ok(found.length >= 1 && found.length <= 5, `${low}..${high}: ${found}`);
    assert.ok(found.every((tick) => tick >= low && tick <= high));
  }
});

test("a scale maps its ends, upside down too, and a range of nothing to its beginning", () => {
  const y = scale(0, 2, 100, 0);
  assert.deepEqual([y(0), y(1), y(2)], [100, 50, 0]);
  assert.equal(scale(3, 3, 5, 9)(3), 5);
});

test("a path moves to the first point and draws to the others", () => {
  const same = (value) => value;
  assert.equal(path([[0, 1], [2, 3.25]], same, same), "M0.0,1.0L2.0,3.3");
  assert.equal(path([], same, same), "");
});

test("an outline goes along the upper ends and back along the lower ones", () => {
  const same = (value) => value;
  assert.equal(outline([[0, 1, 2], [5, 3, 4]], same, same), "M0.0,2.0L5.0,4.0L5.0,3.0L0.0,1.0Z");
  assert.equal(outline([], same, same), "");
});

test("hovering finds the nearest step", () => {
  const points = [[0, 1], [12, 2], [24, 3]];
  assert.deepEqual([nearest(points, -5), nearest(points, 17), nearest(points, 99)], points);
});

test("a clock shows hours only where there are any", () => {
  assert.deepEqual([7, 750.4, 3723, -1].map(clock), ["0:07", "12:30", "1:02:03", "0:00"]);
});

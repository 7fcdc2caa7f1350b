// Run by tests/page/test_page_modules.py, which puts web/uploads.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { imagesOf, OFFERED, sorted } from "./uploads.js";

/** Files by their paths, as a dropped folder has them. */
const chosen = (...paths) => paths.map((path) => ({ file: { name: path.split("/").at(-1) }, path: path.split("/").slice(0, -1) }));
const namesOf = (files) => files.map(({ file, path }) => [...path, file.name].join("/"));

test("images go first, then what belongs to them, outer folders before inner ones", () => {
  const { uploads } = sorted(chosen("cat/a.txt", "cat/inner/b.png", "cat/masks/a.png", "cat/a.png", "cat/a-mask.PNG"));
  assert.deepEqual(namesOf(uploads), ["cat/a.png", "cat/inner/b.png", "cat/a.txt", "cat/a-mask.PNG", "cat/masks/a.png"]);
  assert.deepEqual(uploads.map(({ picture }) => picture), ["cat/a", "cat/inner/b", "cat/a", "cat/a", "cat/a"]);
});

test("tables of captions are known by their exact names", () => {
  const { uploads, tables, others } = sorted(chosen("cat/a.png", "cat/metadata.jsonl", "cat/Metadata.CSV", "cat/other.csv", "cat/my-metadata.jsonl"));
  assert.deepEqual(namesOf(uploads), ["cat/a.png"]);
  assert.deepEqual(namesOf(tables), ["cat/metadata.jsonl", "cat/Metadata.CSV"]);
  assert.deepEqual(namesOf(others), ["cat/other.csv", "cat/my-metadata.jsonl"]);
});

test("what no user means is left out without a word", () => {
  const found = sorted(chosen("cat/.DS_Store", "cat/._a.png", ".git/a.png", "cat/removed/a.png", "__MACOSX/a.png", "cat/Thumbs.db", "cat/desktop.ini"));
  assert.deepEqual(found, { uploads: [], tables: [], others: [] });
});

test("a table calls the images by their paths from its folder, wherever they were put", () => {
  const images = [
    { ...chosen("set/one.png")[0], placed: "set-2/one.png" },
    { ...chosen("set/train/one.png")[0], placed: "set-2/one (1).png" },
    { ...chosen("other/one.png")[0], placed: "set-2/one (2).png" },
  ];
  const [outer, inner, loose] = chosen("set/metadata.jsonl", "set/train/metadata.csv", "metadata.jsonl");
  assert.deepEqual(imagesOf(outer, images), { "one.png": "set-2/one.png", "train/one.png": "set-2/one (1).png" });
  assert.deepEqual(imagesOf(inner, images), { "one.png": "set-2/one (1).png" });
  assert.deepEqual(Object.keys(imagesOf(loose, images)), ["set/one.png", "set/train/one.png", "other/one.png"]);
});

test("the dialog offers every kind of caption file", () => {
  for (const ending of [".txt", ".caption", ".jsonl", ".csv", ".heic"]) assert.ok(OFFERED.split(",").includes(ending), ending);
});

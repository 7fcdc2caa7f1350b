// Run by tests/page/test_page_modules.py, which puts the page's scripts beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Picker } from "./picker.js";

const settled = () => new Promise((resolve) => setTimeout(resolve));
const picture = () => ({ file: "cats/a.png", caption: "" });

/** A picker without a page, and its requests, which are answered when `answer` is called. */
function picker() {
  const requests = [], notes = [];
  const fetch = (path, { body }) => new Promise((resolve) => requests.push({ path, ...JSON.parse(body), answer: async (given) => {
    resolve(given);
    await settled();
  } }));
  const made = Object.assign(Object.create(Picker.prototype), { actions: { fetch, notify: (note) => notes.push(note) }, typed: new Map(), sent: Promise.resolve() });
  return { made, requests, notes };
}

test("what is typed while a caption is saved stays", async () => {
  const { made, requests } = picker(), field = { value: " a cat" }, one = picture();
  made.write(one, field);
  await settled();
  field.value = " a cat on a";
  await requests[0].answer(Response.json({ caption: "a cat" }));
  assert.deepEqual([one.caption, field.value], ["a cat", " a cat on a"]);
});

test("captions are saved one after another", async () => {
  const { made, requests } = picker(), field = { value: "a cat" }, one = picture();
  made.write(one, field);
  field.value = "a dog";
  made.write(one, field);
  await settled();
  assert.deepEqual(requests.map(({ text }) => text), ["a cat"]);
  await requests[0].answer(Response.json({ caption: "a cat" }));
  await requests[1].answer(Response.json({ caption: "a dog" }));
  assert.deepEqual([one.caption, field.value], ["a dog", "a dog"]);
});

test("a caption that could not be saved is told, and kept for the next list", async () => {
  const { made, requests, notes } = picker(), field = { value: "a cat" }, one = picture();
  made.typed.set(one.file, field.value);
  made.write(one, field);
  await settled();
  await requests[0].answer(new Response("Failed to fetch", { status: 503 }));
  assert.deepEqual([notes.length, made.typed.get(one.file), field.value], [1, "a cat", "a cat"]);
  made.write(one, field);
  await settled();
  await requests[1].answer(Response.json({ caption: "a cat" }));
  assert.equal(made.typed.size, 0);
});

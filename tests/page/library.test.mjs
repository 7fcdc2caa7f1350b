// Run by tests/page/test_page_modules.py, which puts the page's scripts and the host's api.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { api } from "../../scripts/api.js";
import { Library } from "./library.js";

test("a list shows the answer to the latest request, whichever arrives last", async () => {
  const arrive = [], shown = [];
  api.fetchApi = () => new Promise((resolve) => arrive.push((files) => resolve(Response.json(files))));
  const library = Object.assign(Object.create(Library.prototype), {
    asked: new Map(),
    embeddings: { list: { replaceChildren: (...rows) => shown.push(rows) } },
    embeddingRow: ({ file }) => file,
  });
  const lists = [library.showEmbeddings(), library.showEmbeddings()];
  arrive[1]([{ file: "renamed" }]);
  arrive[0]([{ file: "old name" }]);
  await Promise.all(lists);
  assert.deepEqual(shown, [["renamed"]]);
});

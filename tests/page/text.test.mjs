// Run by tests/page/test_page_modules.py, which puts the page's scripts and the host's api.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { api } from "../../scripts/api.js";
import { loadTexts, text } from "./text.js";

test("a server that cannot be reached leaves the texts as they were", async () => {
  api.fetchApi = async () => Response.json({ en: { tiTrain: { stop: "Stop {name}" } } });
  await loadTexts("en");
  api.fetchApi = async () => { throw new TypeError("Failed to fetch"); };
  await loadTexts("de");
  assert.equal(text("stop", { name: "cat" }), "Stop cat");
});

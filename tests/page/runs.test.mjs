// Run by tests/page/test_page_modules.py, which puts the page's scripts and the host's api.js beside it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { api } from "../../scripts/api.js";
import { latest, listen } from "./runs.js";

const snapshot = (id, step, status = "running") => ({ id, step, status, began: 0, steps: 100, loss: [], evaluations: [], previews: [], warnings: [] });
const curves = { loss: [0, []], evaluations: [0, []] };
const settled = () => new Promise((resolve) => setTimeout(resolve));

/** The answer to the page's next request for the runs, which arrives when it is called. */
function asked() {
  let answer;
  const sent = new Promise((resolve) => (api.fetchApi = () => {
    resolve();
    return new Promise((arrive) => (answer = (runs) => arrive(Response.json(runs))));
  }));
  return { sent, answer: async (runs) => { answer(runs); await settled(); } };
}

const ended = [];
api.fetchApi = async () => Response.json([]);
await listen({ updated() {}, ended: (run) => ended.push(run.id) });

test("a snapshot that a run's end has overtaken does not let it go on", async () => {
  api.say("ti_train.run", snapshot("one", 7));
  const request = asked();
  api.say("reconnected");
  await request.sent;
  api.say("ti_train.run", snapshot("one", 9, "done"));
  await request.answer([snapshot("one", 8)]);
  assert.deepEqual([latest().status, latest().step, ended], ["done", 9, ["one"]]);
});

test("a run that begins while a snapshot without it is on its way is not lost", async () => {
  const request = asked();
  api.say("reconnected");
  await request.sent;
  api.say("ti_train.run", snapshot("two", 0));
  api.say("ti_train.progress", { run: "two", step: 1, ...curves });
  await request.answer([snapshot("one", 9, "done")]);
  assert.deepEqual([latest().id, latest().status, latest().step], ["two", "running", 1]);
});

test("one request at a time, and one more for what may have been missed meanwhile", async () => {
  let requests = 0;
  api.fetchApi = async () => Response.json((requests++, [snapshot("two", 4)]));
  for (let step = 1; step < 9; step++) api.say("ti_train.progress", { run: "unknown", step, ...curves });
  api.say("reconnected");
  await settled();
  assert.deepEqual([requests, latest().step], [2, 4]);
});

test("a server that cannot be reached keeps no event back", async () => {
  api.fetchApi = async () => { throw new TypeError("Failed to fetch"); };
  api.say("reconnected");
  api.say("ti_train.progress", { run: "two", step: 5, ...curves });
  await settled();
  assert.equal(latest().step, 5);
});

test("a run is the newest though the server's clock was put back, and so is one that is continued", () => {
  for (let hour = 20; hour > 0; hour--) {
    api.say("ti_train.run", { ...snapshot(`run-${hour}`, 0), began: 3600 * hour });
    assert.equal(latest().id, `run-${hour}`);
  }
  api.say("ti_train.run", snapshot("run-2", 3));
  assert.equal(latest().id, "run-2");
});

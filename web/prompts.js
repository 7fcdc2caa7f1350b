// The prompts that this page has queued, with their workflows: only prompts have unique ids. A template's workflow id
// is the same in all its copies.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { ask } from "./server.js";

const STORED = "ti-train.prompts", KEPT = 50;

/** @type {Map<string, {path: string}>} prompt -> its workflow, which keeps its identity when it is renamed */
const queued = new Map(JSON.parse(sessionStorage.getItem(STORED) ?? "[]"));

/** Whether a prompt was queued in this browser tab from the workflow that is open. @param {string | null} prompt */
export function isFromOpenWorkflow(prompt) {
  const from = prompt === null ? undefined : queued.get(prompt);
  return from !== undefined && from.path === app.extensionManager.workflow.activeWorkflow?.path;
}

/** Whether a prompt was queued in this browser tab. @param {string} prompt */
export const wasQueuedHere = (prompt) => queued.has(prompt);

/** Whether two prompts were queued from one workflow. @param {string} one @param {string} other */
export const ofSameWorkflow = (one, other) => queued.get(one)?.path === queued.get(other)?.path;

/**
 * Tells the server that this page shows runs itself. It then sends no progress text, which the front end would show in
 * whichever workflow is open, on its node of the same id. Each time: the server may have been restarted.
 */
function tellServer() {
  const options = { method: "POST", body: JSON.stringify({ client: api.clientId }), headers: { "Content-Type": "application/json" } };
  return ask("/ti_train/page", options);
}

/**
 * Notes the workflow of each prompt from now on; they outlive a reload.
 * @param {() => void} noted called after each, and after a workflow was opened, which afterConfigureGraph comes before
 */
export function notePrompts(noted) {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (...given) {
    const workflow = app.extensionManager.workflow.activeWorkflow;
    await tellServer();
    const answer = await queuePrompt.apply(this, given);
    if (workflow && answer.prompt_id) {
      queued.set(answer.prompt_id, workflow);
      for (const id of [...queued.keys()].slice(0, -KEPT)) queued.delete(id);
      noted();
    }
    return answer;
  };
  app.extensionManager.workflow.$onAction(({ name, after }) => {
    if (name === "openWorkflow") after(noted);
  });
  addEventListener("pagehide", () => {
    const paths = [...queued].map(([id, { path }]) => [id, { path }]);
    sessionStorage.setItem(STORED, JSON.stringify(paths));
  });
}

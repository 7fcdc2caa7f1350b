// The training runs of this page: the server's snapshots, updated by its events, and the panels that show them.

import { api } from "../../scripts/api.js";
import { applyEvent } from "./run.js";
import { ask } from "./server.js";
import { Turns } from "./turns.js";

const KEPT = 8; // runs
/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./panel.js").Panel} Panel */

/** @type {Map<string, Run>} */
const runs = new Map(); // id -> snapshot, by the order in which they began, which the server's clock may not tell; also of runs whose workflow is not open yet
const turns = new Turns();
/** @type {Map<Panel, () => Run | undefined>} */
const panels = new Map(); // panel -> a function that returns its run

/** The newest run for which `of` is true. @param {(run: Run) => boolean} [of] */
export function latest(of = () => true) {
  return [...runs.values()].filter(of).at(-1);
}

/** Keeps a snapshot of the newest run: one that is continued begins again, under its id. @param {Run} run */
function remember(run) {
  runs.delete(run.id);
  runs.set(run.id, run);
  for (const id of [...runs.keys()].slice(0, -KEPT)) runs.delete(id);
}

/** Shows the newest run for which `of` is true in the panel, until it is dismissed. @param {Panel} panel @param {(run: Run) => boolean} [of] */
export function follow(panel, of) {
  panels.set(panel, () => latest(of));
  showRuns();
}

/** @param {Panel} panel */
export function dismiss(panel) {
  panels.delete(panel);
}

/** Writes the texts of all panels anew, in the language that is set. */
export function translatePanels() {
  for (const panel of panels.keys()) panel.translate();
}

/** Shows each panel its run, if it has one; or only those of a run that has changed. @param {Run} [changed] */
export function showRuns(changed) {
  for (const [panel, pick] of panels) {
    const run = pick();
    if (!changed || run === changed) panel.show(run ?? null);
  }
}

async function fetchRuns() {
  const answer = await ask("/ti_train/runs");
  if (!answer.ok) return;
  /** @type {Run[]} */
  const listed = await answer.json();
  const known = new Set(listed.map((run) => run.id));
  for (const [id, run] of runs) {
    if (!known.has(id) && run.status === "running") run.status = "lost"; // the server has restarted
  }
  for (const run of listed) remember(run);
}

/**
 * Listens to the server's events until the page is closed.
 * @param {{updated(run: Run | undefined): void, ended(run: Run): void}} callbacks updated: after every event and snapshot; ended: once
 */
export async function listen({ updated, ended }) {
  const show = (/** @type {Run | undefined} */ changed = undefined) => {
    showRuns(changed);
    updated(latest());
  };
  const update = () => turns.snapshot(fetchRuns).then(() => show());
  api.addEventListener("ti_train.run", ({ detail }) => turns.event(() => {
    remember(detail);
    show(detail);
    if (detail.status !== "running") ended(detail);
  }));
  for (const [name, apply] of Object.entries(applyEvent)) {
    api.addEventListener(`ti_train.${name}`, ({ detail }) => turns.event((late) => {
      const run = runs.get(detail.run);
      if (!run && late) return; // not even the snapshots have it
      if (!run) return void update(); // it started before this page was open: fetch the snapshots
      apply(run, detail);
      show(run);
    }));
  }
  const connection = (/** @type {boolean} */ connected) => panels.forEach((_, panel) => panel.connection(connected));
  api.addEventListener("reconnecting", () => connection(false));
  api.addEventListener("reconnected", () => {
    connection(true);
    update();
  });
  await update();
}

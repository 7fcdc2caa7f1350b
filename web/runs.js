// The trainings that this page knows of: the server's snapshots, kept up to date by its events, and the panels that show them.

import { api } from "../../scripts/api.js";
import { applyEvent } from "./run.js";

const KEPT = 8; // runs
/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./panel.js").Panel} Panel */

/** @type {Map<string, Run>} */
const runs = new Map(); // id -> snapshot, the latest last; a run without a node on this page too: its workflow may be opened later
/** @type {Map<Panel, () => Run | undefined>} */
const panels = new Map(); // Panel -> a function that picks its run

/** The newest of the runs that `of` takes. @param {(run: Run) => boolean} [of] */
export function latest(of = () => true) {
  return [...runs.values()].filter(of).at(-1);
}

/** @param {Run} run */
function remember(run) {
  runs.set(run.id, run);
  for (const id of [...runs.keys()].slice(0, -KEPT)) runs.delete(id);
}

/** From now on the panel shows the newest run that `of` takes, until it is dismissed. @param {Panel} panel @param {(run: Run) => boolean} [of] */
export function follow(panel, of) {
  panels.set(panel, () => latest(of));
  showRuns();
}

/** @param {Panel} panel */
export function dismiss(panel) {
  panels.delete(panel);
  panel.remove();
}

/** Shows in every panel its run: all, or those of a run that has changed. @param {Run} [changed] */
export function showRuns(changed) {
  for (const [panel, pick] of panels) {
    const run = pick();
    if (run && (!changed || run === changed)) panel.show(run);
  }
}

async function fetchRuns() {
  const answer = await api.fetchApi("/ti_train/runs");
  if (!answer.ok) return;
  /** @type {Run[]} */
  const listed = await answer.json();
  const known = new Map(listed.map((run) => [run.id, run]));
  for (const [id, run] of runs) {
    if (!known.has(id) && run.status === "running") run.status = "lost"; // a server that has restarted knows nothing of it
  }
  for (const run of known.values()) remember(run);
}

/**
 * Listens to the server for as long as the page is there.
 * @param {{told(run: Run | undefined): void, ended(run: Run): void}} heard told: after every event and snapshot; ended: once
 */
export async function listen({ told, ended }) {
  const show = (/** @type {Run | undefined} */ changed = undefined) => {
    showRuns(changed);
    told(latest());
  };
  const update = () => fetchRuns().then(() => show());
  api.addEventListener("ti_train.run", ({ detail }) => {
    remember(detail);
    show(detail);
    if (detail.status !== "running") ended(detail);
  });
  for (const [name, apply] of Object.entries(applyEvent)) {
    api.addEventListener(`ti_train.${name}`, ({ detail }) => {
      const run = runs.get(detail.run);
      if (!run) return update(); // begun before this page heard anything: a snapshot brings all
      apply(run, detail);
      return show(run);
    });
  }
  const connection = (/** @type {boolean} */ connected) => panels.forEach((_, panel) => panel.connection(connected));
  api.addEventListener("reconnecting", () => connection(false));
  api.addEventListener("reconnected", () => {
    connection(true);
    update();
  });
  await update();
}

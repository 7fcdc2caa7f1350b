// Remarks on nodes, such as a mark in a prompt that stands for no embedding: a toast, and a list on the node until it runs again.

import { api } from "../../scripts/api.js";
import { element } from "./element.js";
import { nodeAt } from "./graph.js";
import { isFromOpenWorkflow, ofSameWorkflow, wasQueuedHere } from "./prompts.js";
import { text } from "./text.js";
import { addElement, makeRoom } from "./widget.js";

/** @typedef {{prompt_id: string, node: string, remarks: string[], told: number}} Remarks on a node, by its id in a prompt; told: how many of them */

const WIDGET = "ti_train_remarks", KEPT = 50, PADDING = 8; // nodes; pixels

/** @type {Remarks[]} */
let all = [];
/** @type {Map<GraphNode, {list: HTMLElement, widget: Widget}>} */
const shown = new Map();
/** @type {(summary: string, detail: string) => void} */
let notify = () => {};

/** Shows what there is to say on the nodes of the open workflow, and nothing else on them. */
export function showRemarks() {
  tell();
  /** @type {Map<GraphNode, string[]>} */
  const wanted = new Map();
  for (const { prompt_id, node: id, remarks } of all) {
    const node = isFromOpenWorkflow(prompt_id) ? nodeAt(id) : undefined;
    if (node) wanted.set(node, remarks);
  }
  for (const [node, { widget }] of shown) {
    if (wanted.has(node)) continue;
    shown.delete(node);
    if (node.graph) node.removeWidget(widget);
  }
  for (const [node, remarks] of wanted) {
    const { list } = shown.get(node) ?? add(node);
    list.replaceChildren(...remarks.map((remark) => element("li", {}, remark)));
    makeRoom(node);
  }
}

/** @param {GraphNode} node */
function add(node) {
  const list = element("ul", { class: "ti-train-warnings" });
  const panel = element("div", { class: "ti-train-panel" }, list);
  const widget = addElement(node, WIDGET, { element: panel, get height() { return list.offsetHeight + PADDING; } });
  new ResizeObserver(() => makeRoom(node)).observe(list);
  const made = { list, widget };
  shown.set(node, made);
  return made;
}

/** Tells what was not told yet. A remark may arrive before the page knows that the prompt is its own. */
function tell() {
  for (const about of all.filter(({ prompt_id, remarks, told }) => told < remarks.length && wasQueuedHere(prompt_id))) {
    const title = (isFromOpenWorkflow(about.prompt_id) && nodeAt(about.node)?.title) || text("remarks.node", about);
    notify(title, about.remarks.slice(about.told).join(" "));
    about.told = about.remarks.length;
  }
}

/** Listens to the server until the page is closed. @param {(summary: string, detail: string) => void} toast */
export function listenToRemarks(toast) {
  notify = toast;
  let running = "";
  const without = (/** @type {string} */ prompt, /** @type {string} */ id) => all.filter(({ prompt_id, node }) => node !== id || !ofSameWorkflow(prompt_id, prompt));
  api.addEventListener("execution_start", ({ detail }) => (running = detail.prompt_id));
  api.addEventListener("executing", ({ detail: id }) => {
    if (id === null) return; // the prompt has ended
    all = without(running, String(id));
    showRemarks();
  });
  api.addEventListener("ti_train.remarks", ({ detail }) => {
    const before = all.find(({ prompt_id, node }) => prompt_id === detail.prompt_id && node === detail.node);
    all = [...without(detail.prompt_id, detail.node), { ...detail, told: before?.told ?? 0 }].slice(-KEPT);
    showRemarks();
  });
}

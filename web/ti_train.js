// ComfyUI's page: the live panel in Train Embedding and the sidebar, the image picker in Load Training Images, and the toast at the end.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addPicker, watchSettings } from "./pictures.js";
import { element } from "./element.js";
import { Panel } from "./panel.js";
import { dismiss, follow, listen, showRuns } from "./runs.js";
import { sidebar } from "./sidebar.js";
import { loadTexts, text } from "./text.js";
import { attach, chain, makeRoom } from "./widget.js";

const TOAST = "TITrain.ToastWhenLearnt";
// The front end shows a node's progress text in a widget of this name. The panel shows more, so it replaces that widget.
const PROGRESS_TEXT = "$$node-text-preview";
const rootGraph = () => app.rootGraph ?? app.graph;

/** @typedef {import("./run.js").Run} Run */

/** The node of a run, or undefined. Ids in subgraphs are paths such as 4:2. @param {Run} run */
function nodeOf(run) {
  if (run.workflow !== rootGraph()?.id) return undefined;
  const ids = run.node.split(":");
  /** @type {Graph | undefined} */
  let graph = rootGraph();
  for (const id of ids.slice(0, -1)) graph = graph?.getNodeById(Number(id))?.subgraph;
  return graph?.getNodeById(Number(ids.at(-1))) ?? undefined;
}

/** @typedef {"success" | "info" | "warn" | "error"} Severity */

/** @param {Severity} severity @param {string} summary @param {string} detail */
function toast(severity, summary, detail, life = 8000) {
  app.extensionManager.toast.add({ severity, summary, detail, life });
}

/** @param {Run} run */
async function ended(run) {
  const trained = ["done", "stopped"].includes(run.status) && run.saved;
  if (!trained) return;
  await (app.reloadNodeDefs?.() ?? app.refreshComboInNodes());
  const how = run.syntax === false ? text("trained.load", run) : text("trained.how", run);
  if (app.extensionManager.setting.get(TOAST) !== false) toast("success", text("trained", run), how);
}

/** @param {string} prompt */
async function copy(prompt) {
  try {
    await navigator.clipboard.writeText(prompt);
  } catch {
    // navigator.clipboard exists on localhost and https only
    const field = element("textarea", { class: "ti-train-clipboard" }, prompt);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast("info", text("copied"), prompt, 3000);
}

/** @type {Omit<import("./panel.js").Actions, "resize">} */
const actions = {
  stop: async (run) => {
    const answer = await api.fetchApi(`/ti_train/runs/${run.id}/stop`, { method: "POST" });
    if (!answer.ok) toast("error", text("stop.failed"), await answer.text());
  },
  cancel: () => api.interrupt(null),
  copy,
  preview: (run, number) => api.apiURL(`/ti_train/runs/${run.id}/previews/${number}`),
};

/** @param {GraphNode} node */
function addPanel(node) {
  node.hideOutputImages = true; // the strip shows them; the classic renderer ignores this property and uses imgs
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  const panel = new Panel({ ...actions, resize: () => makeRoom(node) });
  attach(node, PROGRESS_TEXT, panel);
  follow(panel, (run) => nodeOf(run) === node);
  chain(node, "onRemoved", () => dismiss(panel));
}

app.registerExtension({
  name: "ti-train",
  settings: [
    {
      id: TOAST,
      category: ["ti-train", "Training", "ToastWhenLearnt"],
      name: "Notify when an embedding is trained",
      tooltip: "Shows its name and how to use it in prompts.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  async init() {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("ti_train.css", import.meta.url).href }));
    await loadTexts(String(app.extensionManager.setting.get("Comfy.Locale")));
  },
  setup: () => listen({ updated: sidebar(actions), ended }),
  nodeCreated(node) {
    if (node.comfyClass === "TITrain_TrainEmbedding") addPanel(node);
    if (node.comfyClass === "TITrain_LoadTrainingImages") addPicker(node, (message, severity = "warn") => toast(severity, node.title, message));
    watchSettings(node);
  },
  afterConfigureGraph: () => showRuns(),
});

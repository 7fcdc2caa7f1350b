// ComfyUI's page: the live panel in Train Embedding and in the sidebar, the pictures in Load Training Images, and the toast at the end.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addPicker, watchSettings } from "./pictures.js";
import { element } from "./element.js";
import { Panel } from "./panel.js";
import { dismiss, follow, listen, showRuns } from "./runs.js";
import { sidebar } from "./sidebar.js";
import { loadWords, text } from "./text.js";
import { attach, chain, makeRoom } from "./widget.js";

const TOAST = "TITrain.ToastWhenLearnt";
// The front end shows a node's progress text in a widget of this name; the panel says the same and more, so it takes its place.
const PROGRESS_TEXT = "$$node-text-preview";
const rootGraph = () => app.rootGraph ?? app.graph;

/** @typedef {import("./run.js").Run} Run */

/** The node that a run belongs to, or undefined: ids in subgraphs are paths such as 4:2. @param {Run} run */
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
  const learnt = ["done", "stopped"].includes(run.status) && run.saved;
  if (!learnt) return;
  await (app.reloadNodeDefs?.() ?? app.refreshComboInNodes());
  if (app.extensionManager.setting.get(TOAST) !== false) toast("success", text("learnt", run), text("learnt.how", run));
}

/** @param {string} prompt */
async function copied(prompt) {
  try {
    await navigator.clipboard.writeText(prompt);
  } catch {
    // a page that is not on localhost or https has no clipboard of its own
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
  copy: copied,
  preview: (run, number) => api.apiURL(`/ti_train/runs/${run.id}/previews/${number}`),
};

/** @param {GraphNode} node */
function addPanel(node) {
  node.hideOutputImages = true; // the strip shows them; the classic renderer does not know this yet and looks at imgs
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
      name: "Say when a word is learnt",
      tooltip: "A note with the word's name and how to write it.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  async init() {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("ti_train.css", import.meta.url).href }));
    await loadWords(String(app.extensionManager.setting.get("Comfy.Locale")));
  },
  setup: () => listen({ told: sidebar(actions), ended }),
  nodeCreated(node) {
    if (node.comfyClass === "TITrain_TrainEmbedding") addPanel(node);
    if (node.comfyClass === "TITrain_LoadTrainingImages") addPicker(node, (message, severity = "warn") => toast(severity, node.title, message));
    watchSettings(node);
  },
  afterConfigureGraph: () => showRuns(),
});

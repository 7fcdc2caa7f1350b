// ComfyUI's page: the live panel in Train Embedding and the sidebar, the image picker in Load Training Images, and the toast at the end.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addPicker, translatePickers, watchSettings } from "./pictures.js";
import { element } from "./element.js";
import { nodeAt } from "./graph.js";
import { Panel } from "./panel.js";
import { showPresetValues } from "./preset_values.js";
import { isFromOpenWorkflow, notePrompts } from "./prompts.js";
import { listenToRemarks, showRemarks } from "./remarks.js";
import { dismiss, follow, listen, showRuns, translatePanels } from "./runs.js";
import { ask } from "./server.js";
import { Sidebar } from "./sidebar.js";
import { loadTexts, text } from "./text.js";
import { attach, detachGone, makeRoom } from "./widget.js";

const TOAST = "TITrain.ToastWhenLearnt", DESKTOP = "TITrain.DesktopNotification"; // settings
// The front end shows a node's progress text in a widget of this name. The panel shows more, so it replaces that widget.
const PROGRESS_TEXT = "$$node-text-preview";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {"success" | "info" | "warn" | "error"} Severity */

/** @param {Severity} severity @param {string} summary @param {string} detail */
function toast(severity, summary, detail, life = 8000) {
  app.extensionManager.toast.add({ severity, summary, detail, life });
}

/** Has the lists of all nodes offer what is in the embeddings folder now. */
const reloadEmbeddings = () => app.reloadNodeDefs?.() ?? app.refreshComboInNodes();

/** @param {Run} run */
async function ended(run) {
  notifyDesktop(run);
  sidebar?.library.refresh();
  const trained = ["done", "stopped"].includes(run.status) && run.saved;
  if (!trained) return;
  await reloadEmbeddings();
  if (app.extensionManager.setting.get(TOAST) === false) return;
  if (run.improved === false) toast("warn", text("trained.worse", run), run.message, 30000);
  else toast("success", text("trained", run), howToUse(run));
}

/** How a prompt gets an embedding of a run. @param {Run} run @param {string} [name] of another of its steps */
function howToUse(run, name = run.name) {
  return run.syntax === false ? text("trained.load", { name }) : text("trained.how", { name });
}

/** @param {Run} run */
function notifyDesktop(run) {
  if (app.extensionManager.setting.get(DESKTOP) !== true || run.status === "cancelled") return;
  if (globalThis.Notification?.permission !== "granted") return;
  const body = [text(`ended.${run.status}`), text("step", run), run.message].filter(Boolean).join(" · ");
  new Notification(run.name, { body, tag: run.id }); // the tag: one of them, however many pages are open
}

/** Asks for the browser's permission when the setting is switched on. @param {boolean} on @param {boolean} [before] undefined: the page has just opened */
async function allowDesktop(on, before) {
  if (!on || before === undefined) return;
  const allowed = globalThis.Notification ? await Notification.requestPermission() : "denied"; // localhost and https only
  if (allowed !== "granted") toast("warn", text("desktop.denied"), text("desktop.how"));
}

/** @param {Run} run */
async function copy({ prompt, syntax, name }) {
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
  if (syntax === false) toast("info", text("copied"), text("copied.load", { prompt, name }), 15000);
  else toast("info", text("copied"), prompt, 3000);
}

/** @type {Omit<import("./panel.js").Actions, "resize">} */
const actions = {
  stop: async (run) => {
    const answer = await ask(`/ti_train/runs/${run.id}/stop`, { method: "POST" });
    if (!answer.ok) toast("error", text("stop.failed"), await answer.text());
  },
  cancel: () => api.interrupt(null),
  copy,
  preview: (run, number, small) => api.apiURL(`/ti_train/runs/${run.id}/previews/${number}${small ? "?small=1" : ""}`),
  keep: async (run, { number }) => {
    const answer = await ask(`/ti_train/runs/${run.id}/previews/${number}/keep`, { method: "POST" });
    if (!answer.ok) return toast("error", text("keep.failed"), await answer.text());
    await reloadEmbeddings();
    const kept = await answer.json();
    toast("success", text("kept", kept), howToUse(run, kept.name));
  },
};

/** @param {GraphNode} node */
function addPanel(node) {
  node.hideOutputImages = true; // the strip shows them; the classic renderer ignores this property and uses imgs
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  const panel = new Panel({ ...actions, resize: () => makeRoom(node) });
  attach(node, PROGRESS_TEXT, panel, {
    added: () => follow(panel, (run) => isFromOpenWorkflow(run.prompt_id) && nodeAt(run.node) === node),
    gone: () => dismiss(panel),
  });
}

/** @param {string} language */
async function changeLanguage(language) {
  await loadTexts(language);
  translatePanels();
  translatePickers();
  sidebar?.translate();
}

/** @type {Sidebar | undefined} */
let sidebar;

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
    {
      id: DESKTOP,
      category: ["ti-train", "Training", "DesktopNotification"],
      name: "Desktop notification when a training run ends",
      tooltip: "Shown by the browser, while this page is open. The browser asks for permission.",
      type: "boolean",
      defaultValue: false,
      onChange: allowDesktop,
    },
  ],
  async init() {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("ti_train.css", import.meta.url).href }));
    await loadTexts(String(app.extensionManager.setting.get("Comfy.Locale")));
    app.ui.settings.addEventListener("Comfy.Locale.change", ({ detail }) => changeLanguage(detail.value));
  },
  async setup() {
    const shown = new Sidebar({ actions, notify: toast, reloadEmbeddings });
    sidebar = shown;
    listenToRemarks((summary, detail) => toast("warn", summary, detail, 20000));
    notePrompts(() => {
      showRuns();
      showRemarks();
    });
    await listen({ updated: (run) => shown.update(run), ended });
  },
  nodeCreated(node) {
    if (node.comfyClass === "TITrain_TrainEmbedding") {
      addPanel(node);
      showPresetValues(node);
    }
    if (node.comfyClass === "TITrain_LoadTrainingImages") addPicker(node, (message, severity = "warn") => toast(severity, node.title, message));
    watchSettings(node);
  },
  afterConfigureGraph() {
    detachGone();
    showRuns();
    showRemarks();
  },
});

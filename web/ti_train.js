// ComfyUI's page: the live panel in Train Embedding, the pictures in Load Training Images, and the toast at the end.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Panel, element } from "./panel.js";
import { Picker } from "./picker.js";

const TOAST = "TITrain.ToastWhenLearnt";
const runs = new Map(); // id -> the server's snapshot, kept up to date by its events
const panels = new Map(); // node -> Panel
const rootGraph = () => app.rootGraph ?? app.graph;

/** The node that a run belongs to, or undefined: ids in subgraphs are paths such as 4:2. */
function nodeOf(run) {
  if (run.workflow !== rootGraph()?.id) return undefined;
  const ids = run.node.split(":");
  let graph = rootGraph();
  for (const id of ids.slice(0, -1)) graph = graph?.getNodeById(Number(id))?.subgraph;
  return graph?.getNodeById(Number(ids.at(-1))) ?? undefined;
}

/** The latest run of every node goes into its panel. */
function showRuns() {
  const latest = new Map();
  for (const run of runs.values()) latest.set(nodeOf(run), run);
  for (const [node, panel] of panels) if (latest.has(node)) panel.show(latest.get(node));
}

function panelShowing(id) {
  return [...panels.values()].filter((panel) => panel.run?.id === id);
}

async function fetchRuns() {
  const answer = await api.fetchApi("/ti_train/runs");
  if (!answer.ok) return;
  const known = new Map((await answer.json()).map((run) => [run.id, run]));
  for (const [id, run] of runs) {
    if (known.has(id) || run.status !== "running") continue;
    run.status = "lost"; // a server that has restarted knows nothing of it
    for (const panel of panelShowing(id)) panel.draw();
  }
  for (const [id, run] of known) runs.set(id, run);
  showRuns();
}

/** Events of a run that this page has not heard of yet are left: the next snapshot brings all. */
function onEvent(name, act) {
  api.addEventListener(`ti_train.${name}`, ({ detail }) => {
    const run = runs.get(detail.run);
    if (!run) return fetchRuns();
    const [panel, ...others] = panelShowing(detail.run);
    act(panel ?? detached(run), detail);
    for (const other of others) other.show(run);
  });
}

/** A run without a node on this page is kept up to date all the same: its workflow may be opened later. */
function detached(run) {
  const panel = new Panel({ resize() {}, preview: () => "" });
  panel.remove();
  panel.draw = () => {};
  panel.run = run;
  return panel;
}

function toast(severity, summary, detail, life = 8000) {
  app.extensionManager.toast.add({ severity, summary, detail, life });
}

async function ended(run) {
  const learnt = ["done", "stopped"].includes(run.status) && run.saved;
  if (!learnt) return;
  await (app.reloadNodeDefs?.() ?? app.refreshComboInNodes());
  if (app.extensionManager.setting.get(TOAST) !== false)
    toast("success", `${run.name} is learnt`, `Write embedding:${run.name} in any prompt.`);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // a page that is not on localhost or https has no clipboard of its own
    const field = element("textarea", { class: "ti-train-clipboard" }, text);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast("info", "Copied", text, 3000);
}

/** Gives a node room for its element, never taking any that the user gave. */
function makeRoom(node) {
  requestAnimationFrame(() => {
    if (!node.graph) return;
    const [width, height] = node.computeSize();
    if (node.size[0] < width || node.size[1] < height)
      node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.graph.setDirtyCanvas(true, true); // the widgets are arranged anew as they are drawn
  });
}

function attach(node, name, content) {
  const widget = node.addDOMWidget(name, name, content.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => content.height,
  });
  widget.serialize = false;
  return widget;
}

function onRemoved(node, act) {
  const before = node.onRemoved;
  node.onRemoved = function (...given) {
    act();
    return before?.apply(this, given);
  };
}

function addPanel(node) {
  node.hideOutputImages = true; // the strip shows them; the classic renderer does not know this yet and looks at imgs
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  const panel = new Panel({
    stop: async (run) => {
      run.stopping = true;
      panel.draw();
      const answer = await api.fetchApi(`/ti_train/runs/${run.id}/stop`, { method: "POST" });
      if (!answer.ok) toast("error", "Not stopped", await answer.text());
    },
    cancel: () => api.interrupt(null),
    copy: copied,
    preview: (run, number) => api.apiURL(`/ti_train/runs/${run.id}/previews/${number}`),
    resize: () => makeRoom(node),
  });
  panels.set(node, panel);
  attach(node, "ti_train_panel", panel);
  onRemoved(node, () => {
    panels.delete(node);
    panel.remove();
  });
}

function addPicker(node) {
  const widget = (name) => node.widgets.find((w) => w.name === name);
  const picker = new Picker({
    fetch: (path, options) => api.fetchApi(path, options),
    address: (path) => api.apiURL(path),
    folder: () => String(widget("folder").value ?? ""),
    setFolder: (folder) => (widget("folder").value = folder),
    subfolders: () => widget("subfolders").value,
    resolution: () => resolutionOf(node),
    say: (text) => toast("warn", "Load Training Images", text),
    resize: () => makeRoom(node),
  });
  attach(node, "ti_train_pictures", picker);
  for (const name of ["folder", "subfolders"]) {
    const changed = widget(name).callback;
    widget(name).callback = (...given) => {
      changed?.apply(widget(name), given);
      picker.refresh();
    };
  }
  node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
  node.onDragDrop = async (event) => {
    if (!event.dataTransfer?.items.length) return false;
    await picker.drop(event.dataTransfer);
    return true;
  };
  picker.element.addEventListener("dragover", (event) => event.preventDefault());
  picker.element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    picker.drop(event.dataTransfer);
  });
  const configured = node.onConfigure;
  node.onConfigure = function (...given) {
    configured?.apply(this, given);
    picker.refresh();
  };
}

/** The side in pixels that Training Options give to the training of these pictures; 0: none. */
function resolutionOf(node) {
  const target = (link) => node.graph?.getNodeById(node.graph.links.get?.(link)?.target_id ?? node.graph.links[link]?.target_id);
  const trainings = (node.outputs[0]?.links ?? []).map(target).filter((n) => n?.type === "TITrain_TrainEmbedding");
  const options = trainings.map((n) => n.getInputNode?.(n.findInputSlot("options")));
  return options.find((n) => n)?.widgets?.find((w) => w.name === "resolution")?.value ?? 0;
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
  async setup() {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("ti_train.css", import.meta.url).href }));
    api.addEventListener("ti_train.run", ({ detail }) => {
      runs.set(detail.id, detail);
      showRuns();
      if (detail.status !== "running") ended(detail);
    });
    onEvent("progress", (panel, detail) => panel.progress(detail));
    onEvent("preview", (panel, detail) => panel.preview(detail));
    onEvent("warning", (panel, { message }) => panel.warning(message));
    api.addEventListener("reconnecting", () => panels.forEach((panel) => panel.connection(false)));
    api.addEventListener("reconnected", () => {
      panels.forEach((panel) => panel.connection(true));
      fetchRuns();
    });
    await fetchRuns();
  },
  nodeCreated(node) {
    if (node.comfyClass === "TITrain_TrainEmbedding") addPanel(node);
    if (node.comfyClass === "TITrain_LoadTrainingImages") addPicker(node);
  },
  afterConfigureGraph: showRuns,
});

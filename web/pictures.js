// Load Training Images in its workflow: the crop and resolution that the connected nodes give its images.

import { api } from "../../scripts/api.js";
import { Picker } from "./picker.js";
import { ask } from "./server.js";
import { attach, chain, detachGone, makeRoom } from "./widget.js";

// Node type -> the widgets that change the trained area of the images.
/** @type {Record<string, string[]>} */
const SEEN_BY = { TITrain_TrainEmbedding: ["preset", "resolution"], TITrain_TrainingOptions: ["resolution", "crop"] };
const SQUARE = "square", PRESETS_OWN = "the preset's", SQUARE_PRESET = "Paper";
const PAUSE = 200; // milliseconds: opening a workflow triggers many changes at once

/** @type {Set<Picker>} */
const pickers = new Set();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let waiting;

/** The value of a node's widget. @param {GraphNode | null | undefined} node @param {string} name */
const valueOf = (node, name) => node?.widgets?.find((widget) => widget.name === name)?.value;

/** A widget that this pack's nodes are known to have. @param {GraphNode} node @param {string} name */
const widgetOf = (node, name) => /** @type {Widget} */ (node.widgets?.find((widget) => widget.name === name));

function refreshSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    detachGone();
    pickers.forEach((picker) => picker.refresh());
  }, PAUSE);
}

/** Writes the texts of all pickers anew, in the language that is set. */
export function translatePickers() {
  for (const picker of pickers) picker.translate();
}

/** Refreshes the images when a node that sets their crop or resolution is changed, connected or disconnected. @param {GraphNode} node */
export function watchSettings(node) {
  const names = SEEN_BY[node.comfyClass];
  if (!names) return;
  for (const name of names) chain(widgetOf(node, name), "callback", refreshSoon);
  chain(node, "onConnectionsChange", refreshSoon);
}

/** @param {GraphNode} node @param {import("./picker.js").Actions["notify"]} notify */
export function addPicker(node, notify) {
  const picker = new Picker({
    fetch: ask,
    address: (path) => api.apiURL(path),
    folder: () => String(valueOf(node, "folder") ?? ""),
    name: () => String(valueOf(downstream(node, "TITrain_TrainEmbedding"), "name") ?? ""),
    setFolder: (folder) => (widgetOf(node, "folder").value = folder),
    subfolders: () => Boolean(valueOf(node, "subfolders")),
    training: () => trainingOf(node),
    notify,
    resize: () => makeRoom(node),
  });
  attach(node, "ti_train_pictures", picker, { added: () => pickers.add(picker), gone: () => pickers.delete(picker) });
  for (const name of ["folder", "subfolders"]) chain(widgetOf(node, name), "callback", () => picker.refresh());
  for (const name of ["onConfigure", "onConnectionsChange"]) chain(node, name, refreshSoon);
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
    if (event.dataTransfer) picker.drop(event.dataTransfer);
  });
}

/** Resolution in pixels (0: the model's own) and crop of the first Train Embedding downstream of a node. @param {GraphNode} node */
function trainingOf(node) {
  const train = downstream(node, "TITrain_TrainEmbedding");
  const options = train?.getInputNode?.(train.findInputSlot("options"));
  const crop = valueOf(options, "crop") ?? PRESETS_OWN;
  const square = crop === SQUARE || (crop === PRESETS_OWN && valueOf(train, "preset") === SQUARE_PRESET);
  return { resolution: Number(valueOf(options, "resolution") || valueOf(train, "resolution") || 0), square };
}

/** The nearest node of a type downstream of a node's images, through reroutes and image nodes. @param {GraphNode} node @param {string} kind */
function downstream(node, kind) {
  const found = receivers(node);
  for (const next of found) {
    if (next.type === kind) return next;
    found.push(...receivers(next).filter((other) => !found.includes(other)));
  }
  return undefined;
}

/** The nodes that receive a node's images. @param {GraphNode} node @returns {GraphNode[]} */
function receivers({ graph, outputs }) {
  if (!graph) return [];
  const links = (outputs ?? []).filter(({ type }) => type === "IMAGE" || type === "*").flatMap((output) => output.links ?? []);
  const ids = links.map((id) => (graph.links.get?.(id) ?? graph.links[id])?.target_id);
  // a link to a subgraph's output leads to no node
  return ids.map((id) => graph.getNodeById(id)).filter((node) => node != null);
}

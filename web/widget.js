// HTML elements as widgets of a node.

import { passToCanvas } from "./canvas.js";
import { isGone } from "./graph.js";

/** @typedef {{added(): void, gone(): void}} Presence what to do when a node is added to a graph, and when it is on no page any more */

/** @type {Map<GraphNode, Presence>} */
const attached = new Map();
let made = 0;

/** @typedef {{element: HTMLElement, height: number}} Content height: minimum in pixels */

/** @param {GraphNode} node @param {string} name @param {Content} content */
export function addElement(node, name, content) {
  // Nodes 2.0 keeps the element of a widget as long as node id, name and type are the same, although undo has made the node anew
  const type = `ti-train-${++made}`;
  const widget = node.addDOMWidget(name, type, content.element, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true, // the properties panel would show an empty canvas, and set the widget's width
    getMinHeight: () => content.height,
  });
  widget.serialize = false;
  passToCanvas(content.element);
  return widget;
}

/** Adds an element to a new node. @param {GraphNode} node @param {string} name @param {Content} content @param {Presence} presence */
export function attach(node, name, content, presence) {
  addElement(node, name, content);
  chain(node, "onAdded", () => { // never called for a copy in the clipboard, nor for what Convert to Subgraph copies
    attached.set(node, presence);
    presence.added();
  });
  chain(node, "onRemoved", () => detach(node));
}

/** @param {GraphNode} node */
function detach(node) {
  const presence = attached.get(node);
  attached.delete(node);
  presence?.gone();
}

/** Lets go of the nodes that the open workflow no longer has. */
export function detachGone() {
  for (const node of attached.keys()) if (isGone(node)) detach(node);
}

/** Enlarges a node if its element needs more room; never shrinks it. @param {GraphNode} node */
export function makeRoom(node) {
  requestAnimationFrame(() => {
    if (!node.graph) return;
    const [width, height] = node.computeSize();
    if (node.size[0] < width || node.size[1] < height)
      node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.graph.setDirtyCanvas(true, true); // redraw, which also lays out the widgets
  });
}

/**
 * Runs a function after a callback of a node or widget, in addition to what it did before.
 * @param {Record<string, any>} target
 * @param {string} name
 * @param {(...given: any[]) => void} act
 */
export function chain(target, name, act) {
  const before = target[name];
  target[name] = function (/** @type {any[]} */ ...given) {
    const result = before?.apply(this, given);
    act(...given);
    return result;
  };
}

// HTML elements as widgets of a node.

/**
 * @param {GraphNode} node
 * @param {string} name
 * @param {{element: HTMLElement, height: number}} content height: minimum in pixels
 */
export function attach(node, name, content) {
  const widget = node.addDOMWidget(name, name, content.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => content.height,
  });
  widget.serialize = false;
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

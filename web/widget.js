// An element of ours as a widget of a node.

/** content: its element, and its least height in pixels. */
export function attach(node, name, content) {
  const widget = node.addDOMWidget(name, name, content.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => content.height,
  });
  widget.serialize = false;
}

/** Gives a node room for its element, never taking any that the user gave. */
export function makeRoom(node) {
  requestAnimationFrame(() => {
    if (!node.graph) return;
    const [width, height] = node.computeSize();
    if (node.size[0] < width || node.size[1] < height)
      node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.graph.setDirtyCanvas(true, true); // the widgets are arranged anew as they are drawn
  });
}

/** Acts after a callback of a node or widget, whatever it did before. */
export function chain(target, name, act) {
  const before = target[name];
  target[name] = function (...given) {
    const result = before?.apply(this, given);
    act(...given);
    return result;
  };
}

// Train Embedding's steps and learning rate: where they are 0, the preset's values are filled in, so that one sees what is trained with.

import { chain } from "./widget.js";

/** @typedef {Record<string, Record<string, number>>} Values input -> preset -> value */

/** @param {GraphNode} node */
export function showPresetValues(node) {
  const preset = node.widgets?.find(({ name }) => name === "preset");
  /** @type {Values | undefined} */
  const values = node.constructor.nodeData?.input.required.preset[1].values;
  if (!preset || !values) return;
  let shown = String(preset.value);
  /** A value that is the shown preset's follows the preset; one that the user has entered stays. */
  const fill = () => {
    for (const [input, ofPreset] of Object.entries(values)) {
      const widget = node.widgets?.find(({ name }) => name === input);
      if (widget && (!widget.value || widget.value === ofPreset[shown])) widget.value = ofPreset[String(preset.value)];
    }
    shown = String(preset.value);
  };
  chain(preset, "callback", fill);
  chain(node, "onConfigure", () => {
    shown = String(preset.value); // the saved values are this preset's, or the user's
    fill();
  });
  fill();
}

// The graph of the open workflow, and its nodes.

import { app } from "../../scripts/app.js";

const rootGraph = () => app.rootGraph ?? app.graph;

/** A node by its id in a prompt: the ids of the subgraphs around it, outermost first, and its own, such as 4:2. @param {string} path */
export function nodeAt(path) {
  const ids = path.split(":");
  /** @type {Graph | undefined} */
  let graph = rootGraph();
  for (const id of ids.slice(0, -1)) graph = graph?.getNodeById(Number(id))?.subgraph;
  return graph?.getNodeById(Number(ids.at(-1))) ?? undefined;
}

/**
 * Whether the open workflow has lost a node. The front end drops a subgraph without a word to the nodes in it.
 * @param {GraphNode} node
 */
export function isGone({ graph, id }) {
  if (!graph) return true;
  const root = rootGraph();
  const open = graph === root || root.subgraphs?.get(graph.id) === graph;
  return !open || !graph.getNodeById(id);
}

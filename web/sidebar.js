// The sidebar's tab: the current or last run, whichever workflow is open and whichever client started it.

import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { Panel } from "./panel.js";
import { follow } from "./runs.js";
import { text } from "./text.js";

const ID = "ti-train";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {Omit<import("./panel.js").Actions, "resize">} Actions */

/** Returns a function that updates the tab with the latest run. The tab is added with the first run. @param {Actions} actions */
export function sidebar(actions) {
  /** @type {string | undefined} */
  let badge;
  return (/** @type {Run | undefined} */ run) => {
    if (!run) return;
    if (badge === undefined) register(actions);
    const now = run.status === "running" ? `${Math.floor((100 * run.step) / run.steps)}%` : "";
    if (now === badge) return;
    badge = now;
    const tab = app.extensionManager.getSidebarTabs().find(({ id }) => id === ID);
    if (tab) tab.iconBadge = now;
  };
}

/** @param {Actions} actions */
function register(actions) {
  const panel = new Panel({ ...actions, resize() {} });
  const place = element("section", { class: "ti-train-sidebar" }, element("h2", {}, text("sidebar")), panel.element);
  app.extensionManager.registerSidebarTab({
    id: ID,
    icon: "pi pi-graduation-cap",
    title: text("sidebar"),
    label: text("sidebar.label"),
    tooltip: text("sidebar.tooltip"),
    type: "custom",
    render: (parent) => parent.replaceChildren(place),
  });
  follow(panel);
}

// The sidebar's tab: the current or last run, whichever workflow is open and whichever client started it; and the lists
// of past runs and embeddings.

import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { Library } from "./library.js";
import { Panel } from "./panel.js";
import { follow } from "./runs.js";
import { text, translate } from "./text.js";

const ID = "ti-train";

/** @typedef {import("./run.js").Run} Run */

export class Sidebar {
  /** @param {import("./library.js").Page} page */
  constructor(page) {
    this.badge = "";
    const panel = new Panel({ ...page.actions, resize() {} });
    this.library = new Library(page);
    const place = element("section", { class: "ti-train-sidebar" }, element("h2", { "data-text": "sidebar" }), panel.element, this.library.element);
    this.place = place;
    translate(place);
    app.extensionManager.registerSidebarTab({
      id: ID, icon: "pi pi-graduation-cap", type: "custom", ...this.texts(),
      render: (parent) => parent.replaceChildren(place),
    });
    follow(panel);
  }

  texts() {
    return { title: text("sidebar"), label: text("sidebar.label"), tooltip: text("sidebar.tooltip") };
  }

  get tab() {
    return app.extensionManager.getSidebarTabs().find(({ id }) => id === ID);
  }

  /** Writes the texts in the language that is set; follow()'s panels are written by runs.js. */
  translate() {
    Object.assign(this.tab ?? {}, this.texts());
    translate(this.place);
    this.library.translate();
  }

  /** Shows a run's progress as the tab's badge. @param {Run | undefined} run the latest */
  update(run) {
    const now = run?.status === "running" ? `${Math.floor((100 * run.step) / run.steps)}%` : "";
    if (now === this.badge) return;
    this.badge = now;
    if (this.tab) this.tab.iconBadge = now;
  }
}

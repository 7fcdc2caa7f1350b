// The sidebar's lists: past runs, with their curves and settings, and the embeddings folder, to rename and delete.

import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { Panel } from "./panel.js";
import { ask } from "./server.js";
import { text, translate } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {Omit<import("./panel.js").Actions, "resize">} Actions */
/** @typedef {{file: string, changed: number, size: number}} Embedding changed: seconds since 1970 */

/**
 * @typedef {object} Page what the lists need from the page
 * @property {Actions} actions
 * @property {(severity: "success" | "error", summary: string, detail: string) => void} notify
 * @property {() => Promise<void>} reloadEmbeddings
 */

const date = (/** @type {number} */ seconds) => new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export class Library {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Map<string, number>} what is fetched -> how often it was */
    this.asked = new Map();
    this.past = new Panel({ ...page.actions, resize() {} });
    this.settings = element("div", { class: "ti-train-facts" });
    this.runs = this.section("pastRuns", () => this.showRuns());
    this.embeddings = this.section("embeddings", () => this.showEmbeddings());
    this.element = element("div", { class: "ti-train-library" }, this.runs.section, this.embeddings.section);
    this.translate();
  }

  /** A list that is fetched whenever it is opened. @param {string} title @param {() => void} show */
  section(title, show) {
    const list = element("div", { role: "list", "data-label": title });
    const section = element("details", { ontoggle: () => section.open && show() }, element("summary", { "data-text": title }), list);
    return { section, list };
  }

  /** Writes all texts, in the language that is set. */
  translate() {
    translate(this.element);
    this.past.translate();
    this.refresh();
  }

  /** Fetches the lists that are open. */
  refresh() {
    if (this.runs.section.open) this.showRuns();
    if (this.embeddings.section.open) this.showEmbeddings();
  }

  async showRuns() {
    const found = await this.fetched("runs", "/ti_train/records", "/ti_train/runs");
    if (!found) return;
    const [recorded, running] = found;
    const live = new Set(running.filter((/** @type {Run} */ run) => run.status === "running").map((/** @type {Run} */ run) => run.id));
    const past = recorded.filter((/** @type {Run} */ run) => !live.has(run.id));
    this.runs.list.replaceChildren(...past.map((/** @type {Run} */ run) => this.runRow(run)));
    if (!past.length) this.runs.list.textContent = text("pastRuns.none");
  }

  /** @param {Run} run */
  runRow(run) {
    const best = run.best ? ` · ${text("best.value", { step: run.best[0], loss: run.best[1].toPrecision(4) })}` : "";
    const line = `${date(run.began)} · ${text("step", run)}${best}`;
    const row = element("details", { role: "listitem" }, element("summary", {}, run.name, element("span", { class: "ti-train-hint" }, line)));
    row.addEventListener("toggle", () => row.open && this.showRun(run.id, row));
    return row;
  }

  /** Shows a past run below its row, as it was when it ended. @param {string} id @param {HTMLDetailsElement} row */
  async showRun(id, row) {
    const found = await this.fetched("run", `/ti_train/runs/${id}`);
    if (!found) return;
    /** @type {Run} */
    const run = found[0];
    if (!run.id) return this.showRuns(); // it is no longer recorded
    if (run.status === "running") run.status = "lost"; // its server has ended before it
    const settings = Object.entries(run.settings ?? {}).map(([name, value]) => element("div", {}, element("span", {}, name), String(value)));
    this.settings.replaceChildren(...settings);
    for (const other of this.runs.list.querySelectorAll("details")) other.open = other === row;
    row.append(this.past.element, this.settings);
    this.past.show(run);
  }

  async showEmbeddings() {
    const found = await this.fetched("embeddings", "/ti_train/embeddings");
    if (!found) return;
    /** @type {Embedding[]} */
    const there = found[0];
    this.embeddings.list.replaceChildren(...there.map((one) => this.embeddingRow(one)));
    if (!there.length) this.embeddings.list.textContent = text("embeddings.none");
  }

  /** @param {Embedding} embedding */
  embeddingRow({ file, changed }) {
    const name = element("div", {}, file, element("span", { class: "ti-train-hint" }, date(changed)));
    const rename = element("button", { type: "button", "aria-label": text("rename.of", { file }), onclick: () => this.rename(file) }, text("rename"));
    const remove = element("button", { type: "button", "aria-label": text("delete.of", { file }), onclick: () => this.remove(file) }, text("delete"));
    return element("div", { class: "ti-train-row", role: "listitem" }, name, rename, remove);
  }

  /** @param {string} file */
  async rename(file) {
    const stem = file.slice(file.lastIndexOf("/") + 1).replace(/\.[^.]*$/, "");
    const name = await app.extensionManager.dialog.prompt({ title: text("rename.of", { file }), message: text("rename.how"), defaultValue: stem });
    if (!name || name === stem) return;
    await this.change("rename", { file, name }, "renamed");
  }

  /** @param {string} file */
  async remove(file) {
    const sure = await app.extensionManager.dialog.confirm({ title: text("delete.of", { file }), message: text("delete.how"), type: "delete", itemList: [file] });
    if (sure) await this.change("remove", { file }, "deleted");
  }

  /** @param {string} what @param {{file: string, name?: string}} body @param {string} done key of the message */
  async change(what, body, done) {
    const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    const answer = await ask(`/ti_train/embeddings/${what}`, options);
    if (!answer.ok) return this.page.notify("error", text("embeddings.failed", body), await answer.text());
    await this.page.reloadEmbeddings();
    this.page.notify("success", body.file, text(done, await answer.json()));
    await this.showEmbeddings();
  }

  /**
   * The answers to some requests, [] for one that has failed; undefined if the same was asked for again meanwhile, since
   * answers may overtake one another.
   * @param {string} what
   * @param {...string} paths
   */
  async fetched(what, ...paths) {
    const number = (this.asked.get(what) ?? 0) + 1;
    this.asked.set(what, number);
    const answers = await Promise.all(paths.map(async (path) => {
      const answer = await ask(path);
      return answer.ok ? answer.json() : [];
    }));
    return number === this.asked.get(what) ? answers : undefined;
  }
}

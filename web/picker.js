// The image picker inside Load Training Images: drop, upload, view the trained area, and edit captions.

import { element, enlarged } from "./element.js";
import { text, translate } from "./text.js";
import { imagesOf, MASKS, OFFERED, sorted } from "./uploads.js";

const NAMED = 5; // of the files in a message
const EMPTY = 78, FEW = 290, MOST = 640, GAP = 4, MARGIN = 28; // pixels: heights without images, before the layout is known, at most

/**
 * @typedef {object} Picture an image of the folder, as the server describes it
 * @property {string} file path in the input directory
 * @property {number} changed
 * @property {number} [width] pixels; none if it cannot be read
 * @property {number} [height]
 * @property {string} caption
 * @property {[left: number, top: number, width: number, height: number] | null} crop fractions of the image
 * @property {({kind: string} & Record<string, unknown>)[]} warnings
 */

/** @typedef {import("./uploads.js").Chosen} Chosen */
/** @typedef {import("./uploads.js").Placed} Placed */

/**
 * @typedef {object} Actions what the picker needs from the page
 * @property {(path: string, options?: RequestInit) => Promise<Response>} fetch
 * @property {(path: string) => string} address
 * @property {() => string} folder
 * @property {() => string} name of the embedding that the images are for
 * @property {(folder: string) => void} setFolder
 * @property {() => boolean} subfolders
 * @property {() => {resolution: number, square: boolean}} training
 * @property {(message: string, severity?: "info" | "warn") => void} notify
 * @property {() => void} resize
 */

export class Picker {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    this.asked = 0;
    /** @type {Picture[]} */
    this.pictures = [];
    /** @type {Map<string, string>} image -> a caption that was typed, and is not saved yet */
    this.typed = new Map();
    /** @type {Promise<unknown>} when the captions that were sent are answered */
    this.sent = Promise.resolve();
    this.head = element("div", { class: "ti-train-status", role: "status" });
    this.grid = element("div", { class: "ti-train-pictures", role: "list", "data-label": "pictures" });
    const chooser = (/** @type {Record<string, unknown>} */ attributes) => {
      const input = element("input", { type: "file", hidden: true, multiple: true, ...attributes });
      input.addEventListener("change", () => {
        const files = [...(input.files ?? [])].map((file) => ({ file, path: file.webkitRelativePath.split("/").slice(0, -1) }));
        this.add(files).then(() => (input.value = ""));
      });
      return input;
    };
    const files = chooser({ accept: OFFERED });
    const folder = chooser({ webkitdirectory: true });
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) => element("button", { type: "button", "data-text": name, "data-title": `${name}.tooltip`, onclick: act });
    this.buttons = element(
      "div", { class: "ti-train-buttons" },
      button("add", () => files.click()), button("addFolder", () => folder.click()), button("newFolder", () => this.startFolder()), files, folder,
    );
    this.element = element("div", { class: "ti-train-panel ti-train-picker" }, this.head, this.grid, this.buttons);
    this.needed = 0; // height in pixels
    new ResizeObserver(() => this.fit()).observe(this.element);
    translate(this.element);
    this.draw("");
  }

  /** Writes all texts, in the language that is set. */
  translate() {
    translate(this.element);
    this.refresh();
  }

  /** Height in pixels that shows all images, up to a limit. */
  get height() {
    if (!this.pictures.length) return EMPTY;
    if (!this.grid.offsetWidth) return FEW;
    return Math.min(MOST, this.grid.scrollHeight + this.head.offsetHeight + this.buttons.offsetHeight + 2 * GAP + MARGIN);
  }

  /** Requests more height if the node has become too small. */
  fit() {
    if (this.height === this.needed) return;
    this.needed = this.height;
    this.actions.resize();
  }

  /** Requests the folder's images from the server. A response that a later request has overtaken is dropped. */
  async refresh() {
    const asked = ++this.asked;
    const folder = this.actions.folder().trim();
    if (!folder) return this.draw("", []);
    const { resolution, square } = this.actions.training();
    const [cut, deep] = [square, this.actions.subfolders()].map((wanted) => (wanted ? "1" : "0"));
    const query = new URLSearchParams({ folder, resolution: String(resolution), square: cut, subfolders: deep });
    const answer = await this.actions.fetch(`/ti_train/pictures?${query}`);
    if (asked !== this.asked) return;
    if (!answer.ok) return this.draw(text("unread", { status: answer.status }), []);
    const { pictures, side, error, remarks = [] } = await answer.json();
    if (asked !== this.asked) return;
    const count = pictures.length;
    const trained = side ? text("count", { count, side }) : text("count.own", { count });
    this.draw(error || [count ? trained : text("empty", { folder }), ...remarks].join(" "), pictures);
  }

  /** @param {string} message @param {Picture[]} [pictures] */
  draw(message, pictures = []) {
    if (this.grid.contains(document.activeElement)) /** @type {HTMLElement} */ (document.activeElement).blur(); // saves a caption that is being typed
    this.pictures = pictures;
    this.head.textContent = message || text("drop");
    this.grid.replaceChildren(...pictures.map((picture) => this.card(picture)));
    this.grid.hidden = !pictures.length;
    this.fit();
  }

  /** @param {Picture} picture */
  card(picture) {
    const address = `/ti_train/thumbnail?${new URLSearchParams({ file: picture.file, v: String(picture.changed) })}`;
    const src = this.actions.address(address);
    const name = picture.file.slice(picture.file.lastIndexOf("/") + 1);
    const title = picture.crop ? text("picture", { ...picture, name }) : name;
    const thumb = element("div", { class: "ti-train-thumb" }, element("img", { src, alt: title, loading: "lazy", draggable: "false", width: picture.width, height: picture.height }));
    if (picture.crop) {
      const [left, top, width, height] = picture.crop.map((part) => `${(100 * part).toFixed(2)}%`);
      const frame = element("div", { class: "ti-train-crop" });
      Object.assign(frame.style, { left, top, width, height });
      thumb.append(frame);
    }
    const enlarge = element("button", { type: "button", title, onclick: () => enlarged(src, title) }, thumb);
    const caption = element("textarea", {
      rows: 2, placeholder: text("caption"), "aria-label": text("caption.of", { name }),
      oninput: () => this.typed.set(picture.file, caption.value),
      onchange: () => this.write(picture, caption),
      onkeydown: (/** @type {KeyboardEvent} */ event) => event.stopPropagation(),
    });
    caption.value = this.typed.get(picture.file) ?? picture.caption;
    const remove = element("button", {
      type: "button", class: "ti-train-remove", title: text("remove.tooltip", { name }), "aria-label": text("remove", { name }),
      onclick: () => this.remove(picture),
    }, "\u00d7");
    const warnings = picture.warnings.map((warning) => element("p", { class: "ti-train-warning" }, text(`warning.${warning.kind}`, warning)));
    return element("div", { role: "listitem" }, element("div", { class: "ti-train-picture" }, enlarge, remove), ...warnings, caption);
  }

  /** Moves an image to removed/; the focus goes to the image that takes its place. @param {Picture} picture */
  async remove(picture) {
    const place = this.pictures.indexOf(picture);
    const answer = await this.send("/ti_train/remove", { file: picture.file });
    if (answer.ok) this.actions.notify(text("removed", { file: picture.file, ...(await answer.json()) }), "info");
    else this.actions.notify(await answer.text());
    await this.refresh();
    /** @type {NodeListOf<HTMLButtonElement>} */
    const buttons = this.element.querySelectorAll(".ti-train-remove, .ti-train-buttons button");
    buttons[Math.min(place, Math.max(0, this.pictures.length - 1))].focus({ preventScroll: true });
  }

  /** Saves a caption, after those before it: requests may overtake one another. @param {Picture} picture @param {HTMLTextAreaElement} field */
  async write(picture, field) {
    const { file } = picture, typed = field.value;
    const request = this.sent.then(() => this.send("/ti_train/caption", { file, text: typed }));
    this.sent = request;
    const answer = await request;
    if (!answer.ok) return this.actions.notify(text("caption.failed", { file, why: await answer.text() }));
    picture.caption = (await answer.json()).caption;
    if (field.value === typed) field.value = picture.caption; // else the user types on
    if (this.typed.get(file) === typed) this.typed.delete(file);
  }

  /** @param {string} path @param {object} body */
  send(path, body) {
    return this.actions.fetch(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }

  /** Uploads images, then their masks and captions, and says what of the files is not used. @param {Chosen[]} files */
  async add(files) {
    const { uploads, tables, others } = sorted(files);
    const given = this.actions.folder().trim();
    if (!uploads.length && !(given && tables.length)) return this.actions.notify(text("none"));
    const folder = given || (await this.newFolder(uploads[0].path[0] || this.actions.name().trim()));
    const { images, refused } = await this.upload(uploads, folder);
    const remarks = [];
    for (const table of tables) remarks.push(...(await this.addCaptions(table, images, folder)));
    if (refused.length) this.actions.notify(text("refused", { files: refused.join(", ") }));
    if (others.length) remarks.push(text("others", { files: listed(others.map(({ file, path }) => [...path, file.name].join("/"))) }));
    if (remarks.length) this.actions.notify(remarks.join(" "));
    this.actions.setFolder(folder);
    await this.refresh();
  }

  /** @param {import("./uploads.js").Upload[]} uploads @param {string} folder */
  async upload(uploads, folder) {
    const stems = new Map(); // image -> its name in the folder, which differs if its own name was taken
    /** @type {Placed[]} */
    const images = [];
    /** @type {string[]} */
    const refused = [];
    for (const [i, { file, path, picture, stem, rest, belongs, masks }] of uploads.entries()) {
      this.head.textContent = text("uploading", { number: i + 1, count: uploads.length });
      const form = new FormData();
      form.append("image", file, (stems.get(picture) ?? stem) + rest);
      form.append("subfolder", masks ? `${folder}/${MASKS}` : folder);
      form.append("type", "input");
      if (belongs) form.append("overwrite", "true");
      const answer = await this.actions.fetch("/upload/image", { method: "POST", body: form });
      if (!answer.ok) refused.push(file.name);
      else if (!belongs) {
        const { name } = await answer.json();
        stems.set(picture, name.replace(/\.[^.]*$/, ""));
        images.push({ file, path, placed: `${folder}/${name}` });
      }
    }
    return { images, refused };
  }

  /**
   * Has the entries of a table written beside the images that they are for: those that were added with it, or the
   * folder's. The table itself is not uploaded: the folder may have another one, and images may have new names.
   * @param {Chosen} table @param {Placed[]} images @param {string} folder @returns {Promise<string[]>} remarks
   */
  async addCaptions(table, images, folder) {
    const form = new FormData();
    form.append("table", table.file);
    form.append("folder", folder);
    form.append("images", JSON.stringify(imagesOf(table, images)));
    const answer = await this.actions.fetch("/ti_train/table", { method: "POST", body: form });
    return answer.ok ? (await answer.json()).remarks : [text("refused", { files: table.file.name })];
  }

  /** What is added next goes to a new folder. */
  startFolder() {
    this.actions.setFolder("");
    this.refresh();
  }

  /** A folder named after the dropped one or the embedding; numbered if the input directory already has it. @param {string} wanted */
  async newFolder(wanted) {
    const name = wanted || "training-pictures";
    for (let number = 1; ; number++) {
      const folder = number === 1 ? name : `${name}-${number}`;
      const answer = await this.actions.fetch(`/ti_train/pictures?${new URLSearchParams({ folder })}`);
      if (!answer.ok || !(await answer.json()).pictures.length) return folder; // the upload tells what is wrong
    }
  }

  /** Adds what was dropped on the node; folders are read recursively. @param {DataTransfer} transfer */
  async drop(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
    /** @type {Chosen[]} */
    const loose = [...transfer.files].map((file) => ({ file, path: [] }));
    await this.add(entries.length ? (await Promise.all(entries.map((entry) => filesOf(entry)))).flat() : loose);
  }
}

/** The first of some names. @param {string[]} names */
function listed(names) {
  return names.slice(0, NAMED).join(", ") + (names.length > NAMED ? " ..." : "");
}

/** @param {FileSystemEntry} entry @param {string[]} [path] @returns {Promise<Chosen[]>} */
async function filesOf(entry, path = []) {
  if (isFile(entry)) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path }];
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const inside = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 per call
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map((inner) => filesOf(inner, [...path, entry.name])))).flat();
}

/** @param {FileSystemEntry} entry @returns {entry is FileSystemFileEntry} */
function isFile(entry) {
  return entry.isFile;
}

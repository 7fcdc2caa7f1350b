// The pictures inside Load Training Images: drop, upload, look at them as training will, and write their captions.

import { element, enlarged } from "./panel.js";

const PICTURE = /\.(png|jpe?g|webp|bmp|gif|tiff?|avif)$/i;
const CAPTION = /\.txt$/i;

export class Picker {
  /** actions: fetch(path, options) -> Response, folder() -> text, setFolder(text), subfolders(), resolution(), say(text), resize(). */
  constructor(actions) {
    this.actions = actions;
    this.asked = 0;
    this.pictures = [];
    this.head = element("div", { class: "ti-train-status", role: "status" });
    this.grid = element("div", { class: "ti-train-pictures", role: "list", "aria-label": "Training pictures" });
    const chooser = (attributes) => element("input", {
      type: "file", hidden: true, multiple: true, ...attributes,
      onchange: (event) => this.add([...event.target.files]).then(() => (event.target.value = "")),
    });
    const files = chooser({ accept: "image/*,.txt" });
    const folder = chooser({ webkitdirectory: true });
    const button = (text, title, act) => element("button", { type: "button", title, onclick: act }, text);
    this.element = element(
      "div", { class: "ti-train-panel ti-train-picker" },
      this.head, this.grid,
      element("div", { class: "ti-train-buttons" },
        button("Add pictures", "Upload pictures, and captions as text files, into the folder", () => files.click()),
        button("Add a folder", "Upload a folder's pictures and captions", () => folder.click()), files, folder),
    );
    this.draw("");
  }

  get height() {
    return this.pictures.length ? 290 : 78;
  }

  /** Asks the server for the folder's pictures. An answer that a later question has overtaken is dropped. */
  async refresh() {
    const asked = ++this.asked;
    const folder = this.actions.folder().trim();
    if (!folder) return this.draw("", []);
    const query = new URLSearchParams({ folder, subfolders: this.actions.subfolders() ? 1 : 0, resolution: this.actions.resolution() });
    const answer = await this.actions.fetch(`/ti_train/pictures?${query}`);
    if (asked !== this.asked) return;
    if (!answer.ok) return this.draw(`The server cannot read the folder (${answer.status}).`, []);
    const { pictures, side, error } = await answer.json();
    if (asked === this.asked) this.draw(error || `${pictures.length} pictures, learnt at ${side} x ${side}`, pictures);
  }

  draw(text, pictures = []) {
    this.pictures = pictures;
    this.head.textContent = text || "Drop pictures here, or name a folder.";
    this.grid.replaceChildren(...pictures.map((picture) => this.card(picture)));
    this.grid.hidden = !pictures.length;
    this.actions.resize();
  }

  card(picture) {
    const address = `/ti_train/thumbnail?${new URLSearchParams({ file: picture.file, v: picture.changed })}`;
    const src = this.actions.address(address);
    const name = picture.file.split("/").pop();
    const title = picture.crop ? `${name}, ${picture.width} x ${picture.height}; the frame is what training sees` : name;
    const thumb = element("div", { class: "ti-train-thumb" }, element("img", { src, alt: title, loading: "lazy", draggable: "false" }));
    if (picture.crop) {
      const [left, top, width, height] = picture.crop.map((part) => `${(100 * part).toFixed(2)}%`);
      const frame = element("div", { class: "ti-train-crop" });
      Object.assign(frame.style, { left, top, width, height });
      thumb.append(frame);
    }
    const enlarge = element("button", { type: "button", title, onclick: () => enlarged(src, title) }, thumb);
    const caption = element("textarea", {
      rows: 2, placeholder: "caption", "aria-label": `Caption of ${name}`,
      onchange: (event) => this.write(picture, event.target),
      onkeydown: (event) => event.stopPropagation(),
    });
    caption.value = picture.caption;
    const warnings = picture.warnings.map((warning) => element("p", { class: "ti-train-warning" }, warning));
    return element("div", { role: "listitem" }, enlarge, ...warnings, caption);
  }

  async write(picture, field) {
    const answer = await this.send("/ti_train/caption", { file: picture.file, text: field.value });
    if (answer.ok) picture.caption = field.value = (await answer.json()).caption;
    else this.actions.say(`The caption of ${picture.file} was not saved: ${await answer.text()}`);
  }

  send(path, body) {
    return this.actions.fetch(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }

  /** Uploads files: pictures, and text files as captions beside them. */
  async add(files) {
    const pictures = files.filter((file) => PICTURE.test(file.name));
    const captions = files.filter((file) => CAPTION.test(file.name));
    if (!pictures.length && !captions.length) return this.actions.say("There is no picture among these files.");
    const folder = this.actions.folder().trim() || (await this.newFolder(pictures));
    const refused = [];
    for (const [i, file] of [...pictures, ...captions].entries()) {
      this.head.textContent = `Uploading ${i + 1} of ${pictures.length + captions.length} ...`;
      const form = new FormData();
      form.append("image", file, file.name);
      form.append("subfolder", folder);
      form.append("type", "input");
      if (CAPTION.test(file.name)) form.append("overwrite", "true");
      const answer = await this.actions.fetch("/upload/image", { method: "POST", body: form });
      if (!answer.ok) refused.push(file.name);
    }
    if (refused.length) this.actions.say(`Not uploaded: ${refused.join(", ")}`);
    this.actions.setFolder(folder);
    await this.refresh();
  }

  /** The dropped folder's name, or training-pictures: with a number, where the input directory has it already. */
  async newFolder(files) {
    const name = files[0]?.webkitRelativePath?.split("/")[0] || "training-pictures";
    for (let number = 1; ; number++) {
      const folder = number === 1 ? name : `${name}-${number}`;
      const answer = await this.actions.fetch(`/ti_train/pictures?${new URLSearchParams({ folder })}`);
      if (!(await answer.json()).pictures.length) return folder;
    }
  }

  /** Takes what was dropped on the node; a folder is walked through. */
  async drop(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = entries.length ? (await Promise.all(entries.map(filesOf))).flat() : [...transfer.files];
    await this.add(files);
  }
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesOf))).flat();
}

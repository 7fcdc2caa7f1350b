// What of some chosen files is uploaded, and under which names: images, then their masks and captions. Pure functions.

const IMAGES = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic", "heif"];
const TAKEN = new RegExp(`\\.(${[...IMAGES, "txt", "caption"].join("|")})$`, "i");
const TABLE = /^metadata\.(jsonl|csv)$/i; // of captions
const BELONGS = /([-_.](mask|masklabel[1-9]?|condlabel)\.[^.]*|\.txt|\.caption)$/i; // caption and mask files, which belong to the image of the same name
const MEANT_BY_NOBODY = ["removed", "__macosx", "thumbs.db", "desktop.ini"]; // besides hidden files and folders
export const MASKS = "masks"; // folder

/** The files that the browser's dialog offers. Some systems do not count all of these as images. */
export const OFFERED = ["image/*", ...[...IMAGES, "txt", "caption", "jsonl", "csv"].map((ending) => `.${ending}`)].join(",");

/** @typedef {{file: File, path: string[]}} Chosen path: the folders that contain the file, outermost first */
/** @typedef {Chosen & {picture: string, stem: string, rest: string, masks: boolean, belongs: boolean}} Upload picture: the image that it is or belongs to; its own name is stem + rest */
/** @typedef {Chosen & {placed: string}} Placed placed: path of an uploaded image in the input directory */

/** The uploads in their order, the tables of captions, and what is neither. @param {Chosen[]} files */
export function sorted(files) {
  const meant = files.filter(({ file, path }) => ![...path, file.name].some((name) => name.startsWith(".") || MEANT_BY_NOBODY.includes(name.toLowerCase())));
  const isTable = (/** @type {Chosen} */ { file }) => TABLE.test(file.name);
  const isTaken = (/** @type {Chosen} */ { file }) => TAKEN.test(file.name);
  return {
    uploads: meant.filter(isTaken).map(upload).sort((one, other) => Number(one.belongs) - Number(other.belongs) || one.path.length - other.path.length),
    tables: meant.filter(isTable),
    others: meant.filter((chosen) => !isTaken(chosen) && !isTable(chosen)),
  };
}

/** @param {Chosen} chosen @returns {Upload} */
function upload({ file, path }) {
  const masks = path.at(-1)?.toLowerCase() === MASKS;
  const [, stem, rest] = /** @type {string[]} */ (file.name.match(/^(.*?)((?:[-_.](?:mask|masklabel[1-9]?|condlabel))?\.[^.]*)$/i)); // TAKEN has matched it
  const picture = [...(masks ? path.slice(0, -1) : path), stem].join("/");
  return { file, path, picture, stem, rest, masks, belongs: masks || BELONGS.test(file.name) };
}

/** The images in a table's folder and below, by their paths from there: what its entries call them -> where they are. @param {Chosen} table @param {Placed[]} images */
export function imagesOf(table, images) {
  const inside = images.filter(({ path }) => table.path.every((folder, i) => path[i] === folder));
  return Object.fromEntries(inside.map(({ file, path, placed }) => [[...path.slice(table.path.length), file.name].join("/"), placed]));
}

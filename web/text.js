// The page's texts in the front end's language, from locales/LANGUAGE/main.json.

import { ask } from "./server.js";

/** @type {Record<string, string>} */
let texts = {};

/** Fetches the texts; a missing translation stays English. @param {string} language */
export async function loadTexts(language) {
  const answer = await ask("/i18n");
  if (!answer.ok) return;
  const all = await answer.json();
  texts = { ...all.en?.tiTrain, ...all[language]?.tiTrain };
}

/** A text by its key, with {name} filled in from the values; the key itself if there is no text. @param {string} key @param {Record<string, any>} [values] */
export function text(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Writes the texts of an element and of all in it: data-text, data-title and data-label hold their keys. @param {HTMLElement} root */
export function translate(root) {
  for (const part of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-text], [data-title], [data-label]"))) {
    if (part.dataset.text) part.textContent = text(part.dataset.text);
    if (part.dataset.title) part.title = text(part.dataset.title);
    if (part.dataset.label) part.ariaLabel = text(part.dataset.label);
  }
}

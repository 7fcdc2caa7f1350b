// The page's texts in the front end's language, from locales/LANGUAGE/main.json.

import { api } from "../../scripts/api.js";

/** @type {Record<string, string>} */
let texts = {};

/** Fetches the texts; a missing translation stays English. @param {string} language */
export async function loadTexts(language) {
  const answer = await api.fetchApi("/i18n");
  if (!answer.ok) return;
  const all = await answer.json();
  texts = { ...all.en?.tiTrain, ...all[language]?.tiTrain };
}

/** A text by its key, with {name} filled in from the values; the key itself if there is no text. @param {string} key @param {Record<string, any>} [values] */
export function text(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

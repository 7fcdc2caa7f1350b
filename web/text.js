// The page's own words in the language of the front end, from locales/LANGUAGE/main.json.

import { api } from "../../scripts/api.js";

/** @type {Record<string, string>} */
let words = {};

/** Fetches the words; what a language does not have stays English. @param {string} language */
export async function loadWords(language) {
  const answer = await api.fetchApi("/i18n");
  if (!answer.ok) return;
  const all = await answer.json();
  words = { ...all.en?.tiTrain, ...all[language]?.tiTrain };
}

/** A text by its key, with {name} filled in from the values; the key itself where the server has no words. @param {string} key @param {Record<string, any>} [values] */
export function text(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

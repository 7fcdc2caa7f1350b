// Requests to the server. One that is stopped, or cannot be reached, answers as one that has failed.

import { api } from "../../scripts/api.js";

/** @param {string} path @param {RequestInit} [options] */
export async function ask(path, options) {
  try {
    return await api.fetchApi(path, options);
  } catch (error) {
    return new Response(error instanceof Error ? error.message : String(error), { status: 503 });
  }
}

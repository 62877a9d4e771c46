// Sends a text to POST /search and shows what it finds, where a store is attached that takes texts.

import { ask, cell, element, explained } from "./service.js";

let running = null; // AbortController of the search that is under way

/** Offers a search, if there is something to search. */
export function showStores(stores) {
  const searchable = stores.filter(({ model }) => model);
  const options = searchable.map(({ name, entries }) =>
    cell("option", `${name}, ${entries} entries`, { value: name }),
  );
  element("store").replaceChildren(...options);
  element("search").hidden = options.length === 0;
}

function shown({ id, score, text, metadata }) {
  const facts = Object.entries(metadata).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
  const made = document.createElement("li");
  made.append(
    cell("span", score.toFixed(3), { class: "score" }),
    cell("span", text ?? "–", { class: "found" }),
    cell("span", [id, ...facts].join(" · "), { class: "quiet" }),
  );
  return made;
}

async function search() {
  const query = element("query").value.trim();
  if (!query) return;
  running?.abort();
  running = new AbortController();
  try {
    const store = element("store").value;
    const answer = await ask("search", { query, store }, running.signal);
    element("hits").replaceChildren(...answer.hits.map(shown));
    element("search-error").textContent = answer.hits.length ? "" : "The store is empty.";
  } catch (error) {
    if (error.name !== "AbortError") element("search-error").textContent = explained(error);
  }
}

element("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});

// Sends texts to POST /embed and shows how alike their vectors are, and how long it took.

import { ask, cell, element, explained } from "./service.js";
import { showStores } from "./search.js";

const PAUSE_MS = 250; // after typing
const REPEAT_MS = 1000;
const KEPT = 50; // latencies

const latencies = [];
let service = null; // what GET /info says
let running = null; // AbortController of the request that is under way
let pause = 0; // timer between typing and asking

function vectorOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

function cosines(vectors) {
  const lengths = vectors.map((vector) => Math.sqrt(dot(vector, vector)));
  return vectors.map((a, i) => vectors.map((b, j) => dot(a, b) / (lengths[i] * lengths[j] || 1)));
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function showMap(texts, similarities) {
  const numbers = texts.map((text, i) => cell("th", i + 1, { scope: "col", title: text }));
  element("map").tHead.replaceChildren(row(cell("td", ""), ...numbers));
  const rows = similarities.map((values, i) => {
    const cells = values.map((value, j) => {
      const title = `${texts[i]} – ${texts[j]}`;
      const made = cell("td", value.toFixed(2), { title });
      made.style.setProperty("--similarity", Math.max(0, value).toFixed(3));
      return made;
    });
    return row(cell("th", `${i + 1} ${texts[i]}`, { scope: "row", title: texts[i] }), ...cells);
  });
  element("map").tBodies[0].replaceChildren(...rows);
}

function milliseconds(value) {
  return `${value.toFixed(1)} ms`;
}

function showLatency(elapsed, usage) {
  latencies.push(elapsed);
  if (latencies.length > KEPT) latencies.shift();
  const sorted = latencies.toSorted((a, b) => a - b);
  // Screen readers tell every change, unless there are too many.
  element("last").ariaLive = element("repeat").checked ? "off" : "polite";
  element("last").textContent = milliseconds(elapsed);
  element("count").textContent = latencies.length;
  element("median").textContent = milliseconds(sorted[Math.floor(sorted.length / 2)]);
  element("tokens").textContent = usage.tokens;
  element("cached").textContent = `${usage.cached} of ${usage.texts}`;
  const largest = sorted.at(-1);
  const points = latencies.map((each, i) => `${(100 * i) / (KEPT - 1)},${29 - (28 * each) / largest}`);
  element("trace").firstElementChild.setAttribute("points", points.join(" "));
}

function showFacts() {
  const model = service.models.find(({ name }) => name === element("model").value);
  const { dimensions, max_seq_length, state } = model.variants[0];
  const facts = [
    ["State", state],
    ["Length of a vector", dimensions ?? "–"],
    ["Longest input, in tokens", max_seq_length ?? "–"],
    ["Other names", model.aliases.join(", ") || "–"],
    ["Variants", model.variants.length],
    ["Texts in a request", service.limits.max_texts],
    ["Threads", service.num_threads],
    ["Instruction set", service.isa],
    ["Version", service.version],
  ];
  element("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => [cell("dt", name), cell("dd", value)]),
  );
}

async function readService() {
  const known = service;
  service = await ask("info");
  if (!known) {
    const options = service.models.map(({ name }) => cell("option", name, { value: name }));
    element("model").replaceChildren(...options);
    element("model").value = service.default_model;
    showStores(service.stores);
  }
  showFacts();
}

async function compare() {
  clearTimeout(pause);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    if (!service) await readService();
    const texts = element("texts").value.split("\n").filter((line) => line.trim());
    if (texts.length > 0) {
      const model = element("model").value;
      const start = performance.now();
      const answer = await ask("embed", { texts, model, encoding: "base64" }, signal);
      showLatency(performance.now() - start, answer.usage);
      showMap(texts, cosines(answer.embeddings.map(vectorOf)));
      // A model that is loaded when it is first asked for has more to say now.
      if (service.models.some((each) => each.name === model && each.variants[0].state !== "loaded")) {
        await readService();
      }
    } else {
      showMap([], []);
    }
    element("error").textContent = "";
  } catch (error) {
    if (error.name !== "AbortError") element("error").textContent = explained(error);
  }
}

function repeat() {
  if (element("repeat").checked && !document.hidden) compare();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
element("texts").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(compare, PAUSE_MS);
});
element("model").addEventListener("change", () => {
  latencies.length = 0;
  showFacts();
  compare();
});
setInterval(repeat, REPEAT_MS);
compare();

// The page: what is seen and clicked. Networks live in the worker.
import { digitOf, drawDefaultImage, pixelsOf } from "./images.mjs";

const ROUNDS = 20;
const element = (id) => document.getElementById(id);
const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
const waiting = new Map();
let next = 0;

function ask(type, request, onProgress = () => {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++next, { resolve, reject, onProgress });
    worker.postMessage({ id: next, type, ...request });
  });
}
worker.addEventListener("message", ({ data: { id, progress, done, error } }) => {
  const { resolve, reject, onProgress } = waiting.get(id);
  if (progress !== undefined) return onProgress(progress);
  waiting.delete(id);
  if (error !== undefined) reject(new Error(error));
  else resolve(done);
});
worker.addEventListener("error", (event) => showError(event.message || "The worker did not start: serve this folder over HTTP."));

function showError(message) {
  element("error").textContent = message;
  element("error").hidden = false;
}
const clearError = () => (element("error").hidden = true);
/** Runs an event's work; what goes wrong is said on the page. */
const guarded = (work) => async (...words) => {
  clearError();
  try {
    await work(...words);
  } catch (error) {
    showError(error.message);
  }
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1)} MB`;
const image = element("image").getContext("2d", { willReadFrequently: true });
let manifest;
const facts = new Map(); // key -> what the worker said when it loaded the network

async function start() {
  drawDefaultImage(image);
  const response = await fetch("networks/networks.json");
  if (!response.ok) throw new Error('The networks are not here: build the page with "make browser".');
  manifest = await response.json();
  const list = [...manifest.speed, ...manifest.recognition];
  const { isa, loaded } = await ask("load", { list }, (part) => {
    element("status").textContent = `Loading the networks: ${Math.round(100 * part)} %`;
  });
  for (const fact of loaded) facts.set(fact.key, fact);
  element("status").textContent =
    `Ready. ${isa === "wasm_relaxed" ? "WebAssembly with relaxed SIMD" : "WebAssembly with SIMD"}, one thread.`;
  fillPatternChoices();
  showBars({});
  showDigits({});
  for (const id of ["run", "example", "pattern-network", "pattern-layer"]) element(id).disabled = false;
  await showPattern();
}

// ---- speed

async function measure() {
  element("run").disabled = true;
  try {
    const keys = manifest.speed.map(({ key }) => key);
    const input = pixelsOf(image);
    const times = await ask("time", { keys, input, rounds: ROUNDS }, (part) => (element("progress").value = part));
    showBars(times);
    element("status").textContent = `Measured: the median of ${ROUNDS} images each, in turns.`;
  } finally {
    element("run").disabled = false;
  }
}

function showBars(times) {
  const slowest = Math.max(...Object.values(times).map(({ high }) => high), 0);
  const place = (time) => `${(75 * time) / slowest}%`;
  const dense = times[manifest.speed[0].key];
  element("bars").replaceChildren(...manifest.speed.map(({ key, title }, i) => {
    const { bytes, products } = facts.get(key);
    const bar = make("div", i ? "bar" : "bar dense");
    const name = make("div", "name", title);
    name.append(make("small", "", `${Math.round(products / 1e6)} million products`), make("small", "", megabytes(bytes)));
    const track = make("div", "track");
    if (times[key]) {
      const { median, low, high } = times[key];
      const fill = make("div", "fill");
      fill.style.width = place(median);
      const spread = make("div", "spread");
      Object.assign(spread.style, { left: place(low), width: `calc(${place(high)} - ${place(low)})` });
      const gain = i ? `, ${(dense.median / median).toFixed(1)} × faster` : "";
      const value = make("div", "value", `${median.toFixed(1)} ms${gain}`);
      value.style.left = place(Math.max(median, high));
      track.append(fill, spread, value);
    } else {
      track.append(make("div", "value", "not measured yet"));
    }
    bar.dataset.key = key;
    bar.append(name, track);
    return bar;
  }));
}

async function pickImage() {
  const [file] = element("file").files;
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read. Pick a PNG, JPEG or WebP file.`);
  }
  const size = Math.min(bitmap.width, bitmap.height); // its middle, as a square
  const { width, height } = image.canvas;
  image.fillStyle = "#fff"; // behind what is transparent
  image.fillRect(0, 0, width, height);
  image.drawImage(bitmap, (bitmap.width - size) / 2, (bitmap.height - size) / 2, size, size, 0, 0, width, height);
  bitmap.close();
}

// ---- pattern

function fillPatternChoices() {
  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  const networks = [...manifest.speed, ...manifest.recognition];
  element("pattern-network").replaceChildren(...networks.map(({ key, title }) =>
    option(key, `${manifest.speed.some((entry) => entry.key === key) ? "MobileNetV1" : "Digits"}: ${title}`)));
  element("pattern-network").value = manifest.speed[1].key;
  fillLayers();
}

function fillLayers() {
  const { layers } = facts.get(element("pattern-network").value);
  const select = element("pattern-layer");
  select.replaceChildren(...layers.map(({ weight, outputs, inputs }, i) =>
    Object.assign(document.createElement("option"), { value: weight, textContent: `${i + 1}: ${inputs} to ${outputs} channels` })));
  select.selectedIndex = Math.min(2, layers.length - 1);
}

async function showPattern() {
  const { outputs, inputs, kept, density } =
    await ask("pattern", { key: element("pattern-network").value, weight: element("pattern-layer").value });
  const canvas = element("pattern");
  Object.assign(canvas, { width: inputs, height: outputs });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(inputs, outputs);
  const [red, green, blue] = getComputedStyle(document.documentElement).getPropertyValue("--sparse").match(/\w\w/g)
    .map((digits) => parseInt(digits, 16));
  kept.forEach((bit, i) => picture.data.set([red, green, blue, bit ? 255 : 0], 4 * i));
  context.putImageData(picture, 0, 0);
  element("pattern-note").textContent =
    `${outputs} output channels down, ${inputs} inputs across; ${(100 * density).toFixed(1)} % of the weights are kept.`;
}

// ---- digits

const drawing = element("drawing").getContext("2d", { willReadFrequently: true });
let last = null;

function clearDrawing() {
  const { width, height } = drawing.canvas;
  drawing.fillStyle = "#fff";
  drawing.fillRect(0, 0, width, height);
  if (manifest) showDigits({});
}

function stroke(event) {
  const { left, top, width } = drawing.canvas.getBoundingClientRect();
  const scale = drawing.canvas.width / width;
  const at = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  Object.assign(drawing, { strokeStyle: "#000", lineWidth: 22, lineCap: "round", lineJoin: "round" });
  drawing.beginPath();
  drawing.moveTo(...(last ?? at));
  drawing.lineTo(...at);
  drawing.stroke();
  last = at;
}

async function recognise(input) {
  if (!manifest) return;
  showDigits(input ? await ask("run", { keys: manifest.recognition.map(({ key }) => key), input }) : {});
}

function drawExample() {
  const pixels = manifest.digit;
  const side = Math.sqrt(pixels.length);
  const cell = drawing.canvas.width / side;
  pixels.forEach((value, i) => {
    const shade = Math.round(255 * (1 - value));
    drawing.fillStyle = `rgb(${shade}, ${shade}, ${shade})`;
    drawing.fillRect((i % side) * cell, Math.floor(i / side) * cell, cell, cell);
  });
  return recognise(Float32Array.from(pixels));
}

function showDigits(results) {
  element("digits").replaceChildren(...manifest.recognition.map(({ key, title, accuracy }, i) => {
    const box = make("div", i ? "digit" : "digit dense");
    box.dataset.key = key;
    const logits = [...(results[key] ?? new Float32Array(10))];
    const largest = Math.max(...logits);
    const powers = logits.map((value) => Math.exp(value - largest));
    const total = powers.reduce((sum, value) => sum + value, 0);
    const best = results[key] ? logits.indexOf(largest) : -1;
    const chances = make("div", "chances");
    powers.forEach((power, digit) => {
      const bar = make("span", digit === best ? "best" : "");
      bar.style.height = results[key] ? `${(100 * power) / total}%` : "2px";
      chances.append(bar);
    });
    const labels = make("div", "labels");
    for (let digit = 0; digit < 10; ++digit) labels.append(make("span", "", String(digit)));
    box.append(make("div", "", title), make("div", "answer", best < 0 ? "–" : String(best)), chances, labels,
      make("p", "note", `${(100 * accuracy).toFixed(1)} % of the test digits right, ${megabytes(facts.get(key).bytes)}`));
    return box;
  }));
}

element("run").addEventListener("click", guarded(measure));
element("file").addEventListener("change", guarded(pickImage));
element("pattern-network").addEventListener("change", guarded(async () => {
  fillLayers();
  await showPattern();
}));
element("pattern-layer").addEventListener("change", guarded(showPattern));
element("clear").addEventListener("click", clearDrawing);
element("example").addEventListener("click", guarded(drawExample));
drawing.canvas.addEventListener("pointerdown", (event) => {
  drawing.canvas.setPointerCapture(event.pointerId);
  stroke(event);
});
drawing.canvas.addEventListener("pointermove", (event) => event.buttons && stroke(event));
drawing.canvas.addEventListener("pointerup", guarded(async () => {
  last = null;
  await recognise(digitOf(drawing));
}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", guarded(showPattern));
clearDrawing();
await guarded(start)();
document.documentElement.dataset.started = "true"; // for tests

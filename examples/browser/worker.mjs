// Everything that computes, away from the page's thread. Messages in: { id, type, ... }; out: { id, done | error } and,
// in between, { id, progress }.
import { load, readSafetensors, hasSimd } from "./sparsecore/sparsecore.mjs";
import { layersOf, patternOf } from "./pattern.mjs";

const networks = new Map(); // key -> { network, file }
let core;

async function fetchFile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answered ${response.status}: build the page with "make browser"`);
  return new Uint8Array(await response.arrayBuffer());
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: sorted[sorted.length >> 1], low: sorted[sorted.length >> 2], high: sorted[(3 * sorted.length) >> 2] };
};

const actions = {
  /** Fetches and checks networks; says how large they are, and the layers whose pattern can be shown. */
  async load({ list }, progress) {
    if (!hasSimd()) throw new Error("This browser has no WebAssembly SIMD, which every browser since 2023 has.");
    core ??= await load();
    const loaded = [];
    for (const { key, file } of list) {
      const bytes = await fetchFile(new URL(`networks/${file}`, import.meta.url));
      const network = core.network(bytes);
      networks.set(key, { network, file: readSafetensors(bytes) });
      const steps = network.steps();
      const sum = (what) => steps.reduce((total, step) => total + step[what], 0);
      loaded.push({ key, bytes: bytes.length, products: sum("products"), denseProducts: sum("denseProducts"),
        layers: layersOf(networks.get(key).file) });
      progress(loaded.length / list.length);
    }
    return { isa: core.isa, loaded };
  },

  /** Runs every network once in each of the rounds, so that all see the same moments; times are in milliseconds. */
  async time({ keys, input, rounds }, progress) {
    const samples = new Map(keys.map((key) => [key, []]));
    const warm = 4; // the engine's second compiler takes over
    for (let round = 0; round < warm + rounds; ++round) {
      for (const key of keys) {
        const start = performance.now();
        networks.get(key).network.run(input);
        if (round >= warm) samples.get(key).push(performance.now() - start);
      }
      progress((round + 1) / (warm + rounds));
    }
    return Object.fromEntries([...samples].map(([key, times]) => [key, median(times)]));
  },

  async run({ keys, input }) {
    return Object.fromEntries(keys.map((key) => [key, networks.get(key).network.run(input)]));
  },

  async pattern({ key, weight }) {
    return patternOf(networks.get(key).file, weight);
  },
};

addEventListener("message", async ({ data: { id, type, ...rest } }) => {
  try {
    postMessage({ id, done: await actions[type](rest, (progress) => postMessage({ id, progress })) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});

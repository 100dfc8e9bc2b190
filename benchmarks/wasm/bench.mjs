// Sparse layers in WebAssembly beside the module's own dense layer, in node 20 or later:
//
//   cmake --preset wasm && cmake --build --preset wasm                    # and the same with wasm-relaxed
//   node --experimental-wasm-relaxed-simd benchmarks/wasm/bench.mjs [--seconds 0.5] [--dry]
//
// Every candidate takes its turn in every round; a layer's outputs are compared with the dense layer's on the same
// pruned weight first. Copying activations in and out of the module counts for all alike. One thread: there are no
// others. Results go to benchmarks/results/wasm_<processor>.json.
import { existsSync, readFileSync } from "node:fs";
import { argv } from "node:process";
import { parseArgs } from "node:util";

import * as reference from "../../csrc/wasm/tests/reference.mjs";
import { quartiles } from "./quartiles.mjs";
import { writeResults } from "./results.mjs";

const ROOT = new URL("../../", import.meta.url);
const BUILDS = [["wasm", "build/wasm/csrc/wasm/"], ["wasm_relaxed", "build/wasm-relaxed/csrc/wasm/"]];
const SHAPES = JSON.parse(readFileSync(new URL("benchmarks/shapes/linear.json", ROOT)));
const PATTERNS = [[2, 4], [1, 4], [1, 8]];

const { values: options } = parseArgs({
  args: argv.slice(2),
  options: { seconds: { type: "string", default: "0.5" }, dry: { type: "boolean", default: false } },
});

function random(count, seed) {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

// Which `kept` of every `group` inputs row (or group of rows) `unit` keeps: a rotation that differs from group to group.
const keeps = (kept, group) => (unit, i) => (i + unit * 5 + Math.floor(i / group) * 3) % group < kept;

function candidates(core, n, k, weight) {
  const size = { inFeatures: k, outFeatures: n, bias: new Float32Array(n) };
  const made = [];
  for (const [kept, group] of PATTERNS) {
    const keep = keeps(kept, group);
    for (const vector of [64, 16]) {
      const layer = core.sharedLists({ ...size, ...reference.packSharedLists(weight, n, k, keep, vector) });
      const shared = (o, i) => keep(Math.floor(o / vector), i);
      made.push({ name: `shared lists of ${vector}`, pattern: `${kept}:${group}`, layer, keep: shared, share: kept / group });
    }
    const layer = core.rowLists({ ...size, ...reference.packRowLists(weight, n, k, keep, 128), block: 128 });
    made.push({ name: "row lists", pattern: `${kept}:${group}`, layer, keep, share: kept / group });
  }
  return made;
}

function check(core, candidate, weight, n, k, x, what) {
  const pruned = core.dense({ inFeatures: k, outFeatures: n, weight: reference.prune(weight, n, k, candidate.keep) });
  const expected = pruned.forward(x);
  const actual = candidate.layer.forward(x);
  const error = actual.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i])), 0);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (!(error <= 1e-5 * largest)) throw new Error(`${what}: wrong result, error ${error} of ${largest}`);
  pruned.free();
}

// Microseconds per call: median, first and third quartile.
function interleaved(calls, seconds) {
  const samples = calls.map(() => []);
  for (const call of calls) for (let i = 0; i < 20; ++i) call(); // the engine's second compiler takes over
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < 5 || performance.now() < end; ++round)
    calls.forEach((call, i) => {
      const start = performance.now();
      call();
      samples[i].push(1000 * (performance.now() - start));
    });
  return samples.map(quartiles);
}

function geometric(values) {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

const rows = [];
for (const [isa, folder] of BUILDS) {
  const place = new URL(folder, ROOT);
  if (!existsSync(new URL("sparsecore.mjs", place))) {
    console.log(`${isa}: not built, see the head of this file`);
    continue;
  }
  const { load, hasRelaxedSimd } = await import(new URL("sparsecore.mjs", place));
  if (isa === "wasm_relaxed" && !hasRelaxedSimd()) {
    console.log("wasm_relaxed: run node with --experimental-wasm-relaxed-simd");
    continue;
  }
  const core = await load({ folder: place, relaxed: isa === "wasm_relaxed" });
  for (const { name: shape, out_features: n, in_features: k } of SHAPES.layers.filter((layer) =>
    SHAPES.wasm.layers.includes(layer.name))) {
    const weight = random(n * k, 1);
    const dense = core.dense({ inFeatures: k, outFeatures: n, weight, bias: new Float32Array(n) });
    const sparse = candidates(core, n, k, weight);
    for (const tokens of SHAPES.wasm.tokens) {
      const x = random(tokens * k, 2);
      const out = new Float32Array(tokens * n);
      for (const candidate of sparse)
        check(core, candidate, weight, n, k, x, `${candidate.name} ${candidate.pattern} ${shape}`);
      const layers = [dense, ...sparse.map((candidate) => candidate.layer)];
      const [peer, ...times] = interleaved(layers.map((layer) => () => layer.forward(x, out)), Number(options.seconds));
      const gflops = (share, time) => Math.round((2e-2 * tokens * n * k * share) / time) / 10;
      sparse.forEach(({ name, pattern, share }, i) =>
        rows.push({
          isa, kernel: name, pattern, shape, tokens, us: times[i], dense_us: peer,
          ratio: Math.round((1000 * peer[0]) / times[i][0]) / 1000,
          gflops: gflops(share, times[i][0]), dense_gflops: gflops(1, peer[0]),
        }));
    }
    for (const layer of [dense, ...sparse.map((candidate) => candidate.layer)]) layer.free();
  }
}

for (const key of new Set(rows.map(({ isa, kernel, pattern }) => `${isa}\t${kernel}\t${pattern}`))) {
  const [isa, kernel, pattern] = key.split("\t");
  const cells = rows.filter((row) => row.isa === isa && row.kernel === kernel && row.pattern === pattern);
  const ratios = cells.map((cell) => cell.ratio);
  console.log(
    `${isa.padEnd(13)} ${kernel.padEnd(18)} ${pattern}  ${geometric(ratios).toFixed(2)}x dense ` +
    `(worst ${Math.min(...ratios).toFixed(2)}x)  ${geometric(cells.map((cell) => cell.gflops)).toFixed(1)} GFLOP/s on ` +
    `kept weights, dense ${geometric(cells.map((cell) => cell.dense_gflops)).toFixed(1)}`,
  );
}
if (rows.length && !options.dry) writeResults("wasm", "benchmarks/wasm/bench.mjs", rows);

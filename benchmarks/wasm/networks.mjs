// Whole networks in WebAssembly: MobileNetV1 at 224 x 224, batch 1, one thread, beside onnxruntime-web and tfjs, in node
// 20 or later:
//
//   make wasm-package                                          # both builds
//   python benchmarks/wasm/prepare.py                          # the networks, into build/wasm_networks
//   (cd benchmarks/wasm && npm ci)                             # the peers, from the lock file
//   node --experimental-wasm-relaxed-simd benchmarks/wasm/networks.mjs [--seconds 10] [--dry]
//
// Every candidate takes its turn in every round, outputs are compared with torch's first. The peers run the dense
// network; they gain nothing from zeros. Results go to benchmarks/results/wasm_networks_<processor>.json.
import { readFileSync } from "node:fs";
import { argv } from "node:process";
import { parseArgs } from "node:util";

import { load, hasRelaxedSimd, readSafetensors } from "../../build/npm/sparsecore/sparsecore.mjs";
import { onnxruntime, tfjs } from "./peers.mjs";
import { quartiles, writeResults } from "./results.mjs";

const FOLDER = new URL("../../build/wasm_networks/", import.meta.url);
const VARIANTS = ["dense", "unstructured_90", "group4x1_90"];
const { values: options } = parseArgs({
  args: argv.slice(2),
  options: { seconds: { type: "string", default: "10" }, dry: { type: "boolean", default: false } },
});

const bytes = (name) => readFileSync(new URL(name, FOLDER));
const { tensors } = readSafetensors(bytes("plain.safetensors"));
const input = tensors.get("input").data; // [224, 224, 3]
const planes = new Float32Array(input.length);
for (let p = 0; p < input.length / 3; ++p) for (let c = 0; c < 3; ++c) planes[(c * input.length) / 3 + p] = input[3 * p + c];

const candidates = [
  { engine: "onnxruntime-web", variant: "dense", call: await onnxruntime(new URL("mobilenet_v1.onnx", FOLDER), input) },
  { engine: "tfjs-backend-wasm", variant: "dense", call: await tfjs(tensors, input) },
];
for (const relaxed of hasRelaxedSimd() ? [false, true] : [false]) {
  const core = await load({ relaxed });
  for (const variant of VARIANTS) {
    const network = core.network(bytes(`${variant}.safetensors`));
    candidates.push({ engine: core.isa, variant, ours: true, call: async () => network.run(planes) });
  }
}

for (const { engine, variant, call } of candidates) {
  const [actual, expected] = [await call(), tensors.get(`output.${variant}`).data];
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const error = expected.reduce((worst, value, i) => Math.max(worst, Math.abs(value - actual[i])), 0) / largest;
  if (!(error < 1e-3)) throw new Error(`${engine} ${variant}: output differs from torch's by ${error} of its range`);
}

for (const { call } of candidates) for (let i = 0; i < 5; ++i) await call(); // the engine's second compiler takes over
const samples = candidates.map(() => []);
const end = performance.now() + 1000 * Number(options.seconds);
for (let round = 0; round < 5 || performance.now() < end; ++round)
  for (const [i, { call }] of candidates.entries()) {
    const start = performance.now();
    await call();
    samples[i].push(performance.now() - start);
  }

const times = samples.map(quartiles);
const peer = Math.min(...times.filter((_, i) => !candidates[i].ours).map(([median]) => median));
const rows = candidates.map(({ engine, variant, ours }, i) => ({
  network: "mobilenet_v1", engine, variant, ms: times[i],
  ...(ours ? { ratio: Math.round((100 * peer) / times[i][0]) / 100 } : {}),
}));
for (const { engine, variant, ms, ratio } of rows)
  console.log(
    `${engine.padEnd(18)} ${variant.padEnd(16)} ${ms[0].toFixed(2).padStart(7)} ms (${ms[1].toFixed(2)} to ${ms[2].toFixed(2)})` +
    (ratio ? `  ${ratio.toFixed(2)}x the best dense peer` : ""),
  );
if (!options.dry) writeResults("wasm_networks", "benchmarks/wasm/networks.mjs", rows);

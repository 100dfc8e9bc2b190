// Whole networks in WebAssembly: MobileNetV1 at 224 x 224, batch 1, one thread, beside onnxruntime-web and tfjs, in node
// 20 or later, or in headless Chromium where a driver for it (chromedriver) is installed:
//
//   make wasm-package                                          # both builds
//   python benchmarks/wasm/prepare.py                          # the networks, into build/wasm_networks
//   (cd benchmarks/wasm && npm ci)                             # the peers, from the lock file
//   node --experimental-wasm-relaxed-simd benchmarks/wasm/networks.mjs [--chromium] [--seconds 10] [--dry]
//
// Every candidate takes its turn in every round, outputs are compared with torch's first. The peers run the dense
// network; they gain nothing from zeros. Results go to benchmarks/results/wasm_networks_<processor>.json, those of the
// browser to wasm_networks_chromium_<processor>.json.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { argv } from "node:process";
import { parseArgs } from "node:util";

import { measureInChromium } from "./chromium.mjs";
import { measure, show } from "./measure.mjs";
import { chooseBackend } from "./peers.mjs";
import { writeResults } from "./results.mjs";

const { values: options } = parseArgs({
  args: argv.slice(2),
  options: {
    seconds: { type: "string", default: "10" },
    chromium: { type: "boolean", default: false },
    dry: { type: "boolean", default: false },
  },
});

async function measureInNode(seconds) {
  const require = createRequire(import.meta.url);
  const tf = require("@tensorflow/tfjs-core");
  const { setWasmPaths } = require("@tensorflow/tfjs-backend-wasm");
  const simd = require.resolve("@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm");
  await chooseBackend(tf, setWasmPaths, `${dirname(simd)}/`);
  const sparsecore = await import("../../build/npm/sparsecore/sparsecore.mjs");
  const ort = await import("onnxruntime-web");
  const folder = new URL("../../build/wasm_networks/", import.meta.url);
  const read = async (name) => new Uint8Array(await readFile(new URL(name, folder)));
  return measure(read, { sparsecore, ort, tf }, seconds);
}

const seconds = Number(options.seconds);
if (options.chromium) {
  const { rows, version } = await measureInChromium(seconds);
  show(rows);
  if (!options.dry) writeResults("wasm_networks_chromium", "benchmarks/wasm/networks.mjs --chromium", rows, { browser: version });
} else {
  const rows = await measureInNode(seconds);
  show(rows);
  if (!options.dry) writeResults("wasm_networks", "benchmarks/wasm/networks.mjs", rows);
}

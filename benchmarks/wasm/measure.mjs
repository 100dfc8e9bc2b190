// What node and a browser share of the benchmark of whole networks: everything that is timed, checked and in turns.
import { onnxruntime, tfjs } from "./peers.mjs";
import { quartiles } from "./quartiles.mjs";

const VARIANTS = ["dense", "unstructured_90", "group4x1_90"];

/**
 * The rows of a result file.
 *
 * @param {(name: string) => Promise<Uint8Array>} read a file that prepare.py wrote
 * @param {object} modules sparsecore.mjs, onnxruntime-web, and tfjs with its backend chosen
 * @param {number} seconds of timing
 */
export async function measure(read, { sparsecore, ort, tf }, seconds) {
  const { tensors } = sparsecore.readSafetensors(await read("plain.safetensors"));
  const pixels = tensors.get("input").data; // [size, size, 3]
  const area = pixels.length / 3;
  const planes = new Float32Array(pixels.length);
  for (let p = 0; p < area; ++p) for (let c = 0; c < 3; ++c) planes[c * area + p] = pixels[3 * p + c];

  const session = await onnxruntime(ort, await read("mobilenet_v1.onnx"), Math.sqrt(area));
  const candidates = [
    { engine: "onnxruntime-web", variant: "dense", call: () => session(planes) },
    { engine: "tfjs-backend-wasm", variant: "dense", call: tfjs(tf, tensors, pixels, Math.sqrt(area)) },
  ];
  for (const relaxed of sparsecore.hasRelaxedSimd() ? [false, true] : [false]) {
    const core = await sparsecore.load({ relaxed });
    for (const variant of VARIANTS) {
      const network = core.network(await read(`${variant}.safetensors`));
      candidates.push({ engine: core.isa, variant, ours: true, call: () => network.run(planes) });
    }
  }

  for (const { engine, variant, call } of candidates) {
    const [actual, expected] = [await call(), tensors.get(`output.${variant}`).data];
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const error = expected.reduce((worst, value, i) => Math.max(worst, Math.abs(value - actual[i])), 0) / largest;
    if (!(error < 1e-3)) throw new Error(`${engine} ${variant}: output differs from torch's by ${error} of its range`);
  }

  const times = (await inTurns(candidates.map(({ call }) => call), seconds)).map(quartiles);
  const peer = Math.min(...times.filter((_, i) => !candidates[i].ours).map(([median]) => median));
  return candidates.map(({ engine, variant, ours }, i) => ({
    network: "mobilenet_v1", engine, variant, ms: times[i],
    ...(ours ? { ratio: Math.round((100 * peer) / times[i][0]) / 100 } : {}),
  }));
}

/** Milliseconds of every call, one call of each a round. */
async function inTurns(calls, seconds) {
  for (const call of calls) for (let i = 0; i < 10; ++i) await call(); // the engine's second compiler takes over
  const samples = calls.map(() => []);
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < 5 || performance.now() < end; ++round)
    for (const [i, call] of calls.entries()) {
      const start = performance.now();
      await call();
      samples[i].push(performance.now() - start);
    }
  return samples;
}

/** Prints rows as lines. */
export function show(rows) {
  for (const { engine, variant, ms, ratio } of rows)
    console.log(
      `${engine.padEnd(18)} ${variant.padEnd(16)} ${ms[0].toFixed(2).padStart(7)} ms (${ms[1].toFixed(2)} to ${ms[2].toFixed(2)})` +
      (ratio ? `  ${ratio.toFixed(2)}x the best dense peer` : ""),
    );
}

// Compiled, never run: the package as a TypeScript project sees it.
import { load, hasRelaxedSimd, readSafetensors, SparsecoreError, type Layer, Network, type Sparsecore } from "sparsecore";

const core: Sparsecore = await load({ relaxed: hasRelaxedSimd(), folder: new URL("https://example.org/wasm/") });
const { tensors } = readSafetensors(new ArrayBuffer(8));
const values = tensors.get("values")?.data;
if (!(values instanceof Float32Array)) throw new SparsecoreError("values must be float32");

const layer: Layer = core.rowLists({
  inFeatures: 8,
  outFeatures: 4,
  values,
  offsets: new Uint8Array(4),
  blockPtr: new Int32Array(5),
  activation: "hard_swish",
});
export const y: Float32Array = layer.forward(new Float32Array(8));
layer.free();
core.dense({ inFeatures: 8, outFeatures: 4, weight: new Float32Array(32) }).free();

const network: Network = await core.fetchNetwork(new URL("https://example.org/mobilenet.safetensors"));
const [height, width, channels] = network.inputs[0].shape;
const logits = network.run(new Float32Array(height * width * channels));
export const best: number = logits instanceof Float32Array ? logits.indexOf(Math.max(...logits)) : -1;
export const slowest = network.profile(new Float32Array(8)).sort((a, b) => b.seconds - a.seconds)[0].op;
network.free();
// @ts-expect-error networks come from network() or fetchNetwork()
new Network();

// @ts-expect-error an activation that does not exist
core.dense({ inFeatures: 8, outFeatures: 4, weight: new Float32Array(32), activation: "tanh" });
// @ts-expect-error a format without its index
core.sharedLists({ inFeatures: 8, outFeatures: 4, vector: 4, values });
// @ts-expect-error the input is not an array of numbers
layer.forward([1, 2, 3]);
// @ts-expect-error modules come from load()
new Sparsecore();

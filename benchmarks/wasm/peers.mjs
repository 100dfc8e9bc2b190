// MobileNetV1 in the WebAssembly engines that people use, dense, one thread: npm ci in this folder first.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";

// Output channels are in the weights; this is the stride of each depthwise convolution.
const STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1];

/** onnxruntime-web: () -> Promise<Float32Array>. */
export async function onnxruntime(path, input) {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(await readFile(path)), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const [c, size] = [3, Math.sqrt(input.length / 3)];
  const planes = new Float32Array(input.length);
  for (let p = 0; p < size * size; ++p) for (let i = 0; i < c; ++i) planes[i * size * size + p] = input[p * c + i];
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", planes, [1, c, size, size]) };
  return async () => (await session.run(feeds))[session.outputNames[0]].data;
}

/** tfjs: fused convolutions with bias and ReLU on its WebAssembly backend, NHWC, which is what it prefers. */
export async function tfjs(tensors, input) {
  const require = createRequire(import.meta.url);
  const tf = require("@tensorflow/tfjs-core");
  const { setWasmPaths } = require("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm"))}/`);
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs: no wasm backend");
  await tf.ready();
  const layer = (i, order) => {
    const { data, shape } = tensors.get(`${i}.weight`);
    return {
      filter: tf.tidy(() => tf.transpose(tf.tensor(data, shape), order)),
      bias: tf.tensor1d(tensors.get(`${i}.bias`).data),
    };
  };
  const shared = { dimRoundingMode: "floor", activation: "relu" };
  const steps = [{ op: tf.fused.conv2d, ...layer(0, [2, 3, 1, 0]), strides: 2, pad: 1, ...shared }];
  STRIDES.forEach((strides, i) => {
    steps.push({ op: tf.fused.depthwiseConv2d, ...layer(1 + 2 * i, [2, 3, 0, 1]), strides, pad: 1, ...shared });
    steps.push({ op: tf.fused.conv2d, ...layer(2 + 2 * i, [2, 3, 1, 0]), strides: 1, pad: 0, ...shared });
  });
  const classifier = layer(1 + 2 * STRIDES.length, [1, 0]);
  const size = Math.sqrt(input.length / 3);
  const image = tf.tensor4d(input, [1, size, size, 3]);
  return async () => {
    const logits = tf.tidy(() => {
      let x = image;
      for (const { op, ...rest } of steps) x = op({ x, ...rest });
      return tf.fused.matMul({ a: tf.mean(x, [1, 2]), b: classifier.filter, bias: classifier.bias });
    });
    const data = logits.dataSync();
    logits.dispose();
    return data;
  };
}

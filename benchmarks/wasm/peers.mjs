// MobileNetV1 in the WebAssembly engines that people use, dense, one thread. Whoever calls has loaded their modules.

// Output channels are in the weights; this is the stride of each depthwise convolution.
const STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1];

/** onnxruntime-web from the bytes of an ONNX file: (planes) => Promise<Float32Array>. */
export async function onnxruntime(ort, bytes, size) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  return async (planes) => {
    const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", planes, [1, 3, size, size]) };
    return (await session.run(feeds))[session.outputNames[0]].data;
  };
}

/** tfjs on the WebAssembly backend that is set: fused convolutions with bias and ReLU, NHWC, which is what it prefers. */
export function tfjs(tf, tensors, pixels, size) {
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
  const image = tf.tensor4d(pixels, [1, size, size, 3]);
  return () => {
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

/** Chooses tfjs's backend: WebAssembly with SIMD, one thread, from the folder of its files. */
export async function chooseBackend(tf, setWasmPaths, folder) {
  setWasmPaths(folder);
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs: no wasm backend");
  await tf.ready();
}

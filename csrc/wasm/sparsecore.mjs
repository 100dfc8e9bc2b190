// Sparse linear layers in browsers and in node:
//
//   import { load, readSafetensors } from "./sparsecore.mjs";
//   const core = await load();
//   const layer = core.sharedLists({ inFeatures, outFeatures, vector: 16, values, columns, groupPtr, bias });
//   const y = layer.forward(x);          // x and y are Float32Array, [tokens, features]
//   layer.free();
//
//   const network = await core.fetchNetwork("mobilenet.safetensors");   // or core.network(bytes)
//   const logits = network.run(pixels);  // Float32Array, as network.inputs and network.outputs say
//
// Two builds lie beside this file. load() takes sparsecore_relaxed.wasm where the engine has relaxed SIMD (fused
// multiply-add), sparsecore.wasm otherwise. Weights are copied into the module once, checked, and never trusted again.

const DTYPES = { float32: 0, bfloat16: 1, float16: 2, int8: 3 };
const ARRAYS = { float32: Float32Array, bfloat16: Uint16Array, float16: Uint16Array, int8: Int8Array };
const ACTIVATIONS = {
  none: 0, relu: 1, gelu: 2, gelu_tanh: 3, silu: 4, relu6: 5, hard_swish: 6, hard_sigmoid: 7, sigmoid: 8,
};
const COMPUTES = { float32: 0, float16: 1, int8: 2 };

export class SparsecoreError extends Error {
  constructor(message) {
    super(message);
    this.name = "SparsecoreError";
  }
}

function requireThat(condition, message) {
  if (!condition) throw new SparsecoreError(message);
}

// One function () -> v128 whose body is `code`, as a module: validates where the engine knows the instructions.
function validates(code) {
  const body = [0, ...code, 0x0b];
  return WebAssembly.validate(
    Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0, 10, body.length + 2, 1,
      body.length, ...body),
  );
}
const SPLAT_OF_ZERO = [0x41, 0, 0xfd, 0x0f]; // i32.const 0, i8x16.splat
const RELAXED_MADD = [0xfd, 0x85, 2]; // f32x4.relaxed_madd

export const hasSimd = () => validates(SPLAT_OF_ZERO);
export const hasRelaxedSimd = () =>
  validates([...SPLAT_OF_ZERO, ...SPLAT_OF_ZERO, ...SPLAT_OF_ZERO, ...RELAXED_MADD]);

async function readBytes(url) {
  if (url.protocol === "file:") {
    const { readFile } = await import("node:fs/promises");
    return readFile(url);
  }
  const response = await fetch(url);
  requireThat(response.ok, `${url} answered ${response.status}`);
  return response.arrayBuffer();
}

// The few system calls that the C library may make: an empty environment, and ways to stop.
function systemCalls(memory) {
  const success = 0;
  const notSupported = 58;
  const calls = {
    environ_sizes_get(count, bytes) {
      const view = new DataView(memory().buffer);
      view.setUint32(count, 0, true);
      view.setUint32(bytes, 0, true);
      return success;
    },
    environ_get: () => success,
    clock_time_get(id, precision, time) {
      new DataView(memory().buffer).setBigUint64(time, BigInt(Math.round(performance.now() * 1e6)), true);
      return success;
    },
    proc_exit(code) {
      throw new SparsecoreError(`the module stopped with code ${code}`);
    },
  };
  return new Proxy(calls, { get: (target, name) => target[name] ?? (() => notSupported) });
}

/**
 * Loads the module.
 *
 * @param {object} [options]
 * @param {boolean} [options.relaxed] force (true) or refuse (false) the relaxed SIMD build; detected where left out
 * @param {string | URL} [options.folder] where the .wasm files are; this file's folder where left out
 * @returns {Promise<Sparsecore>}
 */
export async function load({ relaxed = hasRelaxedSimd(), folder = new URL("./", import.meta.url) } = {}) {
  requireThat(hasSimd(), "load: this engine has no WebAssembly SIMD");
  requireThat(!relaxed || hasRelaxedSimd(), "load: this engine has no relaxed SIMD; use relaxed: false");
  const module = await WebAssembly.compile(
    await readBytes(new URL(relaxed ? "sparsecore_relaxed.wasm" : "sparsecore.wasm", folder)),
  );
  let exports;
  const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: systemCalls(() => exports.memory) });
  exports = instance.exports;
  exports._initialize();
  return new Sparsecore(exports);
}

export class Sparsecore {
  #exports;
  #input = { address: 0, bytes: 0 };
  #output = { address: 0, bytes: 0 };

  constructor(exports) {
    this.#exports = exports;
  }

  /** "wasm" or "wasm_relaxed". */
  get isa() {
    return this.#text(this.#exports.sparsecore_isa());
  }

  /** Bytes of linear memory that the module holds. */
  get memoryBytes() {
    return this.#exports.memory.buffer.byteLength;
  }

  /** Any per-row pattern, lanes over tokens; made for 16 tokens and more. */
  rowLists({ inFeatures: k, outFeatures: n, block = 128, values, offsets, blockPtr, ...rest }) {
    requireThat(Number.isInteger(block) && block > 0, `rowLists: block is ${block}`);
    expectLength("rowLists", "blockPtr", blockPtr, Int32Array, Math.ceil(k / block) * (n + 1));
    expectLength("rowLists", "offsets", offsets, Uint8Array, values.length);
    return this.#layer("row_lists", { n, k, values, ...rest }, [offsets, blockPtr], [values.length, block]);
  }

  /** Groups of `vector` output channels that keep the same inputs: the fastest format. */
  sharedLists({ inFeatures: k, outFeatures: n, vector, values, columns, groupPtr, ...rest }) {
    requireThat(Number.isInteger(vector) && vector > 0, `sharedLists: vector is ${vector}`);
    expectLength("sharedLists", "groupPtr", groupPtr, Int32Array, Math.ceil(n / vector) + 1);
    expectLength("sharedLists", "columns", columns, Uint16Array, values.length / vector);
    return this.#layer("shared_lists", { n, k, values, ...rest }, [columns, groupPtr], [columns.length, vector]);
  }

  /** Per-row N:M for one to eight tokens. `pattern` is [n, m]. */
  nmDecode({ inFeatures: k, outFeatures: n, pattern, values, codes, ...rest }) {
    requireThat(codes instanceof Uint32Array, "nmDecode: codes must be an Uint32Array");
    return this.#layer("nm_decode", { n, k, values, ...rest }, [codes], [values.length, codes.length, ...pattern]);
  }

  /** Unstructured for one to eight tokens. */
  bitmapDecode({ inFeatures: k, outFeatures: n, values, bitmap, rowPtr, ...rest }) {
    expectLength("bitmapDecode", "bitmap", bitmap, BigUint64Array, n * Math.ceil(k / 64));
    expectLength("bitmapDecode", "rowPtr", rowPtr, Int32Array, n + 1);
    return this.#layer("bitmap_decode", { n, k, values, ...rest }, [bitmap, rowPtr], [values.length]);
  }

  /** Blocks of 16 x 16 with an N of 16 each, for one to eight tokens. `codes` are the blocks' N: 0, 2, 4, 8 or 16. */
  variableNm({ inFeatures: k, outFeatures: n, values, indices, codes, ...rest }) {
    requireThat(indices instanceof Uint8Array, "variableNm: indices must be an Uint8Array");
    expectLength("variableNm", "codes", codes, Uint8Array, (n / 16) * (k / 16));
    return this.#layer("variable_nm", { n, k, values, ...rest }, [indices, codes],
      [values.length, indices.length, codes.length]);
  }

  /** A dense layer in float32; `weight` is [outFeatures, inFeatures]. */
  dense({ inFeatures: k, outFeatures: n, weight, bias = null, activation = "none" }) {
    expectLength("dense", "weight", weight, Float32Array, n * k);
    if (bias) expectLength("dense", "bias", bias, Float32Array, n);
    requireThat(activation in ACTIVATIONS, `dense: no activation ${activation}`);
    const memory = new Owned(this.#exports);
    const count = this.#exports.dense_packed_count(n, k);
    requireThat(count >= 0, `dense: [${n}, ${k}] is too large`);
    const packed = memory.reserve(4 * count);
    const unpacked = memory.copy(weight);
    this.#exports.dense_pack(unpacked, n, k, packed);
    memory.release(unpacked);
    const biasAddress = memory.copy(bias);
    const run = (x, y, m) =>
      this.#exports.dense_linear(x, packed, biasAddress, y, m, n, k, ACTIVATIONS[activation]);
    return new Layer("dense", n, k, "float32", 4 * count, memory, (x, out) => this.#forward("dense", run, x, out, n, k, "float32"));
  }

  /**
   * A whole network from the bytes of its file, checked.
   *
   * @param {ArrayBuffer | Uint8Array} file
   * @returns {Network}
   */
  network(file) {
    const bytes = file instanceof ArrayBuffer ? new Uint8Array(file) : file;
    requireThat(bytes instanceof Uint8Array, "network: the file must be an ArrayBuffer or an Uint8Array");
    return new Network(this.#exports, bytes);
  }

  /** A whole network from where its file lies. */
  async fetchNetwork(url) {
    const base = globalThis.document?.baseURI ?? globalThis.location?.href ?? import.meta.url;
    return this.network(new Uint8Array(await readBytes(new URL(url, base))));
  }

  /** Gives back the module's working memory; layers stay. */
  releaseScratch() {
    this.#exports.sparsecore_release_scratch();
    for (const buffer of [this.#input, this.#output]) {
      this.#exports.sparsecore_free(buffer.address);
      buffer.address = buffer.bytes = 0;
    }
  }

  #layer(family, options, indexArrays, sizes) {
    const {
      n, k, values, valuesDtype = values instanceof Int8Array ? "int8" : "float32", scale = null, bias = null,
      biasDtype = "float32", activation = "none", compute = "float32", dtype = "float32",
    } = options;
    requireThat(dtype in DTYPES && valuesDtype in DTYPES && biasDtype in DTYPES, `${family}: unknown dtype`);
    requireThat(activation in ACTIVATIONS, `${family}: no activation ${activation}`);
    requireThat(compute in COMPUTES, `${family}: no compute ${compute}`);
    requireThat(values instanceof ARRAYS[valuesDtype], `${family}: values of ${valuesDtype} must be ${ARRAYS[valuesDtype].name}`);
    if (scale) expectLength(family, "scale", scale, Float32Array, n);
    if (bias) expectLength(family, "bias", bias, ARRAYS[biasDtype], n);
    const memory = new Owned(this.#exports);
    try {
      const arrays = [values, ...indexArrays].map((array) => memory.copy(array));
      const weight = [...arrays, ...sizes];
      const shape = family === "nm_decode" ? [DTYPES[valuesDtype], n, k] : [n, k];
      this.#check(family, this.#exports[`${family}_validate`](...weight, ...shape));
      const biasAddress = memory.copy(bias);
      const scaleAddress = memory.copy(scale);
      const linear = this.#exports[`${family}_linear`];
      const run = (x, y, m) =>
        linear(x, y, biasAddress, scaleAddress, m, n, k, DTYPES[dtype], DTYPES[biasDtype], DTYPES[valuesDtype],
          ACTIVATIONS[activation], COMPUTES[compute], ...weight);
      const bytes = [values, ...indexArrays].reduce((sum, array) => sum + array.byteLength, 0);
      return new Layer(family, n, k, dtype, bytes, memory, (x, out) => this.#forward(family, run, x, out, n, k, dtype));
    } catch (error) {
      memory.free();
      throw error;
    }
  }

  #forward(family, run, x, out, n, k, dtype) {
    const ArrayType = ARRAYS[dtype];
    requireThat(x instanceof ArrayType, `${family}: the input must be ${ArrayType.name}`);
    requireThat(k > 0 && x.length % k === 0, `${family}: ${x.length} inputs are not whole tokens of ${k}`);
    const m = x.length / k;
    const result = out ?? new ArrayType(m * n);
    expectLength(family, "out", result, ArrayType, m * n);
    const input = this.#grown(this.#input, x.byteLength);
    const output = this.#grown(this.#output, result.byteLength);
    new ArrayType(this.#exports.memory.buffer, input, x.length).set(x);
    this.#check(family, run(input, output, m));
    result.set(new ArrayType(this.#exports.memory.buffer, output, result.length));
    return result;
  }

  #grown(buffer, bytes) {
    if (buffer.bytes < bytes || !buffer.address) {
      this.#exports.sparsecore_free(buffer.address);
      buffer.address = this.#exports.sparsecore_malloc(bytes) >>> 0;
      buffer.bytes = buffer.address ? bytes : 0;
      requireThat(buffer.address, `no memory for ${bytes} bytes of activations`);
    }
    return buffer.address;
  }

  #check(family, status) {
    requireThat(status === 0, `${family}: ${this.#text(this.#exports.sparsecore_describe(status))}`);
  }

  #text(address) {
    return textAt(this.#exports.memory, address);
  }
}

// The zero-terminated text at an address. Slices: decoders refuse memory that may be shared.
function textAt(memory, address) {
  const bytes = new Uint8Array(memory.buffer, address >>> 0);
  return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
}

/** A layer whose weights live in the module's memory until free(). */
class Layer {
  #memory;
  #run;

  constructor(family, n, k, dtype, nbytes, memory, run) {
    Object.assign(this, { family, outFeatures: n, inFeatures: k, dtype, nbytes });
    this.#memory = memory;
    this.#run = run;
  }

  /** [tokens, inFeatures] -> [tokens, outFeatures], both flat; `out` is reused where given. */
  forward(x, out) {
    requireThat(this.#memory, `${this.family}: forward() after free()`);
    return this.#run(x, out);
  }

  free() {
    this.#memory?.free();
    this.#memory = null;
  }
}

const ERROR_BYTES = 512;

/** A whole network whose weights live in the module's memory until free(). Made by Sparsecore.network(). */
export class Network {
  #exports;
  #handle = 0;
  #buffers = new Map();

  constructor(exports, file) {
    this.#exports = exports;
    const memory = new Owned(exports);
    try {
      const error = memory.reserve(ERROR_BYTES);
      this.#handle = exports.sparsecore_network_load(memory.copy(file), file.byteLength, error) >>> 0;
      requireThat(this.#handle, `network: ${textAt(exports.memory, error)}`);
    } finally {
      memory.free();
    }
    this.inputs = this.#ports(0, exports.sparsecore_network_inputs(this.#handle));
    this.outputs = this.#ports(1, exports.sparsecore_network_outputs(this.#handle));
  }

  /**
   * Images in, results out. Each array holds its images one after the other, laid out as `inputs` and `outputs` say.
   *
   * @param {...Float32Array} inputs one per input
   * @returns {Float32Array | Float32Array[]} one array, or a list where the network has several outputs
   */
  run(...inputs) {
    return this.#run(inputs, 0);
  }

  /** Runs images like run() and returns the steps with the seconds each took. */
  profile(...inputs) {
    this.#run(inputs, 1);
    return this.steps();
  }

  /** The operators in order: op, weight, kernel, products, denseProducts, seconds (of the last profile, else 0). */
  steps() {
    const exports = this.#live();
    const memory = new Owned(exports);
    try {
      const [texts, numbers] = [memory.reserve(12), memory.reserve(24)];
      return Array.from({ length: exports.sparsecore_network_steps(this.#handle) }, (_, i) => {
        exports.sparsecore_network_step(this.#handle, i, texts, numbers);
        const view = new DataView(exports.memory.buffer);
        const [op, weight, kernel] = [0, 4, 8].map((at) => textAt(exports.memory, view.getUint32(texts + at, true)));
        const [products, denseProducts, seconds] = [0, 8, 16].map((at) => view.getFloat64(numbers + at, true));
        return { op, weight, kernel, products, denseProducts, seconds };
      });
    } finally {
      memory.free();
    }
  }

  /** Bytes of memory for all values between the steps. */
  get arenaBytes() {
    return this.#live().sparsecore_network_arena_bytes(this.#handle) >>> 0;
  }

  /** Bytes of the weights. */
  get weightBytes() {
    return this.#live().sparsecore_network_weight_bytes(this.#handle) >>> 0;
  }

  free() {
    if (!this.#handle) return;
    this.#exports.sparsecore_network_free(this.#handle);
    for (const { address } of this.#buffers.values()) this.#exports.sparsecore_free(address);
    this.#buffers.clear();
    this.#handle = 0;
  }

  #live() {
    requireThat(this.#handle, "network: used after free()");
    return this.#exports;
  }

  #ports(output, count) {
    const memory = new Owned(this.#exports);
    try {
      const place = memory.reserve(20);
      return Array.from({ length: count }, (_, i) => {
        const name = textAt(this.#exports.memory, this.#exports.sparsecore_network_port(this.#handle, output, i, place));
        const [rank, channels, height, width, hwc] = new Int32Array(this.#exports.memory.buffer, place, 5);
        if (rank === 1) return { name, shape: [channels], layout: "vector" };
        return hwc
          ? { name, shape: [height, width, channels], layout: "hwc" }
          : { name, shape: [channels, height, width], layout: "chw" };
      });
    } finally {
      memory.free();
    }
  }

  #run(inputs, profile) {
    const exports = this.#live();
    requireThat(inputs.length === this.inputs.length,
      `network: needs ${this.inputs.length} inputs (${this.inputs.map((port) => port.name)}), got ${inputs.length}`);
    let images;
    inputs.forEach((array, i) => {
      const { name, shape, layout } = this.inputs[i];
      requireThat(array instanceof Float32Array, `network: ${name} must be a Float32Array`);
      const count = array.length / elements(shape);
      requireThat(Number.isInteger(count),
        `network: ${name} holds ${array.length} numbers, which are not whole images of [${shape.join(", ")}] (${layout})`);
      images ??= count;
      requireThat(count === images, `network: ${name} holds ${count} images, and the input before it ${images}`);
    });
    const sizes = this.outputs.map((port) => images * elements(port.shape));
    const from = inputs.map((array, i) => this.#grown(`input ${i}`, array.byteLength));
    const to = sizes.map((size, i) => this.#grown(`output ${i}`, 4 * size));
    const addresses = this.#grown("addresses", 4 * (from.length + to.length));
    // No memory is asked for below, so that views stay valid until the network runs.
    new Uint32Array(exports.memory.buffer, addresses, from.length + to.length).set([...from, ...to]);
    inputs.forEach((array, i) => new Float32Array(exports.memory.buffer, from[i], array.length).set(array));
    const status = exports.sparsecore_network_run(this.#handle, images, addresses, addresses + 4 * from.length, profile);
    requireThat(status === 0,
      `network: ${textAt(exports.memory, exports.sparsecore_network_describe(status))}`);
    const results = sizes.map((size, i) => new Float32Array(exports.memory.buffer, to[i], size).slice());
    return results.length === 1 ? results[0] : results;
  }

  #grown(name, bytes) {
    const buffer = this.#buffers.get(name) ?? { address: 0, bytes: -1 };
    if (buffer.bytes >= bytes) return buffer.address;
    this.#exports.sparsecore_free(buffer.address);
    this.#buffers.delete(name);
    const address = this.#exports.sparsecore_malloc(bytes) >>> 0;
    requireThat(address, `network: no memory for ${bytes} bytes`);
    this.#buffers.set(name, { address, bytes });
    return address;
  }
}

function elements(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

// Blocks of module memory that are given back together.
class Owned {
  #exports;
  #addresses = [];

  constructor(exports) {
    this.#exports = exports;
  }

  reserve(bytes) {
    const address = this.#exports.sparsecore_malloc(bytes) >>> 0;
    requireThat(address, `no memory for ${bytes} bytes of weights`);
    this.#addresses.push(address);
    return address;
  }

  copy(array) {
    if (!array) return 0;
    const address = this.reserve(array.byteLength);
    new Uint8Array(this.#exports.memory.buffer, address, array.byteLength).set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    );
    return address;
  }

  release(address) {
    this.#exports.sparsecore_free(address);
    this.#addresses = this.#addresses.filter((other) => other !== address);
  }

  free() {
    for (const address of this.#addresses) this.#exports.sparsecore_free(address);
    this.#addresses = [];
  }
}

function expectLength(family, name, array, ArrayType, length) {
  requireThat(array instanceof ArrayType, `${family}: ${name} must be ${ArrayType.name}`);
  requireThat(array.length === length, `${family}: ${name} has ${array.length} entries, needs ${length}`);
}

const SAFETENSORS_ARRAYS = {
  F64: Float64Array, F32: Float32Array, F16: Uint16Array, BF16: Uint16Array, I64: BigInt64Array, U64: BigUint64Array,
  I32: Int32Array, U32: Uint32Array, I16: Int16Array, U16: Uint16Array, I8: Int8Array, U8: Uint8Array, BOOL: Uint8Array,
};

/**
 * Reads a safetensors file: 8 bytes of header length, a JSON header, the data.
 *
 * @param {ArrayBuffer | Uint8Array} file
 * @returns {{metadata: object, tensors: Map<string, {dtype: string, shape: number[], data: ArrayBufferView}>}}
 */
export function readSafetensors(file) {
  // Not the array itself: node's Buffer is one whose slice() makes no copy.
  const bytes = file instanceof ArrayBuffer ? new Uint8Array(file) : new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  requireThat(bytes.byteLength >= 8, "readSafetensors: the file is shorter than its header length");
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  requireThat(length <= bytes.byteLength - 8, `readSafetensors: a header of ${length} bytes does not fit the file`);
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  } catch (error) {
    throw new SparsecoreError(`readSafetensors: the header is not JSON (${error.message})`);
  }
  requireThat(header && typeof header === "object" && !Array.isArray(header), "readSafetensors: the header is no object");
  const data = bytes.subarray(8 + length);
  const tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const ArrayType = SAFETENSORS_ARRAYS[entry?.dtype];
    requireThat(ArrayType, `readSafetensors: ${name} has the unknown dtype ${entry?.dtype}`);
    requireThat(isShape(entry.shape) && isShape(entry.data_offsets) && entry.data_offsets.length === 2,
      `readSafetensors: ${name} lacks a shape or its place`);
    const [start, end] = entry.data_offsets;
    const count = entry.shape.reduce((product, size) => product * size, 1);
    requireThat(start <= end && end <= data.byteLength && end - start === count * ArrayType.BYTES_PER_ELEMENT,
      `readSafetensors: ${name} of shape [${entry.shape}] does not fit bytes ${start} to ${end}`);
    // A copy, because typed arrays need alignment and the file promises none.
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data: new ArrayType(data.slice(start, end).buffer) });
  }
  return { metadata: header.__metadata__ ?? {}, tensors };
}

function isShape(value) {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

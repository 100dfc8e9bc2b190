import assert from "node:assert/strict";
import { test } from "node:test";
import { env } from "node:process";
import { pathToFileURL } from "node:url";

import * as reference from "./reference.mjs";

// ctest says which build to test; it lies in its own folder beside a copy of sparsecore.mjs.
const folder = pathToFileURL(`${env.SPARSECORE_WASM_FOLDER}/`);
const { load, hasRelaxedSimd, readSafetensors, SparsecoreError } = await import(new URL("sparsecore.mjs", folder));
const core = await load({ folder });

// Two of every four, one of every ten, all, none.
const SPREADS = {
  "2:4": (o, i) => ((i + o) & 3) < 2,
  "1 in 10": (o, i) => (7 * i + 3 * o) % 10 === 0,
  all: () => true,
  none: () => false,
};
const SHAPES = [[1, 1, 1], [5, 16, 32], [6, 8, 64], [7, 17, 130], [16, 64, 257], [33, 71, 48], [49, 3, 300]];

function operands(m, n, k) {
  return { x: reference.integers(m * k, 1), weight: reference.integers(n * k, 2), bias: reference.integers(n, 3) };
}

function closeTo(actual, expected, tolerance) {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])),
      `${i}: ${value} is not ${expected[i]}`));
}

test("the relaxed build is taken where the engine has relaxed SIMD", () => {
  assert.equal(core.isa, hasRelaxedSimd() ? "wasm_relaxed" : "wasm");
});

for (const [spread, keep] of Object.entries(SPREADS)) {
  test(`every format agrees with plain loops, keeping ${spread}`, () => {
    for (const [m, n, k] of SHAPES) {
      const { x, weight, bias } = operands(m, n, k);
      const groupKeep = (g, i) => keep(g, i);
      const sharedKeep = (vector) => (o, i) => keep(Math.floor(o / vector), i);
      const size = { inFeatures: k, outFeatures: n, bias };
      const layers = [
        [core.rowLists({ ...size, ...reference.packRowLists(weight, n, k, keep, 64) }), keep],
        [core.bitmapDecode({ ...size, ...reference.packBitmapDecode(weight, n, k, keep) }), keep],
        [core.dense({ ...size, weight: reference.prune(weight, n, k, keep) }), keep],
      ];
      for (const vector of [4, 16, 64])
        layers.push([core.sharedLists({ ...size, ...reference.packSharedLists(weight, n, k, groupKeep, vector) }),
          sharedKeep(vector)]);
      if (spread === "2:4")
        layers.push([core.nmDecode({ ...size, ...reference.packNmDecode(weight, n, k, keep, [2, 4]) }), keep]);
      for (const [layer, kept] of layers) {
        const expected = reference.linear(x, reference.prune(weight, n, k, kept), n, k, { bias });
        assert.deepEqual(layer.forward(x), expected, `${layer.family} ${m} x ${n} x ${k}`);
        layer.free();
        assert.throws(() => layer.forward(x), SparsecoreError);
      }
    }
  });
}

test("blocks with an N of 16 each agree with plain loops", () => {
  const [n, k] = [48, 80];
  // Empty, sparse and dense blocks, and rows that keep fewer than their block's code.
  const codes = Array.from({ length: (n / 16) * (k / 16) }, (_, b) => [0, 2, 4, 8, 16][(3 * b) % 5]);
  const keep = (o, i) => {
    const code = codes[(Math.floor(o / 16) * k) / 16 + Math.floor(i / 16)];
    return code === 16 || ((5 * i + o) % 16 < code && (o + i) % 7 !== 0);
  };
  for (const m of [1, 2, 5, 8, 19]) {
    const { x, weight, bias } = operands(m, n, k);
    const layer = core.variableNm({
      inFeatures: k, outFeatures: n, bias, ...reference.packVariableNm(weight, n, k, keep, codes),
    });
    assert.deepEqual(layer.forward(x), reference.linear(x, reference.prune(weight, n, k, keep), n, k, { bias }));
    layer.free();
  }
});

test("activations, int8 weights with scales, bfloat16 on both sides", () => {
  const [m, n, k] = [9, 37, 96];
  const { x, weight, bias } = operands(m, n, k);
  const keep = SPREADS["2:4"];
  const pruned = reference.prune(weight, n, k, keep);
  const packed = reference.packRowLists(weight, n, k, keep, 32);
  const size = { inFeatures: k, outFeatures: n, bias, ...packed };
  const functions = {
    none: (v) => v,
    relu: (v) => Math.max(v, 0),
    gelu_tanh: (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
    silu: (v) => v / (1 + Math.exp(-v)),
    relu6: (v) => Math.min(Math.max(v, 0), 6),
    hard_swish: (v) => (v * Math.min(Math.max(v + 3, 0), 6)) / 6,
    hard_sigmoid: (v) => Math.min(Math.max(v + 3, 0), 6) / 6,
    sigmoid: (v) => 1 / (1 + Math.exp(-v)),
  };
  for (const [activation, activate] of Object.entries(functions)) {
    const layer = core.rowLists({ ...size, activation });
    closeTo(layer.forward(x), reference.linear(x, pruned, n, k, { bias, activate }), 1e-6);
    layer.free();
  }
  const scale = Float32Array.from({ length: n }, (_, o) => 2 ** ((o % 5) - 2));
  const quantised = core.rowLists({ ...size, values: Int8Array.from(packed.values), scale });
  assert.deepEqual(quantised.forward(x), reference.linear(x, pruned, n, k, { bias, scale }));
  assert.throws(() => core.rowLists({ ...size, values: Int8Array.from(packed.values) }).forward(x), /scale/);

  const half = { dtype: "bfloat16", valuesDtype: "bfloat16", values: reference.toBFloat16(packed.values), bias: null };
  const bfloat = core.rowLists({ ...size, ...half }).forward(reference.toBFloat16(x));
  const widened = Float32Array.from(new Float32Array(Uint32Array.from(bfloat, (bits) => bits << 16).buffer));
  closeTo(widened, reference.linear(x, pruned, n, k), 2 ** -8);
});

test("malformed weights are refused with a reason", () => {
  const [n, k] = [8, 64];
  const weight = reference.integers(n * k, 5);
  const keep = SPREADS["2:4"];
  const rows = () => ({ inFeatures: k, outFeatures: n, ...reference.packRowLists(weight, n, k, keep, 32) });
  const groups = () => ({ inFeatures: k, outFeatures: n, ...reference.packSharedLists(weight, n, k, keep, 4) });
  const nm = () => ({ inFeatures: k, outFeatures: n, ...reference.packNmDecode(weight, n, k, keep, [2, 4]) });
  const bits = () => ({ inFeatures: k, outFeatures: n, ...reference.packBitmapDecode(weight, n, k, keep) });
  const blocks = () => ({ inFeatures: k, outFeatures: 16,
    ...reference.packVariableNm(reference.integers(16 * k, 5), 16, k, (o, i) => i % 4 === 0, [4, 8, 16, 4]) });
  const cases = [
    ["variableNm", blocks, (w) => (w.codes[1] = 7), /pattern/],
    ["variableNm", blocks, (w) => (w.codes[1] = 4), /./],
    ["variableNm", blocks, (w) => (w.codes = w.codes.subarray(1)), /codes has/],
    ["variableNm", blocks, (w) => (w.indices[0] = 0x33), /ascending/],
    ["variableNm", blocks, (w) => (w.indices = w.indices.subarray(1)), /./],
    ["variableNm", blocks, (w) => (w.inFeatures = 40), /codes has/],
    ["rowLists", rows, (w) => (w.offsets[3] = 200), /outside/],
    ["rowLists", rows, (w) => (w.offsets[1] = w.offsets[0]), /ascending/],
    ["rowLists", rows, (w) => (w.blockPtr[2] = 1 << 30), /starts/],
    ["rowLists", rows, (w) => (w.blockPtr[2] = -5), /starts/],
    ["rowLists", rows, (w) => (w.offsets = w.offsets.subarray(1)), /offsets has/],
    ["rowLists", rows, (w) => (w.block = 24), /blockPtr has|pattern/],
    ["rowLists", rows, (w) => (w.bias = new Float32Array(n - 1)), /bias has/],
    ["rowLists", rows, (w) => (w.activation = "tanh"), /activation/],
    ["rowLists", rows, (w) => (w.values = Array.from(w.values)), /values/],
    ["sharedLists", groups, (w) => (w.columns[0] = 60000), /outside/],
    ["sharedLists", groups, (w) => w.columns.reverse(), /ascending/],
    ["sharedLists", groups, (w) => (w.groupPtr[1] = 1 << 30), /starts/],
    ["sharedLists", groups, (w) => (w.values = w.values.subarray(1)), /columns has/],
    ["nmDecode", nm, (w) => (w.codes[0] = 0xffffffff), /ascending|outside/],
    ["nmDecode", nm, (w) => (w.codes = w.codes.subarray(1)), /./],
    ["nmDecode", nm, (w) => (w.pattern = [4, 4]), /pattern/],
    ["bitmapDecode", bits, (w) => (w.bitmap[0] = 0n), /starts/],
    ["bitmapDecode", bits, (w) => (w.rowPtr[1] += 1), /starts/],
    ["bitmapDecode", bits, (w) => (w.values = w.values.subarray(1)), /starts/],
  ];
  for (const [make, build, damage, reason] of cases) {
    core[make](build()).free();
    const damaged = build();
    damage(damaged);
    assert.throws(() => core[make](damaged), (error) => error instanceof SparsecoreError && reason.test(error.message),
      `${make} ${damage}`);
  }
  const layer = core.rowLists(rows());
  assert.throws(() => layer.forward(new Float32Array(k + 1)), SparsecoreError);
  assert.throws(() => layer.forward(new Float64Array(k)), SparsecoreError);
  assert.throws(() => layer.forward(new Float32Array(k), new Float32Array(n + 1)), SparsecoreError);
  layer.free();
});

test("memory is given back", () => {
  const [n, k] = [256, 1024];
  const weight = reference.integers(n * k, 7);
  const packed = { inFeatures: k, outFeatures: n, ...reference.packSharedLists(weight, n, k, SPREADS["2:4"], 16) };
  const x = reference.integers(16 * k, 8);
  const cycle = () => {
    const layer = core.sharedLists(packed);
    layer.forward(x);
    layer.free();
  };
  cycle();
  const before = core.memoryBytes;
  for (let i = 0; i < 100; ++i) cycle();
  assert.equal(core.memoryBytes, before);
  core.releaseScratch();
  cycle();
});

function safetensors(header, data) {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}

test("safetensors files are read, damaged ones refused", () => {
  const values = Float32Array.of(1.5, -2, 3);
  const header = {
    __metadata__: { format: "pt" },
    flags: { dtype: "U8", shape: [1], data_offsets: [0, 1] },
    values: { dtype: "F32", shape: [3, 1], data_offsets: [1, 13] },
  };
  const data = Uint8Array.of(7, ...new Uint8Array(values.buffer));
  const { metadata, tensors } = readSafetensors(safetensors(header, data));
  assert.deepEqual(metadata, { format: "pt" });
  assert.deepEqual(tensors.get("flags").data, Uint8Array.of(7));
  assert.deepEqual(tensors.get("values"), { dtype: "F32", shape: [3, 1], data: values });

  const buffer = Buffer.concat([Buffer.from("before"), safetensors(header, data)]).subarray(6);
  assert.deepEqual(readSafetensors(buffer).tensors, tensors);

  const place = (changes) => safetensors({ values: { ...header.values, ...changes } }, data);
  const damaged = [
    new Uint8Array(3),
    safetensors(header, data).subarray(0, 30),
    safetensors(header, data.subarray(0, 5)),
    safetensors("{", data),
    safetensors("[1]", data),
    place({ dtype: "F31" }),
    place({ shape: [4, 1] }),
    place({ shape: [-3, -1] }),
    place({ data_offsets: [13, 1] }),
    place({ data_offsets: [5, 17] }),
    place({ data_offsets: [1] }),
  ];
  for (const file of damaged) assert.throws(() => readSafetensors(file), SparsecoreError);
});

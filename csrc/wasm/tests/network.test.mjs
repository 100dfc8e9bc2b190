import assert from "node:assert/strict";
import { test } from "node:test";
import { env } from "node:process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import * as reference from "./reference.mjs";

const folder = pathToFileURL(`${env.SPARSECORE_WASM_FOLDER}/`);
const { load, SparsecoreError } = await import(new URL("sparsecore.mjs", folder));
const core = await load({ folder });

// Unstructured weights [n, k] as group lists of one panel and one window.
function groupLists(weight, n, k, keep, depth) {
  const columns = Array.from({ length: n }, (_, o) => [...Array(k).keys()].filter((i) => keep(o, i)));
  const order = [...Array(n).keys()].sort((a, b) => columns[b].length - columns[a].length || a - b);
  const sorted = order.map((o) => columns[o]);
  const starts = [0];
  for (const list of sorted) starts.push(starts.at(-1) + list.length);
  return {
    values: Float32Array.of(...order.flatMap((o) => columns[o].map((i) => weight[o * k + i])), 0),
    index: Uint8Array.of(...sorted.flat(), 0),
    order: Uint8Array.from(order),
    starts: Int32Array.from(starts),
    step: { rows: 1, cols: 1, depth, window: 256 },
  };
}

const DTYPES = new Map([[Float32Array, "F32"], [Uint8Array, "U8"], [Int32Array, "I32"]]);

function networkFile(network, tensors, metadata = {}) {
  const header = {
    __metadata__: { format: "sparsecore.network", version: "1", network: JSON.stringify(network), ...metadata },
  };
  const chunks = [];
  let end = 0;
  for (const [name, array] of Object.entries(tensors)) {
    header[name] = {
      dtype: DTYPES.get(array.constructor), shape: [array.length], data_offsets: [end, (end += array.byteLength)],
    };
    chunks.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return new Uint8Array(Buffer.concat([length, text, ...chunks]));
}

// A 1x1 convolution with ReLU of [channels, side, side] pixels, the mean of every channel, and the pixels themselves.
function example({ layout = "hwc", channels = 12, outChannels = 7, side = 5, metadata } = {}) {
  const keep = (o, i) => (5 * o + 3 * i) % 4 === 0;
  const weight = reference.integers(outChannels * channels, 3);
  const { step, ...lists } = groupLists(weight, outChannels, channels, keep, 16);
  const bias = reference.integers(outChannels, 4);
  const network = {
    inputs: [{ name: "image", value: 0, layout }],
    outputs: [{ name: "means", value: 2 }, { name: "planes", value: 1, layout: "hwc" }],
    values: [[channels, side, side], [outChannels, side, side], [outChannels]],
    steps: [
      { op: "conv", x: 0, y: 1, weight: "mix", activation: "relu", ...step },
      { op: "global_average_pool", x: 1, y: 2 },
    ],
  };
  const tensors = { "mix.bias": bias };
  for (const [part, array] of Object.entries(lists)) tensors[`mix.${part}`] = array;
  const pruned = reference.prune(weight, outChannels, channels, keep);
  // Pixels are the tokens of a linear layer.
  const expected = (x) => reference.linear(x, pruned, outChannels, channels, { bias, activate: (v) => Math.max(v, 0) });
  return { network, tensors, expected, file: networkFile(network, tensors, metadata), channels, outChannels, side };
}

test("a network runs images of pixels and of planes", () => {
  for (const layout of ["hwc", "chw"]) {
    const { file, expected, channels, outChannels, side } = example({ layout });
    const network = core.network(file);
    const pixels = side * side;
    assert.deepEqual(network.inputs, [
      { name: "image", shape: layout === "hwc" ? [side, side, channels] : [channels, side, side], layout },
    ]);
    assert.deepEqual(network.outputs.map((port) => port.shape), [[outChannels], [side, side, outChannels]]);
    for (const images of [1, 3, 0]) {
      const x = reference.integers(images * pixels * channels, 9);
      const given = x.slice();
      if (layout === "chw")
        for (let i = 0; i < images; ++i)
          for (let p = 0; p < pixels; ++p)
            for (let c = 0; c < channels; ++c)
              given[(i * channels + c) * pixels + p] = x[(i * pixels + p) * channels + c];
      const [means, planes] = network.run(given);
      const wanted = expected(x);
      assert.deepEqual(planes, wanted);
      assert.equal(means.length, images * outChannels);
      means.forEach((mean, at) => {
        const [image, o] = [Math.floor(at / outChannels), at % outChannels];
        let sum = 0;
        for (let p = 0; p < pixels; ++p) sum += wanted[(image * pixels + p) * outChannels + o];
        assert.ok(Math.abs(mean - sum / pixels) < 1e-5);
      });
    }
    network.free();
    assert.throws(() => network.run(new Float32Array(pixels * channels)), /after free/);
    network.free();
  }
});

test("the steps and their times", () => {
  const { file, tensors, channels, side } = example();
  const network = core.network(file);
  const steps = network.profile(new Float32Array(side * side * channels));
  assert.deepEqual(steps.map((step) => step.op), ["conv", "global_average_pool"]);
  assert.equal(steps[0].weight, "mix");
  assert.match(steps[0].kernel, /./);
  assert.equal(steps[0].products, (tensors["mix.values"].length - 1) * side * side);
  assert.ok(steps[0].products < steps[0].denseProducts);
  assert.ok(steps.every((step) => step.seconds >= 0));
  assert.ok(network.arenaBytes > 0 && network.weightBytes > 0);
  network.free();
});

test("a network is fetched from a file", async () => {
  const { file, channels, side } = example();
  const path = join(await mkdtemp(join(tmpdir(), "sparsecore-")), "network.safetensors");
  await writeFile(path, file);
  const network = await core.fetchNetwork(pathToFileURL(path));
  assert.equal(network.run(new Float32Array(side * side * channels)).length, 2);
  network.free();
});

test("damaged files and wrong arrays are refused with a reason", () => {
  const { file, network: description, tensors } = example();
  const without = { ...tensors };
  delete without["mix.order"];
  const damaged = (change) => {
    const copies = Object.fromEntries(Object.entries(tensors).map(([name, array]) => [name, array.slice()]));
    change(copies);
    return networkFile(description, copies);
  };
  const cases = [
    [file.subarray(0, 100), /truncated/],
    [file.subarray(0, file.length - 1), /truncated|outside/],
    [new Uint8Array(0), /too few/],
    [networkFile(description, without), /mix\.order/],
    [networkFile(description, tensors, { version: "2" }), /version '2'/],
    [networkFile({ ...description, values: [[12, 5, 5], [7, 5, 6], [7]] }, tensors), /step 0 \(conv\)/],
    [damaged((t) => (t["mix.index"][0] = 200)), /step 0 \(conv\): the packed weight 'mix' is damaged/],
    [damaged((t) => (t["mix.starts"][1] = -1)), /damaged/],
  ];
  for (const [bytes, reason] of cases)
    assert.throws(() => core.network(bytes), (error) => error instanceof SparsecoreError && reason.test(error.message),
      String(reason));
  assert.throws(() => core.network("mobilenet"), SparsecoreError);
  const network = core.network(file.buffer);
  assert.throws(() => network.run(), /needs 1 inputs/);
  assert.throws(() => network.run(new Float64Array(300)), /Float32Array/);
  assert.throws(() => network.run(new Float32Array(301)), /whole images/);
  network.free();
});

test("memory is given back", () => {
  const { file, channels, side } = example({ side: 40 });
  const x = new Float32Array(side * side * channels);
  const cycle = () => {
    const network = core.network(file);
    network.run(x);
    network.profile(x);
    network.free();
    assert.throws(() => core.network(file.subarray(0, 200)));
  };
  cycle();
  const before = core.memoryBytes;
  for (let i = 0; i < 50; ++i) cycle();
  assert.equal(core.memoryBytes, before);
});

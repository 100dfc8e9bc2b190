// Which weights of a network file are kept: the group lists of a layer, unpacked to one byte per block. The file has
// been checked by the module before; the layout is that of csrc/include/sparsecore/group_lists.h.

const convolutions = ({ metadata }) => JSON.parse(metadata.network).steps.filter(({ op }) => op === "conv");
const channels = ({ metadata }, value) => JSON.parse(metadata.network).values[value][0];

/** [{ weight, outputs, inputs }] */
export function layersOf(file) {
  return convolutions(file).map((step) => ({
    weight: step.weight,
    outputs: channels(file, step.y),
    inputs: channels(file, step.x) * step.kernel[0] * step.kernel[1],
  }));
}

/** { outputs, inputs, kept: Uint8Array [outputs, inputs], density } */
export function patternOf(file, weight) {
  const step = convolutions(file).find((candidate) => candidate.weight === weight);
  const { outputs, inputs } = layersOf(file).find((layer) => layer.weight === weight);
  const { rows, cols, depth, window } = step;
  const [index, order, starts] = ["index", "order", "starts"].map((part) => file.tensors.get(`${weight}.${part}`).data);
  const groups = Math.ceil(outputs / rows);
  const kept = new Uint8Array(outputs * inputs);
  let count = 0;
  for (let panel = 0; panel * depth < inputs; ++panel)
    for (let place = 0; place < groups; ++place) {
      const group = Math.floor(place / window) * window + order[panel * groups + place];
      const at = panel * (groups + 1) + place;
      for (let record = starts[at]; record < starts[at + 1]; ++record) {
        const column = panel * depth + cols * index[record];
        for (let r = group * rows; r < Math.min(outputs, (group + 1) * rows); ++r)
          for (let c = column; c < Math.min(inputs, column + cols); ++c, ++count) kept[r * inputs + c] = 1;
      }
    }
  return { outputs, inputs, kept, density: count / kept.length };
}

// Plain loops, and packing as the headers in csrc/include/sparsecore describe it: what the module is tested against.

// Whole numbers in [-4, 4]: every sum is exact in float32, whatever its order.
export function integers(count, seed) {
  const out = new Float32Array(count);
  let state = seed >>> 0;
  for (let i = 0; i < count; ++i) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = ((state >>> 16) % 9) - 4;
  }
  return out;
}

export function linear(x, weight, n, k, { bias = null, scale = null, activate = (v) => v } = {}) {
  const m = x.length / k;
  const y = new Float32Array(m * n);
  for (let t = 0; t < m; ++t)
    for (let o = 0; o < n; ++o) {
      let sum = 0;
      for (let i = 0; i < k; ++i) sum += x[t * k + i] * weight[o * k + i];
      y[t * n + o] = activate(sum * (scale ? scale[o] : 1) + (bias ? bias[o] : 0));
    }
  return y;
}

// keep(o, i) says which weights stay; the others become zero.
export function prune(weight, n, k, keep) {
  const pruned = weight.slice();
  for (let o = 0; o < n; ++o) for (let i = 0; i < k; ++i) if (!keep(o, i)) pruned[o * k + i] = 0;
  return pruned;
}

export function packRowLists(weight, n, k, keep, block) {
  const values = [];
  const offsets = [];
  const blocks = Math.ceil(k / block);
  const blockPtr = new Int32Array(blocks * (n + 1));
  for (let b = 0; b < blocks; ++b)
    for (let o = 0; o <= n; ++o) {
      blockPtr[b * (n + 1) + o] = values.length;
      for (let i = b * block; o < n && i < Math.min(k, (b + 1) * block); ++i)
        if (keep(o, i)) {
          values.push(weight[o * k + i]);
          offsets.push(i - b * block);
        }
    }
  return { block, values: Float32Array.from(values), offsets: Uint8Array.from(offsets), blockPtr };
}

export function packSharedLists(weight, n, k, keepGroup, vector) {
  const values = [];
  const columns = [];
  const groups = Math.ceil(n / vector);
  const groupPtr = new Int32Array(groups + 1);
  for (let g = 0; g < groups; ++g) {
    for (let i = 0; i < k; ++i) {
      if (!keepGroup(g, i)) continue;
      columns.push(i);
      for (let c = g * vector; c < (g + 1) * vector; ++c) values.push(c < n ? weight[c * k + i] : 0);
    }
    groupPtr[g + 1] = columns.length;
  }
  return { vector, values: Float32Array.from(values), columns: Uint16Array.from(columns), groupPtr };
}

export function packNmDecode(weight, n, k, keep, [kept, m]) {
  const tiles = Math.ceil(n / 16);
  const slots = Math.ceil(k / m) * kept;
  const bits = Math.ceil(Math.log2(m));
  const perWord = Math.floor(32 / bits);
  const words = Math.ceil(slots / perWord);
  const values = new Float32Array(tiles * slots * 16);
  const codes = new Uint32Array(tiles * words * 16);
  for (let o = 0; o < n; ++o) {
    const tile = Math.floor(o / 16);
    for (let group = 0; group * m < k; ++group) {
      let slot = group * kept;
      for (let i = group * m; i < Math.min(k, (group + 1) * m); ++i) {
        if (!keep(o, i)) continue;
        values[(tile * slots + slot) * 16 + (o % 16)] = weight[o * k + i];
        codes[(tile * words + Math.floor(slot / perWord)) * 16 + (o % 16)] |= (i % m) << (bits * (slot % perWord));
        ++slot;
      }
    }
  }
  return { pattern: [kept, m], values, codes };
}

export function packBitmapDecode(weight, n, k, keep) {
  const words = Math.ceil(k / 64);
  const values = [];
  const bitmap = new BigUint64Array(n * words);
  const rowPtr = new Int32Array(n + 1);
  for (let o = 0; o < n; ++o) {
    for (let i = 0; i < k; ++i)
      if (keep(o, i)) {
        values.push(weight[o * k + i]);
        bitmap[o * words + Math.floor(i / 64)] |= 1n << BigInt(i % 64);
      }
    rowPtr[o + 1] = values.length;
  }
  return { values: Float32Array.from(values), bitmap, rowPtr };
}

// As many codes as blocks of 16 x 16; a row keeps at most its block's code. Slots that nothing fills take the first
// places that are free, with value 0.
export function packVariableNm(weight, n, k, keep, codes) {
  const values = [];
  const indices = [];
  for (let row = 0; row < n / 16; ++row)
    for (const code of [2, 4, 8, 16])
      for (let b = 0; b < k / 16; ++b) {
        if (codes[(row * k) / 16 + b] !== code) continue;
        const places = Array.from({ length: 16 }, (_, c) => {
          const all = Array.from({ length: 16 }, (_, i) => i);
          const kept = all.filter((i) => keep(16 * row + c, 16 * b + i));
          return [...kept, ...all.filter((i) => !kept.includes(i))].slice(0, code).sort((i, j) => i - j);
        });
        for (let s = 0; s < code; ++s)
          for (let c = 0; c < 16; ++c) {
            const [o, i] = [16 * row + c, 16 * b + places[c][s]];
            values.push(keep(o, i) ? weight[o * k + i] : 0);
          }
        for (let s = 0; s < code && code < 16; s += 2)
          for (let c = 0; c < 16; ++c) indices.push(places[c][s] | (places[c][s + 1] << 4));
      }
  return { values: Float32Array.from(values), indices: Uint8Array.from(indices), codes: Uint8Array.from(codes) };
}

export function toBFloat16(values) {
  return Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (bits) => bits >>> 16);
}

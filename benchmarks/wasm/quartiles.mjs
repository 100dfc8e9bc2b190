/** Median, first and third quartile, to two decimals. */
export function quartiles(samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  return [0.5, 0.25, 0.75].map((at) => Math.round(100 * sorted[Math.floor(at * (sorted.length - 1))]) / 100);
}

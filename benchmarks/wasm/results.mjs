// Result files that say where they come from.
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { versions } from "node:process";

const ROOT = new URL("../../", import.meta.url);

/** benchmarks/results/<name>_<processor>.json */
export function writeResults(name, script, rows, more = {}) {
  const git = (...words) => execFileSync("git", words, { cwd: ROOT, encoding: "utf8" }).trim();
  const processor = cpus()[0].model.trim();
  const changed = git("status", "--porcelain", "--untracked-files=no", "csrc", "cmake") ? "+" : "";
  const machine = {
    processor, node: versions.node, v8: versions.v8, commit: git("rev-parse", "--short=10", "HEAD") + changed,
    date: new Date().toISOString().slice(0, 10),
    command: `node --experimental-wasm-relaxed-simd ${script}`, ...more,
  };
  const file = `${name}_${processor.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "")}.json`;
  const body = rows.map((row) => JSON.stringify(row)).join(",\n  ");
  writeFileSync(
    new URL(`benchmarks/results/${file}`, ROOT),
    `{"name": "${name}",\n"machine": ${JSON.stringify(machine, null, 1)},\n"rows": [\n  ${body}\n]}\n`,
  );
  console.log(`written: benchmarks/results/${file}`);
}

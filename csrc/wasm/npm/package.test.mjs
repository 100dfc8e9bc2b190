// The npm package, once both builds are in build/npm/sparsecore: node --test csrc/wasm/npm
//
// It is packed, installed from its tarball into an empty project, and used from there by name.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../../build/npm/sparsecore/", import.meta.url));
const FILES = ["LICENSE", "README.md", "package.json", "sparsecore.d.mts", "sparsecore.mjs", "sparsecore.wasm",
  "sparsecore_relaxed.wasm"];
// It depends on nothing, so that this pin is all of it.
const TYPESCRIPT = "typescript@5.9.3";

const project = mkdtempSync(join(tmpdir(), "sparsecore-npm-"));
const npm = (...words) => execFileSync("npm", words, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

before(() => {
  writeFileSync(join(project, "package.json"), '{"name": "consumer", "private": true, "type": "module"}');
  const [{ filename, files }] = JSON.parse(npm("pack", "--json", FOLDER));
  assert.deepEqual(files.map(({ path }) => path).sort(), FILES);
  npm("install", "--offline", "--no-audit", "--no-fund", `./${filename}`);
});
after(() => rmSync(project, { recursive: true }));

const SCRIPT = `
import { load, hasRelaxedSimd } from "sparsecore";
const relaxed = process.argv.includes("--relaxed");
const core = await load(relaxed ? {} : { relaxed: false });
const layer = core.dense({ inFeatures: 2, outFeatures: 2, weight: Float32Array.of(1, 2, 3, 4), activation: "relu" });
console.log(JSON.stringify([core.isa, hasRelaxedSimd(), ...layer.forward(Float32Array.of(1, -1))]));
`;

test("an installed package runs, with and without relaxed SIMD", () => {
  writeFileSync(join(project, "run.mjs"), SCRIPT);
  const run = (flags, ...words) =>
    JSON.parse(execFileSync(process.execPath, [...flags, "run.mjs", ...words], { cwd: project, encoding: "utf8" }));
  assert.deepEqual(run([]).filter((_, i) => i !== 1), ["wasm", 0, 0]);
  const [isa, hasRelaxed, ...y] = run(["--experimental-wasm-relaxed-simd"], "--relaxed");
  assert.deepEqual([isa, ...y], [hasRelaxed ? "wasm_relaxed" : "wasm", 0, 0]);
  assert.ok(hasRelaxed);
});

test("the version is the project's", () => {
  const { version } = JSON.parse(readFileSync(join(FOLDER, "package.json"), "utf8"));
  const project = readFileSync(new URL("../../../CMakeLists.txt", import.meta.url), "utf8");
  assert.equal(version, /project\(sparsecore VERSION (\S+)/.exec(project)[1]);
});

// Every name that the module exports, and every public member of its classes, is declared; and nothing else is.
test("the types name what the module has", async () => {
  const module = await import(join(FOLDER, "sparsecore.mjs"));
  const types = readFileSync(join(FOLDER, "sparsecore.d.mts"), "utf8");
  const source = readFileSync(join(FOLDER, "sparsecore.mjs"), "utf8");
  const fields = [...source.matchAll(/^ +this\.(\w+) = /gm)].map(([, name]) => name); // set by constructors
  const declared = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(module).sort());
  for (const name of declared) {
    const body = new RegExp(`^export class ${name}[^{\\n]*\\{\\n([^]*?)^\\}`, "m").exec(types)?.[1];
    if (!body) continue;
    const members = [...body.matchAll(/^  (?:static )?(?:readonly )?(\w+)\??[<(:]/gm)].map(([, member]) => member);
    const own = [module[name], module[name].prototype].flatMap(Object.getOwnPropertyNames);
    const actual = own.filter((key) => !["length", "name", "prototype", "constructor"].includes(key));
    const expected = members.filter((member) => member !== "constructor" && !fields.includes(member));
    assert.deepEqual(expected.sort(), actual.sort(), name);
  }
});

test("a strict TypeScript project compiles against the types", (t) => {
  copyFileSync(new URL("usage.mts", import.meta.url), join(project, "usage.mts"));
  const words = ["--yes", "--package", TYPESCRIPT, "--", "tsc", "--strict", "--noEmit", "--target", "es2022", "--module",
    "nodenext", "--skipLibCheck", "false", "usage.mts"];
  const { status, stdout, stderr } = spawnSync("npx", words, { cwd: project, encoding: "utf8" });
  if (status !== 0 && /ENOTFOUND|ECONN|ETIMEDOUT|EAI_AGAIN|ENOTCACHED|E40\d/.test(stderr))
    return t.skip(`${TYPESCRIPT} cannot be had here`);
  assert.equal(status, 0, stdout + stderr);
});

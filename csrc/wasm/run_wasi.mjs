// Runs a WASI command module as a test emulator: node run_wasi.mjs module.wasm [arguments].
import { readFile } from "node:fs/promises";
import { argv, env, exit } from "node:process";
import { WASI } from "node:wasi";

const [, , path, ...rest] = argv;
const wasi = new WASI({ version: "preview1", args: [path, ...rest], env, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(path));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
exit(wasi.start(instance));

// The benchmark of whole networks in headless Chromium: a server for the files, and a page that measures.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { openBrowser } from "../../examples/browser/tests/webdriver.mjs";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SERVED = /^\/(benchmarks\/wasm|build\/(npm\/sparsecore|wasm_networks))\//;
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };
// A page that shares nothing with others has a clock of 5 us instead of 100.
const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/** Rows, and which browser it was. */
export async function measureInChromium(seconds) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://page").pathname);
    try {
      if (!SERVED.test(path)) throw new Error("not served");
      const body = await readFile(join(ROOT, path));
      response.writeHead(200, { ...ISOLATED, "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const browser = await openBrowser();
  try {
    await browser.open(`http://127.0.0.1:${server.address().port}/benchmarks/wasm/page.html?seconds=${seconds}`);
    await browser.until("return Boolean(globalThis.found)", seconds + 300, "the measurement");
    const { rows, error } = await browser.evaluate("return globalThis.found");
    if (error) throw new Error(`in the page: ${error}`);
    const agent = await browser.evaluate("return navigator.userAgent");
    return { rows, version: /Chrome\/[\d.]+/.exec(agent)[0].replace("/", " ") };
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
  }
}

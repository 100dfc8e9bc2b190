// The page in headless Chromium, after `make browser`: node --test examples/browser/tests
//
// SPARSECORE_SCREENSHOTS=folder keeps pictures of what was seen.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { openBrowser } from "./webdriver.mjs";

const FOLDER = fileURLToPath(new URL("../../../build/browser/", import.meta.url));
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json" };
const missing = ["chromedriver"].filter((program) => spawnSync(program, ["--version"]).status !== 0);
if (!existsSync(join(FOLDER, "networks/networks.json"))) missing.push("build/browser (make browser)");
const skip = missing.length ? `missing: ${missing}` : false;

const scratch = mkdtempSync(join(tmpdir(), "sparsecore-page-"));
const hidden = new Set(); // paths that the server pretends not to have
let server, browser, url;

before(async () => {
  if (skip) return;
  server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://page").pathname).replace(/\/$/, "/index.html");
    try {
      if (hidden.has(path)) throw new Error("hidden");
      const body = await readFile(join(FOLDER, path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  url = `http://127.0.0.1:${server.address().port}/`;
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
  rmSync(scratch, { recursive: true });
});

const STARTED = 'return document.documentElement.dataset.started === "true"';
const text = (id) => browser.evaluate(`return document.getElementById("${id}").textContent`);
const errorShown = () => browser.evaluate('const box = document.getElementById("error"); return box.hidden ? "" : box.textContent');
const click = (id) => browser.evaluate(`document.getElementById("${id}").click()`);

async function screenshot(name) {
  if (!process.env.SPARSECORE_SCREENSHOTS) return;
  mkdirSync(process.env.SPARSECORE_SCREENSHOTS, { recursive: true });
  writeFileSync(join(process.env.SPARSECORE_SCREENSHOTS, `${name}.png`), await browser.screenshot());
}

async function quiet() {
  const messages = await browser.messages();
  assert.deepEqual(messages.filter(({ level }) => level === "SEVERE").map(({ message }) => message), []);
}

test("the page loads, measures both networks, and the sparse ones are faster", { skip }, async () => {
  await browser.open(url);
  await browser.until(STARTED, 60, "the start");
  assert.equal(await errorShown(), "");
  await click("run");
  await browser.until('return !document.getElementById("run").disabled', 120, "the measurement");
  const values = await browser.evaluate('return [...document.querySelectorAll(".bar .value")].map((value) => value.textContent)');
  assert.equal(values.length, 3);
  const times = values.map((value) => Number(/^([\d.]+) ms/.exec(value)[1]));
  assert.ok(times.every((time) => time > 0 && time < 5000), String(values));
  for (const sparse of times.slice(1)) assert.ok(sparse < times[0] / 1.5, `sparse is hardly faster: ${values}`);
  console.log(`    ${values.join(" | ")}; ${await text("status")}`);
  await screenshot("light");
  await quiet();
});

test("patterns are shown as the files say", { skip }, async () => {
  const share = async () => Number(/([\d.]+) % of the weights/.exec(await text("pattern-note"))[1]);
  const painted = () => browser.evaluate(`const canvas = document.getElementById("pattern");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
    return 100 * count / (canvas.width * canvas.height)`);
  for (const [network, expected] of [["mobilenet_dense", 100], ["mobilenet_unstructured", 10], ["mobilenet_4x1", 10]]) {
    await browser.evaluate(`const select = document.getElementById("pattern-network");
      select.value = "${network}"; select.dispatchEvent(new Event("change"))`);
    await browser.until(`return Math.abs(Number(/([\\d.]+) %/.exec(document.getElementById("pattern-note").textContent)[1]) - ${expected}) < 1`,
      10, `the pattern of ${network}`);
    assert.ok(Math.abs((await painted()) - (await share())) < 0.1);
  }
  await quiet();
});

test("drawn digits and the example are recognised", { skip }, async () => {
  const answers = () => browser.evaluate('return [...document.querySelectorAll(".digit .answer")].map((box) => box.textContent)');
  const both = (digit) => `return [...document.querySelectorAll(".digit .answer")].every((box) => box.textContent === "${digit}")`;
  await browser.draw("#drawing", [[0.5, 0.15], [0.5, 0.4], [0.5, 0.6], [0.5, 0.85]]);
  await browser.until(both("1"), 10, `a one, seen as ${await answers()},`);
  await click("clear");
  const circle = Array.from({ length: 25 }, (_, i) => [0.5 - 0.22 * Math.sin((i * Math.PI) / 12), 0.5 - 0.34 * Math.cos((i * Math.PI) / 12)]);
  await browser.draw("#drawing", circle);
  await browser.until(both("0"), 10, `a zero, seen as ${await answers()},`);
  await screenshot("digits");
  await click("example");
  await browser.until('return document.querySelectorAll(".digit .best").length === 2', 10, "an answer to the example");
  await quiet();
});

test("wrong files are refused with a sentence, right ones shown", { skip }, async () => {
  const wrong = join(scratch, "notes.txt");
  writeFileSync(wrong, "no image");
  await browser.type("#file", wrong);
  await browser.until('return !document.getElementById("error").hidden', 10, "a message");
  assert.match(await errorShown(), /notes\.txt is not an image .* PNG/);
  const right = join(scratch, "dot.png");
  writeFileSync(right, Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==", "base64"));
  await browser.type("#file", right);
  await browser.until('return document.getElementById("error").hidden', 10, "the message to go");
  const pixel = await browser.evaluate('return [...document.getElementById("image").getContext("2d").getImageData(100, 100, 1, 1).data]');
  assert.ok(pixel[0] > pixel[1] + 80 && pixel[1] === pixel[2] && pixel[3] === 255, String(pixel)); // the dot is red
  await quiet();
});

test("a missing network is said", { skip }, async () => {
  hidden.add("/networks/mobilenet_4x1.safetensors");
  await browser.open(url);
  await browser.until(STARTED, 60, "the start");
  assert.match(await errorShown(), /mobilenet_4x1\.safetensors answered 404: build the page/);
  hidden.clear();
  await browser.messages();
});

test("dark colours", { skip }, async () => {
  const dark = await openBrowser({ dark: true });
  try {
    await dark.open(url);
    await dark.until(STARTED, 60, "the start");
    assert.equal(await dark.evaluate('return matchMedia("(prefers-color-scheme: dark)").matches'), true);
    assert.equal(await dark.evaluate("return getComputedStyle(document.documentElement).backgroundColor"), "rgb(21, 24, 27)");
    if (process.env.SPARSECORE_SCREENSHOTS) writeFileSync(join(process.env.SPARSECORE_SCREENSHOTS, "dark.png"), await dark.screenshot());
  } finally {
    await dark.close();
  }
});

// As much of the WebDriver protocol as the page's test needs, spoken to chromedriver over fetch.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  "--force-device-scale-factor=1"];

export async function openBrowser({ width = 1000, height = 1500, dark = false } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "sparsecore-browser-"));
  const driver = spawn("chromedriver", ["--port=0"], { stdio: ["ignore", "pipe", "inherit"] });
  const port = await new Promise((resolve, reject) => {
    let said = "";
    driver.stdout.on("data", (text) => {
      said += text;
      const found = /successfully on port (\d+)/.exec(said);
      if (found) resolve(found[1]);
    });
    driver.on("exit", (code) => reject(new Error(`chromedriver ended with ${code}: ${said}`)));
  });
  const call = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${path}: ${value.message}`);
    return value;
  };
  const args = [...FLAGS, `--user-data-dir=${profile}`, `--window-size=${width},${height}`, ...(dark ? ["--force-dark-mode"] : [])];
  const { sessionId } = await call("POST", "/session", {
    capabilities: { alwaysMatch: { browserName: "chrome", "goog:chromeOptions": { args }, "goog:loggingPrefs": { browser: "ALL" } } },
  });
  const session = (method, path, body) => call(method, `/session/${sessionId}${path}`, body);
  const elementKey = "element-6066-11e4-a52e-4f735466cecf";
  return {
    open: (url) => session("POST", "/url", { url }),
    /** The value of a function body in the page. */
    evaluate: (script) => session("POST", "/execute/sync", { script, args: [] }),
    /** Types into an element: for a file input, the path of a file. */
    async type(selector, text) {
      const found = await session("POST", "/element", { using: "css selector", value: selector });
      await session("POST", `/element/${found[elementKey]}/value`, { text });
    },
    /** A pen stroke over an element through points from 0 to 1. */
    async draw(selector, points) {
      const { x, y, width, height } = await session("POST", "/execute/sync", {
        script: `const box = document.querySelector(${JSON.stringify(selector)});
          box.scrollIntoView({ block: "center" });
          const { x, y, width, height } = box.getBoundingClientRect();
          return { x, y, width, height };`,
        args: [],
      });
      const moves = points.map(([u, v]) => ({ type: "pointerMove", duration: 20, x: Math.round(x + u * width), y: Math.round(y + v * height) }));
      const actions = [moves[0], { type: "pointerDown", button: 0 }, ...moves.slice(1), { type: "pointerUp", button: 0 }];
      await session("POST", "/actions", { actions: [{ type: "pointer", id: "pen", parameters: { pointerType: "mouse" }, actions }] });
    },
    async until(script, seconds, what) {
      for (const end = Date.now() + 1000 * seconds; Date.now() < end; await new Promise((done) => setTimeout(done, 100)))
        if (await session("POST", "/execute/sync", { script, args: [] })) return;
      throw new Error(`${what} did not happen within ${seconds} s`);
    },
    /** What the console said since the last call. */
    messages: () => session("POST", "/se/log", { type: "browser" }),
    screenshot: async () => Buffer.from(await session("GET", "/screenshot"), "base64"),
    async close() {
      try {
        await session("DELETE", "");
      } finally {
        driver.removeAllListeners("exit");
        await new Promise((done) => {
          driver.on("exit", done);
          driver.kill();
        });
        rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
      }
    },
  };
}

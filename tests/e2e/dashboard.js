// Opens the dashboard in Chromium and says what it sees, as JSON.
//     node dashboard.js URL COLOUR_SCHEME WIDTH SECONDS [TOKEN [FILE]]     TOKEN "": none; FILE: a screenshot
const { chromium } = require("playwright-core");

const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

// A number for what a drawing shows: it changes when the drawing does.
function drawings() {
  const sum = (text) => [...text].reduce((hash, c) => (hash * 31 + c.codePointAt(0)) | 0, 7);
  const canvases = [...document.querySelectorAll("canvas")].map((c) => sum(c.toDataURL()));
  return [...canvases, ...[...document.querySelectorAll("svg")].map((s) => sum(s.innerHTML))];
}

async function main(url, scheme, width, seconds, token, file) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: flags });
  const page = await browser.newPage({ colorScheme: scheme, viewport: { width: Number(width), height: 900 } });
  const errors = [], foreign = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || foreign.push(request.url()));
  await page.goto(url);
  if (token) {
    await page.waitForSelector("input[type=password]", { state: "visible" });
    errors.length = 0; // the 401 that asks for it
    await page.fill("input[type=password]", token);
    await page.press("input[type=password]", "Enter");
  }
  await page.waitForTimeout(2500);
  const before = await page.evaluate(drawings);
  await page.waitForTimeout(Number(seconds) * 1000);
  const after = await page.evaluate(drawings);
  const seen = await page.evaluate(() => ({
    text: document.body.innerText,
    width: document.documentElement.scrollWidth,
    background: getComputedStyle(document.body).backgroundColor,
  }));
  if (file) await page.screenshot({ path: file });
  await browser.close();
  console.log(JSON.stringify({ ...seen, errors, foreign, drawings: after.length,
    moved: after.filter((value, i) => value !== before[i]).length }));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});

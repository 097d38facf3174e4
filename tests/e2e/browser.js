// A headless browser for the tests of the dashboard. A line of input is an object, the options of a fresh context whose page takes the
// place of the one before (null: no page), or a JSON string: the body of an asynchronous function that is given the page, its context
// and the log; the line of output is {"value": …} or {"error": "…"}.
'use strict';
const { chromium } = require('playwright-core');
const readline = require('readline');

const ARGUMENTS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const AsyncFunction = (async () => {}).constructor;

// A page in a context of its own, and what it has logged.
async function open(browser, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const log = { errors: [], hosts: {} };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) log.errors.push(message.text()); });
  page.on('pageerror', (error) => log.errors.push(error.stack));
  page.on('request', (request) => { log.hosts[new URL(request.url()).host] = true; });
  page.setDefaultTimeout(20000);
  return { page, context, log };
}

async function main() {
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ARGUMENTS });
  let current = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const order = JSON.parse(line);
      let value = null;
      if (typeof order === 'string') value = await new AsyncFunction('page', 'context', 'log', order)(current.page, current.context, current.log);
      else {
        if (current) await current.context.close();
        current = order ? await open(browser, order) : null;
      }
      console.log(JSON.stringify({ value: value ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ error: error.message }));
    }
  }
  await browser.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});

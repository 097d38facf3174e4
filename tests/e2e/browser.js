// A headless browser for the tests of the dashboard. Each line of input is a JSON string: the body of an asynchronous
// function that is given the page, its context and the log; the line of output is {"value": …} or {"error": "…"}.
'use strict';
const { chromium } = require('playwright-core');
const readline = require('readline');

const ARGUMENTS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const AsyncFunction = (async () => {}).constructor;

async function main() {
  const [, , executablePath, options] = process.argv;
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  const context = await browser.newContext(JSON.parse(options));
  const page = await context.newPage();
  const log = { errors: [], hosts: {} };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) log.errors.push(message.text()); });
  page.on('pageerror', (error) => log.errors.push(error.stack));
  page.on('request', (request) => { log.hosts[new URL(request.url()).host] = true; });
  page.setDefaultTimeout(20000);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const value = await new AsyncFunction('page', 'context', 'log', JSON.parse(line))(page, context, log);
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

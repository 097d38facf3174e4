// node clients.js KIND PROXY-URL TARGET-URL: fetches a page with one of the usual packages and prints its body.
'use strict';
const [kind, proxy, target] = process.argv.slice(2);

const kinds = {
  async socks() {
    const { SocksClient } = require('socks');
    const from = new URL(proxy), to = new URL(target);
    const options = { host: from.hostname, port: Number(from.port), type: from.protocol.startsWith('socks4') ? 4 : 5 };
    if (from.username) Object.assign(options, { userId: from.username, password: from.password });
    const { socket } = await SocksClient.createConnection({
      proxy: options, command: 'connect', destination: { host: to.hostname, port: Number(to.port) },
    });
    socket.write(`GET ${to.pathname} HTTP/1.1\r\nHost: ${to.host}\r\nConnection: close\r\n\r\n`);
    socket.resume();
    let text = '';
    for await (const part of socket) text += part;
    return text.slice(text.indexOf('\r\n\r\n') + 4);
  },
  async agent() {
    const { HttpsProxyAgent } = require('https-proxy-agent');
    const library = require(target.startsWith('https') ? 'https' : 'http');
    return new Promise((resolve, reject) => {
      library.get(target, { agent: new HttpsProxyAgent(proxy), rejectUnauthorized: false }, async (response) => {
        let text = '';
        for await (const part of response) text += part;
        resolve(text);
      }).on('error', reject);
    });
  },
  async undici() {
    const { fetch, ProxyAgent } = require('undici');
    const dispatcher = new ProxyAgent({ uri: proxy, requestTls: { rejectUnauthorized: false } });
    return (await fetch(target, { dispatcher })).text();
  },
};

kinds[kind]().then((text) => process.stdout.write(text)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});

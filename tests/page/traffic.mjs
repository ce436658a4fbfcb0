// Clients for the page's test, at a pace that goes up and down: `node traffic.mjs JSON`, where JSON is a list of
// `{ host, port, rate, size, wait, hold, tls: [NAMES], udp }`. `rate`: connections a second, `hold`: connections that stay.

import dgram from "node:dgram";
import net from "node:net";
import tls from "node:tls";

const TURN = 100;
const flows = JSON.parse(process.argv[2]);
const begun = Date.now();

/** Between a third and all of it, over a minute. */
function pace(seed) {
  const seconds = (Date.now() - begun) / 1000;
  return 0.66 + 0.24 * Math.sin(seconds / 9 + seed) + 0.1 * Math.sin(seconds / 2.3 + 2 * seed);
}

function connect({ host, port, tls: names }, at) {
  if (!names) return net.connect({ host, port });
  return tls.connect({ host, port, servername: names[at % names.length], rejectUnauthorized: false });
}

function once(flow, at) {
  const socket = connect(flow, at);
  socket.setTimeout(20_000, () => socket.destroy());
  socket.on("error", () => {});
  socket.on("data", () => {});
  socket.write(`${flow.size ?? 2000} ${flow.wait ?? 0}\n`);
}

function hold(flow, at) {
  const socket = connect(flow, at);
  socket.on("error", () => {});
  socket.on("data", () => {});
  socket.on("close", () => setTimeout(() => hold(flow, at), 3000));
  socket.write("hold\n");
}

flows.forEach((flow, seed) => {
  let due = 0;
  let at = 0;
  const echo = flow.udp ? Array.from({ length: 8 }, () => dgram.createSocket("udp4").on("error", () => {})) : null;
  for (let held = 0; held < (flow.hold ?? 0); held += 1) hold(flow, held);
  if (!flow.rate) return;
  setInterval(() => {
    for (due += (flow.rate * pace(seed) * TURN) / 1000; due >= 1; due -= 1) {
      at += 1;
      if (echo) echo[at % echo.length].send(Buffer.alloc(flow.size ?? 80, "u"), flow.port, flow.host);
      else once(flow, at);
    }
  }, TURN);
});

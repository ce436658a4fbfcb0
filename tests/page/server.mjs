// A server for the page's test: `node server.mjs NAME PORT [PORT...]`. TCP: answers a line `SIZE MILLISECONDS` with so many
// bytes after so long, and a line `hold` with nothing, until the client closes. UDP: sends back what comes.

import dgram from "node:dgram";
import net from "node:net";

const [name, ...ports] = process.argv.slice(2);
const block = Buffer.alloc(64 * 1024, "x");

function answer(socket, line) {
  const [size, wait = 0] = line.split(" ").map(Number);
  if (line === "hold") return;
  setTimeout(() => {
    let left = Number.isFinite(size) ? size : name.length;
    while (left > 0 && !socket.destroyed) {
      const part = Math.min(left, block.length);
      socket.write(block.subarray(0, part));
      left -= part;
    }
    socket.end();
  }, wait);
}

for (const port of ports.map(Number)) {
  net
    .createServer((socket) => {
      let text = "";
      socket.on("error", () => {});
      socket.on("data", (data) => {
        text += data.toString("latin1");
        const at = text.indexOf("\n");
        if (at < 0) return;
        answer(socket, text.slice(0, at).trim());
        text = "";
      });
    })
    .listen(port);
  const echo = dgram.createSocket("udp4");
  echo.on("message", (message, from) => echo.send(message, from.port, from.address));
  echo.bind(port);
}

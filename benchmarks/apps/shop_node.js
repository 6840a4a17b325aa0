// One instance of `shop` in Node. Told to end, it says so on its health page for a while, so that its sidecar sends
// callers elsewhere, and only then stops listening; what it is doing it finishes.
"use strict";

const http = require("node:http");

const port = Number(process.argv[2]);
const notice = Number(process.argv[3]); // milliseconds
let leaving = false;

const server = http.createServer((request, response) => {
  if (request.url === "/healthz") return response.writeHead(leaving ? 503 : 200).end();
  request.resume();
  request.on("end", () => setTimeout(() => {
    const body = JSON.stringify({ server: port });
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
    response.end(body);
  }, 5));
});
server.listen(port, "127.0.0.1");
process.on("SIGTERM", () => {
  leaving = true;
  setTimeout(() => server.close(() => process.exit(0)), notice); // closes what is idle, too
});

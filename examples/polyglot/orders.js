// orders: a Node service of the mesh without a library of it. Its sidecar is all it knows: other services are asked for at
// one local port by the Host field, and callers come in through the sidecar, which says who they are.
"use strict";

const crypto = require("node:crypto");
const http = require("node:http");

const PORT = Number(process.env.PORT || 8003);
const SIDECAR = Number(process.env.SIDECAR_PORT || 15001);
const CALLER = "x-forwarded-client-cert"; // set by the sidecar alone, where MESH_FORWARD_CLIENT_CERT says so

// W3C trace context by hand: the trace that came in, or a new one; each unit of work has an id of its own.
function beginSpan(name, came) {
  const [, trace, parent] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-/.exec(came || "") || [];
  const id = crypto.randomBytes(8).toString("hex");
  return { trace: trace || crypto.randomBytes(16).toString("hex"), id, parent: parent || null, name };
}

function endSpan(span, caller) {
  console.log(JSON.stringify({ span: { ...span, service: "orders", caller: caller || null } }));
}

function ask(service, path, span) {
  const headers = { host: service, traceparent: `00-${span.trace}-${span.id}-01` };
  return new Promise((resolve, reject) => {
    const request = http.get({ host: "127.0.0.1", port: SIDECAR, path, headers }, (answer) => {
      const pieces = [];
      answer.on("error", reject);
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => {
        const text = Buffer.concat(pieces).toString();
        if (answer.statusCode === 200) resolve(JSON.parse(text));
        else reject(new Error(`${service} answers ${answer.statusCode}: ${text}`));
      });
    });
    request.on("error", reject);
  });
}

const pages = [
  [/^\/orders\/(\d+)$/, async (order, span) => ({ order, trace: span.trace, price: await ask("prices", `/price/${order}`, span) })],
  [/^\/stock\/(\d+)$/, async (item, _, caller) => ({ item, left: item % 5, caller: caller || null })],
  [/^\/healthz$/, async () => ({ well: true })],
];

async function serve(request, response) {
  const [pattern, page] = pages.find(([each]) => each.test(request.url)) || [];
  if (!page || request.method !== "GET") return reply(response, 404, { error: "GET /orders/N, /stock/N or /healthz" });
  if (request.url === "/healthz") return reply(response, 200, await page());
  const span = beginSpan(`${request.method} ${request.url}`, request.headers.traceparent);
  try {
    reply(response, 200, await page(Number(pattern.exec(request.url)[1]), span, request.headers[CALLER]));
  } catch (error) {
    reply(response, 502, { error: error.message });
  } finally {
    endSpan(span, request.headers[CALLER]);
  }
}

function reply(response, status, value) {
  const body = JSON.stringify(value);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer(serve);
server.listen(PORT, "127.0.0.1", () => console.log(`orders at 127.0.0.1:${PORT}`));
process.on("SIGTERM", () => {
  server.close(() => process.exit(0)); // what is being served is finished
  server.closeIdleConnections();
});

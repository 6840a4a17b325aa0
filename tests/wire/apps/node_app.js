// Answers as `answers.py` does, and what only a server that leaves the framing to us can: trailers, a body that ends with
// its connection. `node node_app.js PORT KEEP_ALIVE`
'use strict'
const http = require('node:http')
const zlib = require('node:zlib')

const pattern = size => Buffer.from(Uint8Array.from({ length: size }, (_, at) => at % 251))
const SMALL = Buffer.from('{"charged":true}\n')
const LARGE = pattern(64 * 1024)
const BODIES = { '/small': SMALL, '/large': LARGE, '/huge': pattern(3 * 1024 * 1024) }
const TEXT = Buffer.from('so much to say, and again\n'.repeat(4000))

function pieces(reply) {
  for (let start = 0; start < LARGE.length; start += 5000) reply.write(LARGE.subarray(start, start + 5000))
  reply.end()
}

const ANSWERS = {
  '/empty': (_, reply) => reply.writeHead(204).end(),
  '/chunked': (_, reply) => pieces(reply),
  '/trailers': (_, reply) => {
    reply.writeHead(200, { trailer: 'x-checksum' })
    reply.addTrailers({ 'x-checksum': 'abc' })
    pieces(reply)
  },
  '/until-close': (_, reply) => {
    reply.useChunkedEncodingByDefault = false
    reply.shouldKeepAlive = false
    reply.removeHeader('transfer-encoding')
    pieces(reply)
  },
  '/echo': (request, reply) => {
    const parts = []
    request.on('data', part => parts.push(part))
    request.on('end', () => reply.end(Buffer.concat(parts)))
  },
  '/refuse': (_, reply) => reply.writeHead(413).end('too much\n'),
  '/gzip': (_, reply) => {
    const packed = zlib.gzipSync(TEXT)
    reply.writeHead(200, { 'content-encoding': 'gzip', 'content-length': packed.length }).end(packed)
  },
  '/fields': (_, reply) => {
    for (let number = 0; number < 100; number++) reply.setHeader(`x-field-${number}`, `value ${number}`)
    reply.setHeader('x-long', 'l'.repeat(6 * 1024))
    reply.end(SMALL)
  },
}

function validated(request, reply, body) {
  reply.setHeader('etag', '"one"')
  if (request.headers['if-none-match'] === '"one"') reply.writeHead(304).end()
  else reply.writeHead(200, { 'content-length': body.length }).end(body)
}

const [port, keepAlive] = process.argv.slice(2).map(Number)
const server = http.createServer((request, reply) => {
  reply.setHeader('x-peer', `${request.socket.remoteAddress}:${request.socket.remotePort}`)
  const body = BODIES[request.url]
  if (body) validated(request, reply, body)
  else (ANSWERS[request.url] ?? ((_, reply) => reply.writeHead(404).end()))(request, reply)
})
server.keepAliveTimeout = keepAlive * 1000
server.listen(port, '127.0.0.1')

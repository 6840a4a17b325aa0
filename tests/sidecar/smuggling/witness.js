// Answers each request with what it was: method, target, host, body and fields, as one line of JSON. `node witness.js PORT`
'use strict'
const http = require('node:http')

function tell(request, reply) {
  const parts = []
  request.on('error', () => {})
  request.on('data', part => parts.push(part))
  request.on('end', () => {
    const { method, url, rawHeaders, rawTrailers } = request
    const body = Buffer.concat(parts).toString('latin1')
    reply.setHeader('content-length', 0) // so that a connection of HTTP/1.0 stays
    reply.setHeader('x-seen', encodeURIComponent(JSON.stringify({ method, url, rawHeaders, rawTrailers, body })))
    reply.end()
  })
}

const server = http.createServer({ maxHeaderSize: 256 * 1024 }, tell)
server.on('checkContinue', (request, reply) => tell(request, reply))
server.on('upgrade', (request, socket) => {
  const { method, url, rawHeaders } = request
  const seen = encodeURIComponent(JSON.stringify({ method, url, rawHeaders, rawTrailers: [], body: '' }))
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 101 Go\r\nx-seen: ${seen}\r\n\r\n`)
})
server.on('connect', (request, socket) => {
  const { method, url, rawHeaders } = request
  const seen = encodeURIComponent(JSON.stringify({ method, url, rawHeaders, rawTrailers: [], body: '' }))
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 200 OK\r\nx-seen: ${seen}\r\n\r\n`)
})
server.listen(Number(process.argv[2]), '127.0.0.1')

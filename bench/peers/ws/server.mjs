// Echo, or broadcast, with ws on Node.js.
//
//   node server.mjs --listen 127.0.0.1:PORT [--broadcast]
import { createServer } from 'node:http'
import { parseArgs } from 'node:util'
import { WebSocketServer } from 'ws'

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    broadcast: { type: 'boolean', default: false },
  },
})
const colon = values.listen.lastIndexOf(':')
const host = values.listen.slice(0, colon)
const port = Number(values.listen.slice(colon + 1))

const http = createServer()
const server = new WebSocketServer({
  server: http,
  perMessageDeflate: false,
  clientTracking: values.broadcast,
})
server.on('connection', (socket) => {
  // A connection that breaks is the client's to report.
  socket.on('error', () => {})
  socket.on(
    'message',
    values.broadcast
      ? (data, binary) => {
          for (const receiver of server.clients) receiver.send(data, { binary })
        }
      : (data, binary) => socket.send(data, { binary }),
  )
})
http.listen({ host, port, backlog: 4096 }, () => {
  console.log(`ws ready on ${host}:${http.address().port}`)
})

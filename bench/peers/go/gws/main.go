// Echo, or broadcast, with gws: its own server (no net/http), one core.
//
//	gws --listen 127.0.0.1:PORT [--broadcast]
//
// With --broadcast every message goes to all connections, by the library's Broadcaster.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"
	"sync"

	"github.com/lxzan/gws"
)

type handler struct {
	gws.BuiltinEventHandler
	broadcast bool
	mutex     sync.Mutex
	sockets   map[*gws.Conn]struct{}
}

func (h *handler) OnOpen(socket *gws.Conn) {
	if h.broadcast {
		h.mutex.Lock()
		h.sockets[socket] = struct{}{}
		h.mutex.Unlock()
	}
}

func (h *handler) OnClose(socket *gws.Conn, _ error) {
	if h.broadcast {
		h.mutex.Lock()
		delete(h.sockets, socket)
		h.mutex.Unlock()
	}
}

func (h *handler) OnPing(socket *gws.Conn, payload []byte) {
	_ = socket.WritePong(payload)
}

func (h *handler) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	if !h.broadcast {
		_ = socket.WriteMessage(message.Opcode, message.Bytes())
		return
	}
	// The frame is built lazily by the first Broadcast, from these bytes.
	payload := append([]byte(nil), message.Bytes()...)
	broadcaster := gws.NewBroadcaster(message.Opcode, payload)
	defer broadcaster.Close()
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for receiver := range h.sockets {
		_ = broadcaster.Broadcast(receiver)
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address and port")
	broadcast := flag.Bool("broadcast", false, "send every message to all connections")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	log.SetOutput(io.Discard)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		panic(err)
	}
	events := &handler{broadcast: *broadcast, sockets: map[*gws.Conn]struct{}{}}
	server := gws.NewServer(events, &gws.ServerOption{})
	fmt.Printf("gws ready on %s\n", listener.Addr())
	if err := server.RunListener(listener); err != nil {
		panic(err)
	}
}

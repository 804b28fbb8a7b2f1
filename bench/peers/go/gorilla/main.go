// Echo with gorilla/websocket on one core.
//
//	gorilla --listen 127.0.0.1:PORT
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"runtime"

	"github.com/gorilla/websocket"
)

// Zero sizes: the buffers of the HTTP server are used on.
var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

func echo(writer http.ResponseWriter, request *http.Request) {
	socket, err := upgrader.Upgrade(writer, request, nil)
	if err != nil {
		return
	}
	defer socket.Close()
	for {
		kind, message, err := socket.ReadMessage()
		if err != nil {
			return
		}
		if err := socket.WriteMessage(kind, message); err != nil {
			return
		}
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address and port")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		panic(err)
	}
	fmt.Printf("gorilla ready on %s\n", listener.Addr())
	if err := http.Serve(listener, http.HandlerFunc(echo)); err != nil {
		panic(err)
	}
}

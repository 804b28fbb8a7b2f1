// Echo, or broadcast, with uWebSockets: one event loop, no TLS, no compression.
//
//   uws --listen 127.0.0.1:PORT [--broadcast]
//
// With --broadcast every message goes to all connections, by the library's own
// publish and subscribe; without it nobody is subscribed to anything.
#include "App.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct PerConnection {};

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: uws --listen ADDRESS:PORT [--broadcast]\n");
  std::exit(2);
}

const char *const TOPIC = "all";

}  // namespace

int main(int argc, char **argv) {
  bool broadcast = argc == 4 && std::strcmp(argv[3], "--broadcast") == 0;
  if (argc < 3 || std::strcmp(argv[1], "--listen") != 0 || (argc > 3 && !broadcast)) usage();
  std::string address = argv[2];
  size_t colon = address.rfind(':');
  if (colon == std::string::npos) usage();
  std::string host = address.substr(0, colon);
  int port = std::atoi(address.c_str() + colon + 1);

  uWS::App app;
  uWS::App::WebSocketBehavior<PerConnection> behavior;
  behavior.compression = uWS::DISABLED;
  behavior.maxPayloadLength = 16 * 1024 * 1024;
  // No timers and no pings of its own: the load is the client's alone.
  behavior.idleTimeout = 0;
  behavior.sendPingsAutomatically = false;
  behavior.maxBackpressure = 64 * 1024 * 1024;
  behavior.closeOnBackpressureLimit = false;
  behavior.resetIdleTimeoutOnSend = false;
  if (broadcast) {
    behavior.open = [](auto *socket) { socket->subscribe(TOPIC); };
    behavior.message = [&app](auto *, std::string_view message, uWS::OpCode opcode) {
      app.publish(TOPIC, message, opcode, false);
    };
  } else {
    behavior.message = [](auto *socket, std::string_view message, uWS::OpCode opcode) {
      socket->send(message, opcode, false);
    };
  }
  app.ws<PerConnection>("/*", std::move(behavior));
  app.listen(host, port, [&host](us_listen_socket_t *listener) {
    if (listener == nullptr) {
      std::fprintf(stderr, "uws: cannot listen\n");
      std::exit(1);
    }
    int bound = us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener));
    std::printf("uws ready on %s:%d\n", host.c_str(), bound);
    std::fflush(stdout);
  });
  app.run();
}

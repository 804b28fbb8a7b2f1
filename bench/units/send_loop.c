/*
 * The unit every fan-out figure is divided by: one thread, one level-triggered
 * epoll set; whatever any connection sends goes to all of them with one send(2)
 * each.
 *
 *   cc -O2 -Wall -Wextra -o send_loop send_loop.c
 *   ./send_loop [PORT]           prints "send_loop ready on 127.0.0.1:PORT"
 *
 * A connection that was accepted gets one byte, so that a client knows when all
 * of its connections are here. Nothing is parsed, framed or queued: what it costs
 * is what the kernel costs. Kept this plain on purpose; it is a yardstick, not a
 * server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_EVENTS = 512, MAX_FILES = 1 << 20, BUFFER_BYTES = 64 * 1024, BACKLOG = 4096 };

static char buffer[BUFFER_BYTES];
/* Open connections, and where each descriptor stands among them. */
static int connections[MAX_FILES];
static int place[MAX_FILES];
static int count;

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* 10,000 connections need more than the usual soft limit of 1,024 files. */
static void raise_file_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
}

static int listen_on(unsigned short port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) die("SO_REUSEADDR");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (listen(fd, BACKLOG) != 0) die("listen");
  socklen_t length = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &length) != 0) die("getsockname");
  printf("send_loop ready on 127.0.0.1:%u\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

/* Closing the descriptor takes it out of the epoll set too. */
static void forget(int at) {
  int fd = connections[at];
  connections[at] = connections[--count];
  place[connections[at]] = at;
  close(fd);
}

/* 0 when all bytes are with the kernel, -1 when the peer is gone. A full socket
 * buffer is waited for: it never happens in the measured load. */
static int send_all(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes += sent;
      length -= (size_t)sent;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      struct pollfd writable = {.fd = fd, .events = POLLOUT};
      if (poll(&writable, 1, 5000) <= 0) return -1;
    } else if (errno != EINTR) {
      return -1;
    }
  }
  return 0;
}

static void accept_all(int epoll, int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      die("accept4");
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd >= MAX_FILES || send_all(fd, "+", 1) != 0) {
      close(fd);
      continue;
    }
    place[fd] = count;
    connections[count++] = fd;
    watch(epoll, fd);
  }
}

static void broadcast(int from) {
  ssize_t received = recv(from, buffer, sizeof buffer, 0);
  if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (received <= 0) {
    forget(place[from]);
    return;
  }
  /* Backwards: the last one takes the place of one that is gone. */
  for (int at = count - 1; at >= 0; at--) {
    if (send_all(connections[at], buffer, (size_t)received) != 0) forget(at);
  }
}

int main(int argc, char **argv) {
  long port = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
  if (argc > 2 || port < 0 || port > 65535) {
    fprintf(stderr, "usage: %s [PORT]\n", argv[0]);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  raise_file_limit();
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) die("epoll_create1");
  int listener = listen_on((unsigned short)port);
  watch(epoll, listener);

  static struct epoll_event events[MAX_EVENTS];
  for (;;) {
    int ready = epoll_wait(epoll, events, MAX_EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        accept_all(epoll, listener);
      } else if (place[fd] < count && connections[place[fd]] == fd) {
        broadcast(fd);
      }
    }
  }
}

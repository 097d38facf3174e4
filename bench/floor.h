/* The parts of bench/floor: what a connection is, and what floor.c lets floor_udp.c use. */
#ifndef SLUICE_BENCH_FLOOR_H
#define SLUICE_BENCH_FLOOR_H

#include <liburing.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum { PAIRS_MAX = 16384, PIECE_SIZE = 256 * 1024 };

enum floor_mode { FLOOR_FORWARD, FLOOR_SOCKS5 };

/* What a completion is about: a direction of a pair (twice its number, and one more for upstream to client), or one of
 * these. TAG_FAILED is for what completes with a word only when it fails: the chain of that direction is over then. */
enum { TAG_NOTHING = 0, TAG_ACCEPT = 1, TAG_PAIRS = 2 };
#define TAG_FAILED (UINT64_C(1) << 63)
#define TAG_CANCEL (UINT64_C(1) << 62) /* a cancellation that has not found what it was for */

enum pair_state { PAIR_GREETING, PAIR_REQUEST, PAIR_CONNECT, PAIR_RELAY, PAIR_DATAGRAMS };

/* A client and what it is connected to. */
struct pair {
    enum pair_state state;
    int fds[2];      /* client, upstream; -1: none. With datagrams: the control connection, the relay's socket */
    int pipes[2][2]; /* --splice */
    size_t held[2];  /* octets in the pipe of that direction */
    bool armed[2];   /* an operation of that direction is in flight */
    bool done[2];    /* the end of that direction was passed on */
    bool broken;     /* waits for what is in flight, then is over */
    struct sockaddr_in target, client;
    uint8_t *pieces[2]; /* PIECE_SIZE octets for each direction; resident once they were used */
};

extern struct io_uring floor_ring;

struct io_uring_sqe *floor_entry(void);
void floor_say(struct pair *p, const void *data,
               size_t size);                      /* to the client; `data` stays; what follows is linked to it */
void pair_receive(struct pair *p, int direction); /* into its piece */
void pair_watch(struct pair *p, int direction, int fd, unsigned events);
void pair_break(struct pair *p);

/* The client has asked for UDP ASSOCIATE. False: there is no socket for it. */
bool datagrams_begin(struct pair *p, const struct sockaddr_in *listen);
bool datagrams_move(struct pair *p); /* all that has arrived; false: over */

#endif

/* What the two halves of the simulator share: descriptors (sim_net.c) and the operations on them (sim_ring.c). */
#ifndef SLUICE_TESTS_SIM_PRIVATE_H
#define SLUICE_TESTS_SIM_PRIVATE_H

#include "tests/sim.h"

#define SIM_FILES_MAX   1024u
#define SIM_BACKLOG_MAX 32u

/* One that waits to be received. */
struct sim_datagram {
    struct net_address from;
    size_t size;
    uint8_t data[SIM_DATAGRAM_MAX];
};

enum sim_kind { SIM_CLOSED, SIM_SOCKET, SIM_DATAGRAM, SIM_STREAM, SIM_LISTENER, SIM_PIPE };

struct sim_pipe {
    struct sim_bytes bytes;
    int ends; /* open ones */
};

struct sim_file {
    enum sim_kind kind;
    bool closing; /* ring_close() was called, the ring has not submitted it yet */
    bool reset_on_close;
    bool write_end; /* of a pipe */
    struct sim_conn *conn;
    struct sim_pipe *pipe;
    struct net_address local;
    uint32_t waiting; /* connections in the backlog */
    struct sim_conn *backlog[SIM_BACKLOG_MAX];
};

/* The open file, or the end of the test: `what` has used a descriptor that is closed. */
struct sim_file *sim_file_at(int fd, const char *what);
struct sim_file *sim_stream_at(int fd, const char *what); /* the same, and it is a connection */
struct sim_file *sim_file_raw(int fd);                    /* for the kernel, to which `closing` means nothing yet */
void sim_file_close(int fd);
/* Makes a connected descriptor; -EMFILE. */
int sim_file_connected(struct sim_conn *conn);
struct sim_conn *sim_conn_open(uint32_t room_in, uint32_t room_out, bool no_splice);
/* A waiting connection as a descriptor, -EAGAIN, -EMFILE. */
int sim_listener_take(struct sim_file *file);

/* The proxy's receive and send. Octets, 0 at the end, -EAGAIN, -errno. */
int32_t sim_conn_take(struct sim_conn *conn, uint8_t *data, size_t size);
int32_t sim_conn_put(struct sim_conn *conn, const uint8_t *data, size_t size);
short sim_conn_events(const struct sim_conn *conn);
/* The oldest datagram that waits on this descriptor, NULL: there is none; and away with it. */
const struct sim_datagram *sim_datagram_peek(int fd);
void sim_datagram_drop(int fd);
/* A random part of what could be moved, or all of it. */
size_t sim_shorten(size_t size);

/* Asked by the descriptors: is an operation in flight that receives or sends on this connection? */
bool sim_ring_receives(const struct sim_conn *conn);
bool sim_ring_sends(const struct sim_conn *conn);
/* The descriptor is closed now: nothing but cancelled operations may be in flight on it. */
void sim_ring_check_close(int fd);
void sim_ring_begin(void);

extern struct sim_chances sim_chances_now;
extern const struct sim_world_ops *sim_ops;
extern void *sim_world;
extern uint64_t sim_clock_us;

#endif

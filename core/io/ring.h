/* The one door to io_uring: operations named for what they do, completions as plain values.
 *
 * core/io/ring.c is the body for the kernel; tests/sim_ring.c is a second one, a deterministic simulator. The linker
 * chooses. Immediate system calls on sockets and pipes are the neighbour, net.h, which the simulator replaces too.
 *
 * A ring belongs to the thread that opened it (SINGLE_ISSUER): only that thread calls any function here with it, except
 * that any thread may name it as the receiver of ring_wake(). Arming never fails: when the submission queue is full it
 * is submitted and there is room again; if the kernel takes nothing for two seconds, the next ring_wait() says so. What
 * an operation reads or writes stays the kernel's until its last completion
 * (`more` false). Every armed operation completes exactly once with `more` false, cancelled or not, unless its comment
 * says that it is silent. */
#ifndef SLUICE_CORE_IO_RING_H
#define SLUICE_CORE_IO_RING_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/io/counter.h"

#define RING_GENERATION_MAX 0xffffffu
#define RING_NO_TIMEOUT     UINT64_MAX

/* user_data, high to low: op 8 bits, generation 24, slot 32. The meaning of op is the ring's owner's; 0xff is the
 * ring's own. */
struct ring_tag {
    uint8_t op;
    uint32_t generation;
    uint32_t slot;
};
#define RING_OP_SILENT 0xffu /* completions of this op never reach the owner */

static inline uint64_t ring_pack_tag(struct ring_tag tag)
{
    assert(tag.generation <= RING_GENERATION_MAX);
    return (uint64_t)tag.op << 56 | (uint64_t)tag.generation << 32 | tag.slot;
}

static inline struct ring_tag ring_unpack_tag(uint64_t packed)
{
    return (struct ring_tag){.op = (uint8_t)(packed >> 56),
                             .generation = (uint32_t)(packed >> 32) & RING_GENERATION_MAX,
                             .slot = (uint32_t)packed};
}

struct ring_completion {
    struct ring_tag tag;
    int32_t result;  /* octets, a descriptor, poll events: >= 0; or -errno */
    bool more;       /* a multishot operation goes on; else this was its last completion */
    bool has_buffer; /* `buffer` was taken from the group and is now the receiver's, to be given back */
    uint16_t buffer; /* id within the group */
};

struct ring; /* opaque */

struct ring_options {
    unsigned entries; /* submission queue, a power of two; the completion queue is four times as long */
};

struct ring_stats { /* written by the owner, read by any thread */
    counter submissions;
    counter completions;
    counter enters;
    counter overflows; /* completions that the kernel had to park because our queue was full */
};

/* Opens a ring for the calling thread. 0, or -errno: ENOSYS and EPERM mean that io_uring is not to be had here; see
 * ring_explain(). */
int ring_open(struct ring **out, const struct ring_options *options);
/* Frees the ring. Everything in flight is gone with it; the owner has drained it before. */
void ring_destroy(struct ring *ring);
/* Says why io_uring cannot be used, and the remedy: one line, static text. */
const char *ring_explain(int error);

#define RING_DESCRIPTION_SIZE 160u
/* What the kernel is and what its io_uring has beyond the floor of 6.1, one line for the log, cut to `size`. */
void ring_describe(const struct ring *ring, char *text, size_t size);

/* Milliseconds of a monotonic clock, read when ring_wait() last returned: the time that all deadlines use. */
uint64_t ring_now_us(const struct ring *ring); /* the same clock in microseconds */
static inline uint64_t ring_now_ms(const struct ring *ring)
{
    return ring_now_us(ring) / 1000;
}
const struct ring_stats *ring_get_stats(const struct ring *ring);

/* Submits what was armed and waits until a completion is there or timeout_us has passed (0: only looks;
 * RING_NO_TIMEOUT: for ever). Then ring_next() hands out the completions that were there one by one until it returns
 * false; those that ring_flush() brings meanwhile are for the next turn. -errno only for a broken ring. */
int ring_wait_us(struct ring *ring, uint64_t timeout_us);
/* The same, but waits until `count` completions are there: to be woken once for several of them. With 1 it is
 * ring_wait_us(); with more, `timeout_us` is not RING_NO_TIMEOUT. */
int ring_wait_many_us(struct ring *ring, unsigned count, uint64_t timeout_us);
static inline int ring_wait(struct ring *ring, uint64_t timeout_ms)
{
    return ring_wait_us(ring, timeout_ms > RING_NO_TIMEOUT / 1000 ? RING_NO_TIMEOUT : timeout_ms * 1000);
}
bool ring_next(struct ring *ring, struct ring_completion *completion);

/* --- arming; `fd` is a plain descriptor throughout --- */
void ring_accept(struct ring *ring, int fd,
                 struct ring_tag tag); /* multishot; result: new descriptor, CLOEXEC and O_NONBLOCK */
void ring_recv(struct ring *ring, int fd, void *buffer, size_t size, struct ring_tag tag);
/* Receives into buffers of `group`, less than `size` octets and a buffer in all: what is taken is bounded before the
 * kernel takes it. From Linux 6.17 on multishot, ending behind `size` octets; an older kernel would drain the socket
 * until it is dry, and gets one receive of at most `size`. Ends with -ENOBUFS when the group is empty, with 0 at the
 * peer's end. */
void ring_recv_group(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag);
/* The same once: one receive of at most `size` octets into one buffer of `group`. */
void ring_recv_group_once(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag);
/* Sends all of it unless an error intervenes (MSG_WAITALL, MSG_NOSIGNAL); result: octets sent. */
void ring_send(struct ring *ring, int fd, const void *data, size_t size, struct ring_tag tag);
/* address stays valid until the next ring_wait() or ring_flush(). */
#define RING_PARTS_MAX 8u
/* The same of `count` pieces in a row, 1 to RING_PARTS_MAX, in one operation; `parts` itself is free when the call
 * returns. Returns how many of them it takes: fewer when there is no room for a list of them in this turn, and one on
 * kernels before 6.17, whose sendmsg may end short. */
unsigned ring_send_parts(struct ring *ring, int fd, const struct iovec *parts, unsigned count, struct ring_tag tag);
void ring_connect(struct ring *ring, int fd, const struct sockaddr *address, socklen_t size, struct ring_tag tag);
/* One shot; result: the poll(2) events that are there. POLLERR, POLLHUP and POLLRDHUP always count. */
void ring_poll(struct ring *ring, int fd, short events, struct ring_tag tag);
/* Multishot: completes when the peer's end (POLLRDHUP), which the kernel always reports, or an error (POLLERR) or the
 * end of both directions (POLLHUP) is news. For descriptors that nothing else is in flight on. */
void ring_watch(struct ring *ring, int fd, struct ring_tag tag);
/* Multishot recvmsg: each completion's buffer holds what ring_datagram() takes apart. `shape`: msg_namelen and
 * msg_controllen alone. */
void ring_recvmsg_group(struct ring *ring, int fd, struct msghdr *shape, uint16_t group, struct ring_tag tag);
void ring_sendmsg(struct ring *ring, int fd, const struct msghdr *message, struct ring_tag tag);
/* Closes. Silent; whatever is in flight on fd must have been cancelled before. */
void ring_close(struct ring *ring, int fd);
/* Asks that the operations be ended early; silent itself: they complete with -ECANCELED or, if they won the race,
 * normally. */
void ring_cancel(struct ring *ring, struct ring_tag tag);
void ring_cancel_fd(struct ring *ring, int fd); /* every operation of this ring on fd */
/* Submits what was armed, without waiting, so that cancelled operations hold their descriptors no longer; their
 * completions come with the next ring_wait(). */
void ring_flush(struct ring *ring);
/* Makes ring_wait() of `target`, another thread's ring, return with a completion of that tag and result 0. Silent here.
 */
void ring_wake(struct ring *ring, struct ring *target, struct ring_tag tag);

/* --- buffer groups --- */
/* Registers `count` (a power of two) buffers of `size` octets at `base` as `group` (0...7), all given to the kernel. 0
 * or -errno. */
int ring_group_open(struct ring *ring, uint16_t group, void *base, size_t size, unsigned count);
void ring_group_close(struct ring *ring, uint16_t group);
/* Gives one buffer back to the kernel. */
void ring_group_give(struct ring *ring, uint16_t group, uint16_t buffer);

struct ring_datagram {
    const struct sockaddr *source;
    socklen_t source_size;
    const uint8_t *payload;
    size_t size;
    bool truncated;
};
/* Takes a ring_recvmsg_group() completion's buffer apart. False if it is malformed. Points into `buffer`. */
bool ring_datagram(const void *buffer, int32_t result, struct msghdr *shape, struct ring_datagram *out);

#endif

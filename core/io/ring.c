/* The kernel's body of ring.h, and the only file that knows liburing.
 *
 * Every ring is SINGLE_ISSUER with DEFER_TASKRUN: completions are produced only while the owner waits, so that nothing
 * interrupts a step and no lock is taken in the kernel. The floor is 6.1, the first kernel that has both. */
#include "core/io/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* Constants that the headers of Debian 12 lack; the values are the kernel's ABI. */
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

#ifndef IORING_FEAT_REG_REG_RING
#define IORING_FEAT_REG_REG_RING (1U << 13)
#endif
#ifndef IORING_FEAT_RECVSEND_BUNDLE
#define IORING_FEAT_RECVSEND_BUNDLE (1U << 14)
#endif
#ifndef IORING_FEAT_MIN_TIMEOUT
#define IORING_FEAT_MIN_TIMEOUT (1U << 15)
#endif

#ifndef IORING_SEND_VECTORIZED
#define IORING_SEND_VECTORIZED (1U << 5)
#endif

#define RING_BATCH  128u
#define RING_GROUPS 8u
/* How often, and how far apart, a full queue is offered to a kernel that does not take it: two seconds in all. */
#define RING_TRIES    200u
#define RING_PAUSE_NS 10000000

struct ring_group {
    struct io_uring_buf_ring *entries;
    uint8_t *base;
    size_t size; /* octets of a buffer */
    unsigned count;
};

/* Sends of several pieces between two submissions: the kernel has read their lists when it has taken them. */
#define RING_LISTS 64u

struct ring_list {
    struct iovec parts[RING_PARTS_MAX];
};

struct ring {
    struct io_uring uring;
    uint64_t now_us;
    int broken;                /* -errno: the kernel has not taken what was armed */
    struct io_uring_sqe scrap; /* what is armed from then on */
    unsigned batch_at, batch_count;
    unsigned left;         /* of what the last ring_wait() has found, behind the batch */
    bool limits_multishot; /* the kernel ends a multishot receive behind so many octets: 6.17 */
    struct ring_stats stats;
    struct ring_group groups[RING_GROUPS];
    struct io_uring_cqe *batch[RING_BATCH];
    bool sends_lists; /* the kernel knows sends of several pieces: 6.17 */
    unsigned list_count;
    struct ring_list lists[RING_LISTS];
};

static void ring_read_clock(struct ring *ring)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    ring->now_us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* A kernel that does not know what an operation asks for refuses it before it looks at the descriptor, which is none.
 */
static bool ring_probe(struct ring *ring)
{
    struct io_uring_cqe *cqe;
    if (io_uring_submit_and_wait(&ring->uring, 1) < 0 || io_uring_peek_cqe(&ring->uring, &cqe) < 0) return false;
    bool known = cqe->res == -EBADF;
    io_uring_cqe_seen(&ring->uring, cqe);
    return known;
}

static bool ring_probe_limit(struct ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    io_uring_prep_recv_multishot(sqe, -1, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->file_index = 1;
    return ring_probe(ring);
}

static bool ring_probe_lists(struct ring *ring)
{
    struct iovec part = {.iov_base = ring, .iov_len = 1};
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    io_uring_prep_send(sqe, -1, &part, 1, 0);
    sqe->ioprio |= IORING_SEND_VECTORIZED;
    return ring_probe(ring);
}

int ring_open(struct ring **out, const struct ring_options *options)
{
    struct ring *ring = aligned_alloc(64, (sizeof *ring + 63) & ~(size_t)63);
    if (!ring) return -ENOMEM;
    memset(ring, 0, sizeof *ring);
    struct io_uring_params params = {
        .flags =
            IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = options->entries * 4,
    };
    int result = io_uring_queue_init_params(options->entries, &ring->uring, &params);
    if (result < 0) {
        free(ring);
        return result;
    }
    io_uring_register_ring_fd(&ring->uring); /* saves a descriptor look-up per enter; fine without */
    ring->limits_multishot = ring_probe_limit(ring);
    ring->sends_lists = ring_probe_lists(ring);
    ring_read_clock(ring);
    *out = ring;
    return 0;
}

void ring_destroy(struct ring *ring)
{
    for (uint16_t group = 0; group < RING_GROUPS; group++) ring_group_close(ring, group);
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

static int ring_disabled_by_sysctl(void)
{
    char digit = '0';
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, &digit, 1) != 1) digit = '0';
    close(fd);
    return digit - '0';
}

const char *ring_explain(int error)
{
    switch (error) {
    case -EPERM:
        if (ring_disabled_by_sysctl() > 0)
            return "io_uring is switched off on this machine; switch it on with: sysctl kernel.io_uring_disabled=0";
        return "io_uring is forbidden to this process, most likely by a container's seccomp profile; run it with the "
               "profile of docs/seccomp.json";
    case -ENOSYS:
        return "this kernel has no io_uring (or a seccomp profile hides it); Linux 6.1 or newer with CONFIG_IO_URING "
               "is "
               "needed, in containers the profile of docs/seccomp.json";
    case -EINVAL: return "this kernel's io_uring is too old; Linux 6.1 or newer is needed";
    case -ENOMEM: return "no memory for an io_uring; raise the limit of locked memory (ulimit -l) or of the container";
    case -EMFILE:
    case -ENFILE: return "no descriptor left for an io_uring; raise the limit of open files (ulimit -n)";
    default: return "io_uring could not be set up";
    }
}

void ring_describe(const struct ring *ring, char *text, size_t size)
{
    static const struct {
        unsigned bit;
        const char *word;
    } features[] = {
        {IORING_FEAT_REG_REG_RING, " registered-ring (6.3)"},
        {IORING_FEAT_RECVSEND_BUNDLE, " bundles (6.10)"},
        {IORING_FEAT_MIN_TIMEOUT, " min-wait (6.12)"},
    };
    struct utsname kernel;
    if (uname(&kernel) < 0) kernel.release[0] = '\0';
    int used = snprintf(text, size, "io_uring of Linux %.64s, beyond 6.1:", kernel.release);
    size_t end = used < 0 ? size : (size_t)used, begin = end;
    for (size_t i = 0; i < sizeof features / sizeof *features && end < size; i++) {
        if (ring->uring.features & features[i].bit)
            end += (size_t)snprintf(text + end, size - end, "%s", features[i].word);
    }
    if (end == begin && end < size) snprintf(text + end, size - end, " nothing");
}

uint64_t ring_now_us(const struct ring *ring)
{
    return ring->now_us;
}

const struct ring_stats *ring_get_stats(const struct ring *ring)
{
    return &ring->stats;
}

/* --- waiting --- */

static int ring_enter(struct ring *ring, unsigned count, uint64_t timeout_us)
{
    struct io_uring *uring = &ring->uring;
    /* What is ready is served first: waiting for more would only add delay. */
    if (timeout_us == 0 || io_uring_cq_ready(uring) > 0) return io_uring_submit_and_get_events(uring);
    if (timeout_us == RING_NO_TIMEOUT) return io_uring_submit_and_wait(uring, 1);
    struct __kernel_timespec timeout = {.tv_sec = (long long)(timeout_us / 1000000),
                                        .tv_nsec = (long long)(timeout_us % 1000000) * 1000};
    struct io_uring_cqe *first;
    return io_uring_submit_and_wait_timeout(uring, &first, count, &timeout, NULL);
}

int ring_wait_us(struct ring *ring, uint64_t timeout_us)
{
    return ring_wait_many_us(ring, 1, timeout_us);
}

int ring_wait_many_us(struct ring *ring, unsigned count, uint64_t timeout_us)
{
    assert(count == 1 || (count > 1 && timeout_us != RING_NO_TIMEOUT));
    assert(ring->batch_at == ring->batch_count); /* the owner has taken all of the last batch */
    if (ring->broken) return ring->broken;
    counter_add(&ring->stats.submissions, io_uring_sq_ready(&ring->uring));
    counter_add(&ring->stats.enters, 1);
    int result = ring_enter(ring, count, timeout_us);
    if (IO_URING_READ_ONCE(*ring->uring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) counter_add(&ring->stats.overflows, 1);
    ring_read_clock(ring);
    ring->left = io_uring_cq_ready(&ring->uring);
    if (result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY) return 0;
    return result;
}

static bool ring_refill(struct ring *ring)
{
    io_uring_cq_advance(&ring->uring, ring->batch_count);
    ring->batch_at = 0;
    ring->batch_count = 0;
    if (ring->left == 0) return false;
    ring->batch_count =
        io_uring_peek_batch_cqe(&ring->uring, ring->batch, ring->left < RING_BATCH ? ring->left : RING_BATCH);
    ring->left -= ring->batch_count;
    counter_add(&ring->stats.completions, ring->batch_count);
    return ring->batch_count > 0;
}

bool ring_next(struct ring *ring, struct ring_completion *completion)
{
    for (;;) {
        if (ring->batch_at == ring->batch_count && !ring_refill(ring)) return false;
        const struct io_uring_cqe *cqe = ring->batch[ring->batch_at++];
        completion->tag = ring_unpack_tag(cqe->user_data);
        if (completion->tag.op == RING_OP_SILENT) continue;
        completion->result = cqe->res;
        completion->more = (cqe->flags & IORING_CQE_F_MORE) != 0;
        completion->has_buffer = (cqe->flags & IORING_CQE_F_BUFFER) != 0;
        completion->buffer = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        return true;
    }
}

/* --- arming --- */

/* The queue is full: it is submitted, and there is room again. When the kernel takes nothing for so long, the ring is
 * broken: the operation is thrown away, and the next wait says so. */
static struct io_uring_sqe *ring_make_room(struct ring *ring)
{
    struct timespec pause = {.tv_nsec = RING_PAUSE_NS};
    for (unsigned i = 0; i < RING_TRIES; i++) {
        counter_add(&ring->stats.submissions, io_uring_sq_ready(&ring->uring));
        counter_add(&ring->stats.enters, 1);
        int result = io_uring_submit_and_get_events(&ring->uring);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
        if (sqe) return sqe;
        ring->broken = result < 0 ? result : -EBUSY;
        nanosleep(&pause, NULL);
    }
    return &ring->scrap;
}

static struct io_uring_sqe *ring_sqe(struct ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe && !ring->broken) {
        sqe = ring_make_room(ring);
        if (sqe != &ring->scrap) ring->broken = 0;
    }
    return sqe ? sqe : &ring->scrap;
}

static void ring_tag_sqe(struct io_uring_sqe *sqe, struct ring_tag tag)
{
    assert(tag.op != RING_OP_SILENT);
    io_uring_sqe_set_data64(sqe, ring_pack_tag(tag));
}

static void ring_silence_sqe(struct io_uring_sqe *sqe)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)RING_OP_SILENT << 56);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

void ring_accept(struct ring *ring, int fd, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    ring_tag_sqe(sqe, tag);
}

void ring_recv(struct ring *ring, int fd, void *buffer, size_t size, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_recv(sqe, fd, buffer, size, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    ring_tag_sqe(sqe, tag);
}

void ring_recv_group(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag)
{
    if (!ring->limits_multishot) {
        ring_recv_group_once(ring, fd, group, size, tag);
        return;
    }
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->file_index = (uint32_t)size; /* named optlen in newer headers */
    /* Not POLL_FIRST: where octets and a reset are both there when the poll begins, its one event brings the octets,
     * and nothing tells of the reset any more. An attempt in front of the poll takes the octets, and the poll finds the
     * reset.
     */
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = group;
    ring_tag_sqe(sqe, tag);
}

void ring_recv_group_once(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_recv(sqe, fd, NULL, size, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = group;
    ring_tag_sqe(sqe, tag);
}

void ring_send(struct ring *ring, int fd, const void *data, size_t size, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_send(sqe, fd, data, size, MSG_WAITALL | MSG_NOSIGNAL);
    ring_tag_sqe(sqe, tag);
}

/* Room for the list of the operation that is being armed, or NULL. When it is the only one that is not submitted, the
 * kernel needs none of the others any more. */
static struct iovec *ring_take_list(struct ring *ring)
{
    if (!ring->sends_lists) return NULL;
    if (io_uring_sq_ready(&ring->uring) == 1) ring->list_count = 0;
    return ring->list_count < RING_LISTS ? ring->lists[ring->list_count++].parts : NULL;
}

unsigned ring_send_parts(struct ring *ring, int fd, const struct iovec *parts, unsigned count, struct ring_tag tag)
{
    assert(count > 0 && count <= RING_PARTS_MAX);
    struct io_uring_sqe *sqe = ring_sqe(ring); /* may submit, and so comes first */
    struct iovec *list = count > 1 ? ring_take_list(ring) : NULL;
    if (!list) {
        io_uring_prep_send(sqe, fd, parts->iov_base, parts->iov_len, MSG_WAITALL | MSG_NOSIGNAL);
        ring_tag_sqe(sqe, tag);
        return 1;
    }
    memcpy(list, parts, count * sizeof *parts);
    /* Not sendmsg: behind many polls the kernel hands a send to a thread, which waits until all of it is sent; but a
     * sendmsg does not wait there on a socket that is O_NONBLOCK, and would end short. */
    io_uring_prep_send(sqe, fd, list, count, MSG_WAITALL | MSG_NOSIGNAL);
    sqe->ioprio |= IORING_SEND_VECTORIZED;
    ring_tag_sqe(sqe, tag);
    return count;
}

void ring_connect(struct ring *ring, int fd, const struct sockaddr *address, socklen_t size, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_connect(sqe, fd, address, size);
    ring_tag_sqe(sqe, tag);
}

void ring_poll(struct ring *ring, int fd, short events, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_poll_add(sqe, fd, (unsigned)(unsigned short)events);
    ring_tag_sqe(sqe, tag);
}

void ring_watch(struct ring *ring, int fd, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_poll_multishot(sqe, fd, 0);
    ring_tag_sqe(sqe, tag);
}

void ring_recvmsg_group(struct ring *ring, int fd, struct msghdr *shape, uint16_t group, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_recvmsg_multishot(sqe, fd, shape, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = group;
    ring_tag_sqe(sqe, tag);
}

void ring_sendmsg(struct ring *ring, int fd, const struct msghdr *message, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL);
    ring_tag_sqe(sqe, tag);
}

void ring_close(struct ring *ring, int fd)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_close(sqe, fd);
    ring_silence_sqe(sqe);
}

void ring_cancel(struct ring *ring, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_cancel64(sqe, ring_pack_tag(tag), 0);
    ring_silence_sqe(sqe);
}

void ring_cancel_fd(struct ring *ring, int fd)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    ring_silence_sqe(sqe);
}

void ring_flush(struct ring *ring)
{
    counter_add(&ring->stats.submissions, io_uring_sq_ready(&ring->uring));
    counter_add(&ring->stats.enters, 1);
    io_uring_submit_and_get_events(&ring->uring);
}

void ring_wake(struct ring *ring, struct ring *target, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);
    io_uring_prep_msg_ring(sqe, target->uring.ring_fd, 0, ring_pack_tag(tag), 0);
    ring_silence_sqe(sqe);
}

/* --- buffer groups --- */

int ring_group_open(struct ring *ring, uint16_t group, void *base, size_t size, unsigned count)
{
    assert(group < RING_GROUPS && ring->groups[group].entries == NULL);
    assert(count > 0 && (count & (count - 1)) == 0 && count <= 32768);
    size_t length = count * sizeof(struct io_uring_buf);
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -ENOMEM;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)memory, .ring_entries = count, .bgid = group};
    int result = io_uring_register_buf_ring(&ring->uring, &registration, 0);
    if (result < 0) {
        munmap(memory, length);
        return result;
    }
    ring->groups[group] = (struct ring_group){.entries = memory, .base = base, .size = size, .count = count};
    io_uring_buf_ring_init(ring->groups[group].entries);
    for (unsigned i = 0; i < count; i++) ring_group_give(ring, group, (uint16_t)i);
    return 0;
}

void ring_group_close(struct ring *ring, uint16_t group)
{
    struct ring_group *g = &ring->groups[group];
    if (!g->entries) return;
    io_uring_unregister_buf_ring(&ring->uring, group);
    munmap(g->entries, g->count * sizeof(struct io_uring_buf));
    *g = (struct ring_group){0};
}

void ring_group_give(struct ring *ring, uint16_t group, uint16_t buffer)
{
    struct ring_group *g = &ring->groups[group];
    assert(g->entries != NULL);
    io_uring_buf_ring_add(g->entries, g->base + (size_t)buffer * g->size, (unsigned)g->size, buffer,
                          io_uring_buf_ring_mask(g->count), 0);
    io_uring_buf_ring_advance(g->entries, 1);
}

bool ring_datagram(const void *buffer, int32_t result, struct msghdr *shape, struct ring_datagram *out)
{
    if (result < 0) return false;
    struct io_uring_recvmsg_out *header = io_uring_recvmsg_validate((void *)(uintptr_t)buffer, result, shape);
    if (!header) return false;
    out->source = io_uring_recvmsg_name(header);
    out->source_size = header->namelen < shape->msg_namelen ? header->namelen : shape->msg_namelen;
    out->payload = io_uring_recvmsg_payload(header, shape);
    out->size = io_uring_recvmsg_payload_length(header, result, shape);
    out->truncated = (header->flags & MSG_TRUNC) != 0;
    return true;
}

/* The second body of core/io/ring.h: operations are tried in an order that chance chooses, while the world acts in
 * between.
 *
 * As with the kernel, arming does nothing until ring_wait(): until then it stands in the submission queue. From then on
 * an operation is live until its last completion is posted, and in flight until that one is handed out. Only then its
 * memory is its owner's again, and is compared with what it was. */
#include "tests/sim.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "core/session/worker.h"
#include "tests/sim_private.h"

#define SIM_OPS_MAX         512u
#define SIM_QUEUE_MAX       4096u /* completions that wait to be taken */
#define SIM_GROUPS          8u
#define SIM_RINGS_MAX       4u
#define SIM_GROUP_COUNT_MAX 1024u

enum sim_kind_of_op {
    OP_FREE,
    OP_ACCEPT,
    OP_RECV,
    OP_RECV_GROUP,
    OP_RECV_GROUP_ONCE,
    OP_SEND,
    OP_CONNECT,
    OP_POLL,
    OP_RECVMSG,
    OP_SENDMSG,
    OP_CLOSE, /* from here on silent: done when they are submitted */
    OP_CANCEL,
    OP_CANCEL_FD,
    OP_WAKE,
};

struct sim_op {
    enum sim_kind_of_op kind;
    bool live;      /* submitted, and more completions will be posted */
    bool cancelled; /* the next completion is the last */
    int fd;
    uint16_t group;
    short events;
    struct ring_tag tag;
    struct sim_conn *conn;
    uint8_t *memory; /* the kernel's while the operation is in flight */
    size_t size, done;
    struct iovec parts[RING_PARTS_MAX]; /* of a send, which has no `memory` */
    unsigned part_count;
    size_t limit; /* of receives into a group's buffers: octets in all */
    uint64_t sum; /* of the memory, when it was armed */
    struct ring *target;
    const struct sockaddr *address;
    socklen_t address_size;
    const struct msghdr *message; /* of a sendmsg: the kernel's while it is in flight */
    struct sim_verdict verdict;   /* of a connect */
    uint64_t due_us;
};

struct sim_group {
    uint8_t *base;
    size_t size;
    unsigned count, head, level; /* a queue of those that the kernel has */
    uint16_t queue[SIM_GROUP_COUNT_MAX];
    bool kernel[SIM_GROUP_COUNT_MAX];
};

struct sim_posted {
    struct ring_completion completion;
    struct sim_op *op; /* to be freed when this is handed out; NULL: it goes on, or there is none */
};

struct ring {
    uint64_t now_us;
    unsigned entries, queued, live, in_flight;
    unsigned top; /* operations from here on were never used */
    unsigned posted_head, posted;
    bool moving;  /* a part of a send has gone, the rest can follow at once */
    bool emptied; /* ring_next() has said that there is no more */
    struct ring_stats stats;
    struct sim_op *queue[SIM_OPS_MAX]; /* armed, not submitted */
    struct sim_op ops[SIM_OPS_MAX];
    struct sim_posted postings[SIM_QUEUE_MAX];
    struct sim_group groups[SIM_GROUPS];
};

static struct ring rings[SIM_RINGS_MAX];
static unsigned ring_count;

void sim_ring_begin(void)
{
    ring_count = 0;
}

/* --- opening --- */

int ring_open(struct ring **out, const struct ring_options *options)
{
    assert(ring_count < SIM_RINGS_MAX);
    struct ring *ring = &rings[ring_count++];
    ring->entries = options->entries < SIM_OPS_MAX ? options->entries : SIM_OPS_MAX;
    ring->queued = ring->live = ring->in_flight = ring->top = 0;
    ring->posted_head = ring->posted = 0;
    ring->emptied = true;
    ring->now_us = sim_clock_us;
    memset(&ring->stats, 0, sizeof ring->stats);
    for (unsigned i = 0; i < SIM_GROUPS; i++) ring->groups[i].count = 0;
    *out = ring;
    return 0;
}

void ring_destroy(struct ring *ring)
{
    for (unsigned i = 0; i < ring->top; i++)
        if (ring->ops[i].kind != OP_FREE && ring->ops[i].kind != OP_ACCEPT)
            sim_fail("the ring is destroyed with operation %u on descriptor %d in flight", ring->ops[i].tag.op,
                     ring->ops[i].fd);
    for (unsigned i = 0; i < SIM_GROUPS; i++)
        if (ring->groups[i].count > 0) sim_fail("the ring is destroyed with buffer group %u open", i);
}

const char *ring_explain(int error)
{
    (void)error;
    return "the simulated ring could not be opened";
}

uint64_t ring_now_us(const struct ring *ring)
{
    return ring->now_us;
}

const struct ring_stats *ring_get_stats(const struct ring *ring)
{
    return &ring->stats;
}

uint32_t sim_in_flight(const struct ring *ring)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < ring->top; i++)
        if (ring->ops[i].kind != OP_FREE) count++;
    return count;
}

uint32_t sim_group_level(const struct ring *ring, uint16_t group)
{
    return ring->groups[group].level;
}

/* --- what is in flight, asked by the descriptors --- */

static bool op_receives(const struct sim_op *op)
{
    return op->kind == OP_RECV || op->kind == OP_RECV_GROUP || op->kind == OP_RECV_GROUP_ONCE;
}

static const struct sim_op *find_on_conn(const struct sim_conn *conn, bool receive)
{
    for (unsigned r = 0; r < ring_count; r++) {
        for (unsigned i = 0; i < rings[r].top; i++) {
            const struct sim_op *op = &rings[r].ops[i];
            if (op->kind == OP_FREE || op->conn != conn) continue;
            if (receive ? op_receives(op) : op->kind == OP_SEND) return op;
        }
    }
    return NULL;
}

bool sim_ring_receives(const struct sim_conn *conn)
{
    return find_on_conn(conn, true) != NULL;
}

bool sim_ring_sends(const struct sim_conn *conn)
{
    return find_on_conn(conn, false) != NULL;
}

void sim_ring_check_close(int fd)
{
    for (unsigned r = 0; r < ring_count; r++) {
        for (unsigned i = 0; i < rings[r].top; i++) {
            const struct sim_op *op = &rings[r].ops[i];
            if (op->kind == OP_FREE || op->kind >= OP_CLOSE || op->fd != fd || !op->live || op->cancelled) continue;
            sim_fail("descriptor %d is closed while operation %u, not cancelled, is in flight on it", fd, op->tag.op);
        }
    }
}

/* --- arming --- */

static uint64_t sum_of(const uint8_t *data, size_t size)
{
    uint64_t sum = 0x9e3779b97f4a7c15u ^ size, word;
    for (; size >= sizeof word; size -= sizeof word, data += sizeof word) {
        memcpy(&word, data, sizeof word);
        sum = (sum ^ word) * 0xbf58476d1ce4e5b9u;
        sum ^= sum >> 29;
    }
    for (; size > 0; size--) sum = (sum ^ *data++) * 0x94d049bb133111ebu;
    return sum;
}

static bool overlap(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static bool op_uses(const struct sim_op *op, const uint8_t *memory, size_t size)
{
    for (unsigned i = 0; i < op->part_count; i++)
        if (overlap(op->parts[i].iov_base, op->parts[i].iov_len, memory, size)) return true;
    return op->memory && overlap(op->memory, op->size, memory, size);
}

static uint64_t sum_of_parts(const struct iovec *parts, size_t count, uint64_t sum)
{
    for (size_t i = 0; i < count; i++) sum = sum * 31 + sum_of(parts[i].iov_base, parts[i].iov_len);
    return sum;
}

/* What the kernel writes to belongs to one operation; what it reads from is written to by none. */
static void check_memory(const struct ring *ring, const uint8_t *memory, size_t size, bool written)
{
    for (unsigned i = 0; i < ring->top; i++) {
        const struct sim_op *op = &ring->ops[i];
        if (op->kind == OP_FREE || !op_uses(op, memory, size)) continue;
        if (written || op->kind == OP_RECV)
            sim_fail("memory is given to the kernel that operation %u of slot %u still uses", op->tag.op, op->tag.slot);
    }
}

static void sim_submit(struct ring *ring);

static struct sim_op *op_find_free(struct ring *ring)
{
    for (unsigned i = 0; i < ring->top; i++)
        if (ring->ops[i].kind == OP_FREE) return &ring->ops[i];
    if (ring->top == SIM_OPS_MAX) sim_fail("more than %u operations are in flight", SIM_OPS_MAX);
    return &ring->ops[ring->top++];
}

static struct sim_op *sim_queue(struct ring *ring, enum sim_kind_of_op kind, int fd)
{
    if (ring->queued == ring->entries) sim_submit(ring);
    struct sim_op *op = op_find_free(ring);
    *op = (struct sim_op){.kind = kind, .fd = fd};
    ring->queue[ring->queued++] = op;
    return op;
}

static void check_tag(const struct ring *ring, struct ring_tag tag)
{
    assert(tag.op != RING_OP_SILENT);
    for (unsigned i = 0; i < ring->top; i++) {
        const struct sim_op *op = &ring->ops[i];
        if (op->kind == OP_FREE || op->kind >= OP_CLOSE) continue;
        if (ring_pack_tag(op->tag) == ring_pack_tag(tag))
            sim_fail("operation %u of slot %u is armed while it is in flight", tag.op, tag.slot);
    }
}

static struct sim_op *sim_arm(struct ring *ring, enum sim_kind_of_op kind, int fd, struct ring_tag tag)
{
    sim_file_at(fd, "arming");
    check_tag(ring, tag);
    struct sim_op *op = sim_queue(ring, kind, fd);
    op->tag = tag;
    return op;
}

static struct sim_op *sim_arm_receive(struct ring *ring, enum sim_kind_of_op kind, int fd, struct ring_tag tag)
{
    struct sim_conn *conn = sim_stream_at(fd, "a receive")->conn;
    if (sim_ring_receives(conn)) sim_fail("two receives are armed on descriptor %d", fd);
    struct sim_op *op = sim_arm(ring, kind, fd, tag);
    op->conn = conn;
    return op;
}

void ring_accept(struct ring *ring, int fd, struct ring_tag tag)
{
    if (sim_file_at(fd, "ring_accept()")->kind != SIM_LISTENER) sim_fail("ring_accept() on %d: no listener", fd);
    sim_arm(ring, OP_ACCEPT, fd, tag);
}

void ring_recv(struct ring *ring, int fd, void *buffer, size_t size, struct ring_tag tag)
{
    if (size == 0) sim_fail("a receive of nothing: its answer reads as the end");
    check_memory(ring, buffer, size, true);
    struct sim_op *op = sim_arm_receive(ring, OP_RECV, fd, tag);
    op->memory = buffer;
    op->size = size;
}

void ring_recv_group(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag)
{
    if (sim_chances_now.old_kernel) {
        ring_recv_group_once(ring, fd, group, size, tag);
        return;
    }
    assert(group < SIM_GROUPS && ring->groups[group].count > 0 && size > 0);
    struct sim_op *op = sim_arm_receive(ring, OP_RECV_GROUP, fd, tag);
    op->group = group;
    op->limit = size;
}

void ring_recv_group_once(struct ring *ring, int fd, uint16_t group, size_t size, struct ring_tag tag)
{
    assert(group < SIM_GROUPS && ring->groups[group].count > 0 && size > 0);
    struct sim_op *op = sim_arm_receive(ring, OP_RECV_GROUP_ONCE, fd, tag);
    op->group = group;
    op->limit = size;
}

/* Now and then there is no room for a list, and only the first part is taken. */
unsigned ring_send_parts(struct ring *ring, int fd, const struct iovec *parts, unsigned count, struct ring_tag tag)
{
    struct sim_conn *conn = sim_stream_at(fd, "a send")->conn;
    assert(count > 0 && count <= RING_PARTS_MAX);
    if (sim_ring_sends(conn)) sim_fail("two sends are armed on descriptor %d", fd);
    if (count > 1 && sim_chance(sim_chances_now.transfer)) count = 1;
    size_t size = 0;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].iov_len == 0) sim_fail("a send of nothing");
        check_memory(ring, parts[i].iov_base, parts[i].iov_len, false);
        size += parts[i].iov_len;
    }
    struct sim_op *op = sim_arm(ring, OP_SEND, fd, tag);
    op->conn = conn;
    op->part_count = count;
    memcpy(op->parts, parts, count * sizeof *parts);
    op->size = size;
    op->sum = sum_of_parts(parts, count, 0);
    return count;
}

void ring_send(struct ring *ring, int fd, const void *data, size_t size, struct ring_tag tag)
{
    struct iovec whole = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    ring_send_parts(ring, fd, &whole, 1, tag);
}

void ring_connect(struct ring *ring, int fd, const struct sockaddr *address, socklen_t size, struct ring_tag tag)
{
    if (sim_file_at(fd, "ring_connect()")->kind != SIM_SOCKET) sim_fail("ring_connect() on %d: no fresh socket", fd);
    struct sim_op *op = sim_arm(ring, OP_CONNECT, fd, tag);
    op->address = address;
    op->address_size = size;
    op->sum = sum_of((const uint8_t *)address, size);
}

void ring_watch(struct ring *ring, int fd, struct ring_tag tag)
{
    ring_poll(ring, fd, 0, tag);
}

void ring_poll(struct ring *ring, int fd, short events, struct ring_tag tag)
{
    struct sim_file *file = sim_file_at(fd, "ring_poll()");
    struct sim_op *op = sim_arm(ring, OP_POLL, fd, tag);
    op->events = (short)(events | POLLERR | POLLHUP);
    op->conn = file->kind == SIM_STREAM ? file->conn : NULL;
}

void ring_close(struct ring *ring, int fd)
{
    struct sim_file *file = sim_file_at(fd, "ring_close()");
    sim_queue(ring, OP_CLOSE, fd);
    if (file->kind == SIM_STREAM) file->conn->closing = true;
    file->closing = true; /* after sim_queue(), which may submit what was there before */
}

void ring_cancel(struct ring *ring, struct ring_tag tag)
{
    sim_queue(ring, OP_CANCEL, -1)->tag = tag;
}

void ring_cancel_fd(struct ring *ring, int fd)
{
    sim_file_at(fd, "ring_cancel_fd()");
    sim_queue(ring, OP_CANCEL_FD, fd);
}

void ring_flush(struct ring *ring)
{
    sim_submit(ring);
}

void ring_wake(struct ring *ring, struct ring *target, struct ring_tag tag)
{
    struct sim_op *op = sim_queue(ring, OP_WAKE, -1);
    op->tag = tag;
    op->target = target;
}

/* --- datagrams --- */

/* What a buffer begins with, in place of struct io_uring_recvmsg_out. */
struct sim_recvmsg {
    struct sockaddr_storage source;
    socklen_t source_size;
    uint32_t size;
};

void ring_recvmsg_group(struct ring *ring, int fd, struct msghdr *shape, uint16_t group, struct ring_tag tag)
{
    if (sim_file_at(fd, "ring_recvmsg_group()")->kind != SIM_DATAGRAM) sim_fail("ring_recvmsg_group() on %d", fd);
    assert(shape->msg_namelen >= sizeof(struct sockaddr_in));
    assert(group < SIM_GROUPS && ring->groups[group].count > 0);
    sim_arm(ring, OP_RECVMSG, fd, tag)->group = group;
}

static uint64_t sum_of_message(const struct msghdr *message)
{
    return sum_of_parts(message->msg_iov, message->msg_iovlen, sum_of(message->msg_name, message->msg_namelen));
}

void ring_sendmsg(struct ring *ring, int fd, const struct msghdr *message, struct ring_tag tag)
{
    if (sim_file_at(fd, "ring_sendmsg()")->kind != SIM_DATAGRAM) sim_fail("ring_sendmsg() on %d", fd);
    struct sim_op *op = sim_arm(ring, OP_SENDMSG, fd, tag);
    op->message = message;
    op->sum = sum_of_message(message);
}

bool ring_datagram(const void *buffer, int32_t result, struct msghdr *shape, struct ring_datagram *out)
{
    const struct sim_recvmsg *head = buffer;
    (void)shape;
    if (result < (int32_t)sizeof *head) return false;
    assert((uint32_t)result == sizeof *head + head->size);
    *out = (struct ring_datagram){.source = (const struct sockaddr *)&head->source,
                                  .source_size = head->source_size,
                                  .payload = (const uint8_t *)buffer + sizeof *head,
                                  .size = head->size};
    return true;
}

/* --- buffer groups --- */

int ring_group_open(struct ring *ring, uint16_t group, void *base, size_t size, unsigned count)
{
    struct sim_group *g = &ring->groups[group];
    assert(group < SIM_GROUPS && g->count == 0);
    assert(count > 0 && (count & (count - 1)) == 0 && count <= SIM_GROUP_COUNT_MAX);
    g->base = base;
    g->size = size;
    g->count = count;
    g->head = g->level = 0;
    memset(g->kernel, 0, sizeof g->kernel);
    for (unsigned i = 0; i < count; i++) ring_group_give(ring, group, (uint16_t)i);
    return 0;
}

void ring_group_close(struct ring *ring, uint16_t group)
{
    ring->groups[group].count = 0;
}

void ring_group_give(struct ring *ring, uint16_t group, uint16_t buffer)
{
    struct sim_group *g = &ring->groups[group];
    assert(g->count > 0 && buffer < SIM_GROUP_COUNT_MAX);
    if (g->kernel[buffer]) sim_fail("buffer %u of group %u is given to the kernel twice", buffer, group);
    if (g->level == g->count) sim_fail("group %u is given more buffers than it has places", group);
    uint8_t *memory = g->base + buffer * g->size;
    check_memory(ring, memory, g->size, true);
    memset(memory, 0xdb, g->size < 64 ? g->size : 64); /* nobody may read it from now on */
    g->queue[(g->head + g->level++) % g->count] = buffer;
    g->kernel[buffer] = true;
}

static uint16_t group_take(struct sim_group *g)
{
    uint16_t buffer = g->queue[g->head];
    assert(g->level > 0 && g->kernel[buffer]);
    g->head = (g->head + 1) % g->count;
    g->level--;
    g->kernel[buffer] = false;
    return buffer;
}

/* --- completions --- */

static const char *op_name(uint8_t op)
{
    static char name[24];
    static const char *const names[] = {"recv client",    "recv upstream",    "send client",     "send upstream",
                                        "poll in client", "poll in upstream", "poll out client", "poll out upstream",
                                        "watch client",   "watch upstream",   "connect"};
    if (op >= WORKER_OP_SESSION && op - WORKER_OP_SESSION < (int)(sizeof names / sizeof *names))
        return names[op - WORKER_OP_SESSION];
    snprintf(name, sizeof name, "op %u", op);
    return name;
}

static void sim_post(struct ring *ring, struct sim_op *op, struct ring_completion completion)
{
    assert(ring->posted < SIM_QUEUE_MAX);
    completion.tag = op->tag;
    if (!completion.more) op->live = false;
    sim_trace("  %s slot %u fd %d: %d%s", op_name(op->tag.op), op->tag.slot, op->fd, completion.result,
              completion.more ? ", more" : "");
    ring->postings[(ring->posted_head + ring->posted++) % SIM_QUEUE_MAX] =
        (struct sim_posted){.completion = completion, .op = completion.more ? NULL : op};
}

static void sim_post_result(struct ring *ring, struct sim_op *op, int32_t result)
{
    sim_post(ring, op, (struct ring_completion){.result = result});
}

static void try_accept(struct ring *ring, struct sim_op *op)
{
    static const int errors[] = {-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM, -ECONNABORTED, -EAGAIN};
    struct sim_file *file = sim_file_raw(op->fd);
    if (file->waiting == 0) return;
    int result = sim_chance(sim_chances_now.accept) ? errors[sim_below(6)] : sim_listener_take(file);
    bool more = result >= 0 && !sim_chance(sim_chances_now.multishot);
    sim_post(ring, op, (struct ring_completion){.result = result, .more = more});
}

static void try_recv(struct ring *ring, struct sim_op *op)
{
    int32_t result = sim_conn_take(op->conn, op->memory, op->size);
    if (result != -EAGAIN) sim_post_result(ring, op, result);
}

static void try_recv_group_once(struct ring *ring, struct sim_op *op)
{
    struct sim_group *g = &ring->groups[op->group];
    struct sim_conn *conn = op->conn;
    if (conn->in.used > 0 && (g->level == 0 || sim_chance(sim_chances_now.no_buffers))) {
        sim_post_result(ring, op, -ENOBUFS);
        return;
    }
    if (conn->in.used == 0) {
        /* Kernels differ in whether the end takes a buffer with it. */
        int32_t result = sim_conn_take(conn, NULL, 0);
        bool takes = result == 0 && g->level > 0 && sim_chance(500);
        if (result == -EAGAIN) return;
        sim_post(ring, op,
                 (struct ring_completion){
                     .result = result, .has_buffer = takes, .buffer = takes ? group_take(g) : (uint16_t)0});
        return;
    }
    uint16_t buffer = g->queue[g->head];
    size_t size = op->kind == OP_RECV_GROUP_ONCE && op->limit < g->size ? op->limit : g->size;
    int32_t result = sim_conn_take(conn, g->base + buffer * g->size, size);
    if (result > 0) group_take(g);
    if (result > 0) op->done += (uint32_t)result;
    bool more =
        result > 0 && op->kind == OP_RECV_GROUP && op->done < op->limit && !sim_chance(sim_chances_now.multishot);
    sim_post(ring, op,
             (struct ring_completion){.result = result, .more = more, .has_buffer = result > 0, .buffer = buffer});
}

/* As the kernel, a multishot receive goes on while there is something, most of the time. */
static void try_recv_group(struct ring *ring, struct sim_op *op)
{
    do try_recv_group_once(ring, op);
    while (op->live && op->conn->in.used > 0 && !sim_chance(sim_chances_now.delay));
}

/* MSG_WAITALL: goes on until all is sent or an error intervenes. */
static void try_send(struct ring *ring, struct sim_op *op)
{
    const struct iovec *part = op->parts;
    size_t before = op->done;
    for (; before >= part->iov_len; part++) before -= part->iov_len;
    int32_t result = sim_conn_put(op->conn, (const uint8_t *)part->iov_base + before, part->iov_len - before);
    if (result == -EAGAIN) return;
    if (result > 0) op->done += (uint32_t)result;
    if (result > 0 && op->done < op->size) {
        ring->moving = true;
        return;
    }
    sim_post_result(ring, op, op->done > 0 ? (int32_t)op->done : result);
}

static void try_connect(struct ring *ring, struct sim_op *op, bool now)
{
    const struct sim_verdict *verdict = &op->verdict;
    if (verdict->never || (!now && sim_clock_us < op->due_us)) return;
    if (verdict->error < 0) {
        sim_post_result(ring, op, verdict->error);
        return;
    }
    struct sim_file *file = sim_file_raw(op->fd);
    struct sim_conn *conn = sim_conn_open(verdict->room_in, verdict->room_out, verdict->no_splice);
    if (!conn) {
        sim_post_result(ring, op, -ECONNREFUSED);
        return;
    }
    conn->owner = verdict->owner;
    conn->way = verdict->way;
    file->kind = SIM_STREAM;
    file->conn = conn;
    sim_ops->on_established(sim_world, conn);
    sim_post_result(ring, op, 0);
}

static void try_poll(struct ring *ring, struct sim_op *op)
{
    struct sim_file *file = sim_file_raw(op->fd);
    short events = 0;
    if (file->kind == SIM_LISTENER && file->waiting > 0) events = POLLIN;
    if (op->conn) events = sim_conn_events(op->conn);
    events = (short)(events & op->events);
    if (events == 0 && op->events & (POLLIN | POLLOUT) && sim_chance(sim_chances_now.spurious))
        events = (short)(op->events & (POLLIN | POLLOUT));
    bool watch = !(op->events & (POLLIN | POLLOUT)); /* multishot: ends when there is no room for its completion */
    if (events != 0 || (watch && sim_chance(sim_chances_now.watch))) sim_post_result(ring, op, events);
}

static void try_recvmsg(struct ring *ring, struct sim_op *op)
{
    struct sim_group *g = &ring->groups[op->group];
    const struct sim_datagram *datagram = sim_datagram_peek(op->fd);
    if (!datagram) return;
    if (g->level == 0 || sim_chance(sim_chances_now.no_buffers)) {
        sim_post_result(ring, op, -ENOBUFS);
        return;
    }
    struct sim_recvmsg head = {.source_size = datagram->from.size, .size = (uint32_t)datagram->size};
    uint16_t buffer = group_take(g);
    uint8_t *memory = g->base + buffer * g->size;
    assert(g->size >= sizeof head + datagram->size);
    memcpy(&head.source, &datagram->from.storage, sizeof head.source);
    memcpy(memory, &head, sizeof head);
    memcpy(memory + sizeof head, datagram->data, datagram->size);
    int32_t size = (int32_t)(sizeof head + datagram->size);
    sim_datagram_drop(op->fd);
    bool more = !sim_chance(sim_chances_now.multishot);
    sim_post(ring, op, (struct ring_completion){.result = size, .more = more, .has_buffer = true, .buffer = buffer});
}

/* All parts of it in one piece. */
static void try_sendmsg(struct ring *ring, struct sim_op *op)
{
    uint8_t data[2 * SIM_DATAGRAM_MAX];
    struct net_address to = {.size = op->message->msg_namelen};
    size_t size = 0;
    memcpy(&to.storage, op->message->msg_name, to.size);
    for (size_t i = 0; i < op->message->msg_iovlen; i++) {
        const struct iovec *part = &op->message->msg_iov[i];
        assert(part->iov_len <= sizeof data - size);
        memcpy(data + size, part->iov_base, part->iov_len);
        size += part->iov_len;
    }
    if (sim_chance(sim_chances_now.transfer)) {
        sim_post_result(ring, op, -ENOMEM);
        return;
    }
    if (sim_ops->on_datagram) sim_ops->on_datagram(sim_world, &sim_file_raw(op->fd)->local, &to, data, size);
    sim_post_result(ring, op, (int32_t)size);
}

static void sim_try(struct ring *ring, struct sim_op *op, bool now)
{
    switch (op->kind) {
    case OP_ACCEPT: try_accept(ring, op); return;
    case OP_RECV: try_recv(ring, op); return;
    case OP_RECV_GROUP:
    case OP_RECV_GROUP_ONCE: try_recv_group(ring, op); return;
    case OP_SEND: try_send(ring, op); return;
    case OP_CONNECT: try_connect(ring, op, now); return;
    case OP_POLL: try_poll(ring, op); return;
    case OP_RECVMSG: try_recvmsg(ring, op); return;
    case OP_SENDMSG: try_sendmsg(ring, op); return;
    default: assert(0 && "an operation that does not wait");
    }
}

/* --- submitting --- */

static void sim_cancel(struct ring *ring, struct sim_op *op)
{
    if (!op->live || op->cancelled) return;
    if (sim_chance(sim_chances_now.cancel_loses)) sim_try(ring, op, true);
    if (op->live) op->cancelled = true; /* the descriptor may be closed from now on */
}

static void sim_cancel_all(struct ring *ring, const struct sim_op *cancel)
{
    for (unsigned i = 0; i < ring->top; i++) {
        struct sim_op *op = &ring->ops[i];
        if (op->kind == OP_FREE || op->kind >= OP_CLOSE) continue;
        bool meant =
            cancel->kind == OP_CANCEL ? ring_pack_tag(op->tag) == ring_pack_tag(cancel->tag) : op->fd == cancel->fd;
        if (meant) sim_cancel(ring, op);
    }
}

static void sim_start_connect(struct sim_op *op)
{
    struct net_address to = {.size = op->address_size};
    assert(op->address_size <= sizeof to.storage);
    if (sum_of((const uint8_t *)op->address, op->address_size) != op->sum)
        sim_fail("the address of a connect was changed before it was submitted: slot %u", op->tag.slot);
    memcpy(&to.storage, op->address, op->address_size);
    sim_ops->on_connect(sim_world, &to, &op->verdict);
    op->due_us = sim_clock_us + op->verdict.delay_us;
}

void sim_wake(struct ring *ring, struct ring_tag tag)
{
    assert(ring->posted < SIM_QUEUE_MAX);
    ring->postings[(ring->posted_head + ring->posted++) % SIM_QUEUE_MAX] =
        (struct sim_posted){.completion = {.tag = tag}};
}

static void sim_start(struct ring *ring, struct sim_op *op)
{
    switch (op->kind) {
    case OP_CLOSE: sim_file_close(op->fd); break;
    case OP_CANCEL:
    case OP_CANCEL_FD: sim_cancel_all(ring, op); break;
    case OP_WAKE: sim_wake(op->target, op->tag); break;
    case OP_CONNECT: sim_start_connect(op); /* fall through */
    default: op->live = true; return;
    }
    op->kind = OP_FREE;
}

static void sim_submit(struct ring *ring)
{
    unsigned queued = ring->queued;
    ring->queued = 0;
    for (unsigned i = 0; i < queued; i++) sim_start(ring, ring->queue[i]);
}

/* --- waiting --- */

static void sim_end_cancelled(struct ring *ring, struct sim_op *op)
{
    sim_post_result(ring, op, op->kind == OP_SEND && op->done > 0 ? (int32_t)op->done : -ECANCELED);
}

/* Tries every live operation once, from a random one on. True if one is ready but was put off, or
 * moves on. */
static bool sim_try_all(struct ring *ring)
{
    if (ring->top == 0) return false;
    bool waiting = false;
    ring->moving = false;
    unsigned start = sim_below(ring->top);
    for (unsigned n = 0; n < ring->top; n++) {
        struct sim_op *op = &ring->ops[(start + n) % ring->top];
        if (op->kind == OP_FREE || !op->live) continue;
        if (sim_chance(sim_chances_now.delay))
            waiting = true;
        else if (op->cancelled)
            sim_end_cancelled(ring, op);
        else
            sim_try(ring, op, false);
        if (ring->posted >= SIM_QUEUE_MAX / 2) return true;
    }
    return waiting || ring->moving;
}

static uint64_t sim_next_connect_us(const struct ring *ring, uint64_t until_us)
{
    for (unsigned i = 0; i < ring->top; i++) {
        const struct sim_op *op = &ring->ops[i];
        if (op->kind == OP_CONNECT && op->live && !op->verdict.never && op->due_us < until_us) until_us = op->due_us;
    }
    return until_us;
}

/* Something moves in every round, or the clock jumps to the next moment at which something may. */
static void sim_pass_time(struct ring *ring, uint64_t deadline_us)
{
    while (ring->posted == 0) {
        uint64_t wake_us = UINT64_MAX;
        bool moved = sim_ops->act(sim_world, &wake_us);
        bool waiting = sim_try_all(ring);
        if (ring->posted > 0 || sim_clock_us >= deadline_us) return;
        if (moved || waiting) {
            sim_clock_us += sim_between(1, 200);
            continue;
        }
        uint64_t next_us = sim_next_connect_us(ring, wake_us < deadline_us ? wake_us : deadline_us);
        if (next_us == UINT64_MAX) sim_fail("the worker waits for ever, and so does everybody else");
        if (next_us > sim_clock_us)
            sim_clock_us = next_us;
        else
            sim_clock_us++;
    }
}

int ring_wait_us(struct ring *ring, uint64_t timeout_us)
{
    return ring_wait_many_us(ring, 1, timeout_us);
}

/* Time passes until something happens, whether or not more is waited for: the kernel may return early, too. */
int ring_wait_many_us(struct ring *ring, unsigned count, uint64_t timeout_us)
{
    if (count != 1 && timeout_us == RING_NO_TIMEOUT) sim_fail("ring_wait_many_us() might wait for ever");
    if (!ring->emptied) sim_fail("ring_wait() before ring_next() had handed out everything");
    ring->emptied = false;
    counter_add(&ring->stats.enters, 1);
    counter_add(&ring->stats.submissions, ring->queued);
    sim_submit(ring);
    uint64_t deadline_us = timeout_us >= UINT64_MAX - sim_clock_us ? UINT64_MAX : sim_clock_us + timeout_us;
    sim_pass_time(ring, deadline_us);
    if (timeout_us > 0) sim_clock_us += sim_below(300);
    ring->now_us = sim_clock_us;
    return 0;
}

static void op_end(struct sim_op *op)
{
    if (op->kind == OP_SEND && sum_of_parts(op->parts, op->part_count, 0) != op->sum)
        sim_fail("the memory of a send was changed while it was in flight: operation %u of slot %u", op->tag.op,
                 op->tag.slot);
    if (op->kind == OP_SENDMSG && sum_of_message(op->message) != op->sum)
        sim_fail("the memory of a datagram was changed while it was in flight: operation %u of slot %u", op->tag.op,
                 op->tag.slot);
    op->kind = OP_FREE;
}

bool ring_next(struct ring *ring, struct ring_completion *completion)
{
    ring->emptied = ring->posted == 0;
    if (ring->posted == 0) return false;
    const struct sim_posted *posting = &ring->postings[ring->posted_head % SIM_QUEUE_MAX];
    *completion = posting->completion;
    if (posting->op) op_end(posting->op);
    ring->posted_head = (ring->posted_head + 1) % SIM_QUEUE_MAX;
    ring->posted--;
    counter_add(&ring->stats.completions, 1);
    return true;
}

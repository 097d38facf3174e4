/* core/io/ring on the real kernel: when it takes nothing, in a child whose io_uring_enter(2) a filter makes fail; how
 * much one receive takes; completions that find no room. */
#include "core/io/ring.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int fail_enter(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

/* 0: the ring has said that it is broken. */
static int child(void)
{
    struct ring *ring;
    alarm(20); /* spinning would take for ever */
    if (ring_open(&ring, &(struct ring_options){.entries = 8}) < 0 || fail_enter() < 0) return 77;
    for (uint32_t i = 0; i < 100; i++) ring_poll(ring, 0, POLLIN, (struct ring_tag){.op = 1, .slot = i});
    return ring_wait(ring, 0) < 0 ? 0 : 1;
}

static void test_kernel_takes_nothing(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip(); /* no rings, or no filters, here */
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Octets that one ring_recv_group() takes of a socket that has more than all buffers hold. */
static int32_t receive_group(struct ring *ring, int fd, size_t size)
{
    struct ring_completion c;
    int32_t taken = 0;
    ring_recv_group(ring, fd, 0, size, (struct ring_tag){.op = 1});
    for (bool more = true; more;) {
        assert_int_equal(ring_wait(ring, 1000), 0);
        while (ring_next(ring, &c)) {
            assert_true(c.result > 0);
            taken += c.result;
            more = c.more;
            if (c.has_buffer) ring_group_give(ring, 0, c.buffer);
        }
    }
    return taken;
}

/* What a flow holds is bounded by what its receive may take, whatever the kernel: the socket is not drained. */
static void test_receives_are_bounded(void **state)
{
    enum { SIZE = 4096, COUNT = 16 };
    static uint8_t buffers[SIZE * COUNT], octets[SIZE * COUNT];
    struct ring *ring;
    int fds[2];
    (void)state;
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 8}), 0);
    assert_int_equal(ring_group_open(ring, 0, buffers, SIZE, COUNT), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(write(fds[0], octets, sizeof octets), sizeof octets);
    for (unsigned i = 0; i < 4; i++) assert_in_range(receive_group(ring, fds[1], SIZE), 1, 2 * SIZE - 1);
    close(fds[0]);
    close(fds[1]);
    ring_group_close(ring, 0);
    ring_destroy(ring);
}

enum { PART = 40000 };
static uint8_t pieces[4][PART], arrived[sizeof pieces];

/* The only completion, when it has come: its result. */
static int32_t take_one(struct ring *ring)
{
    struct ring_completion c;
    do assert_int_equal(ring_wait(ring, 1000), 0);
    while (!ring_next(ring, &c));
    int32_t result = c.result;
    assert_false(ring_next(ring, &c));
    return result;
}

/* In order and whole, also when the socket takes them little by little and the peer has ended its direction, so that
 * the kernel polls in vain until it gives the send to a thread; the list itself is free at once. */
static void test_parts_are_one_send(void **state)
{
    struct ring *ring;
    struct iovec parts[4];
    int fds[2], small = 1;
    size_t heard = 0;
    (void)state;
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 8}), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    for (unsigned i = 0; i < 4; i++) {
        for (size_t at = 0; at < PART; at++) pieces[i][at] = (uint8_t)(at * 7 + at / 251 + i);
        parts[i] = (struct iovec){pieces[i], PART};
    }
    assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    unsigned count = ring_send_parts(ring, fds[0], parts, 4, (struct ring_tag){.op = 1});
    assert_true(count == 1 || count == 4); /* a kernel that knows no lists */
    memset(parts, 0, sizeof parts);
    for (unsigned i = 0; i < 300; i++) assert_int_equal(ring_wait(ring, 0), 0);
    for (ssize_t size; heard < count * PART; assert_int_equal(ring_wait(ring, 1), 0))
        if ((size = read(fds[1], arrived + heard, sizeof arrived - heard)) > 0) heard += (size_t)size;
    assert_memory_equal(arrived, pieces, count * PART);
    assert_int_equal(take_one(ring), count * PART);
    close(fds[0]);
    close(fds[1]);
    ring_destroy(ring);
}

/* There is room for some lists in a turn; who gets none is told that one part goes out, and which it is. */
static void test_lists_of_parts_are_few(void **state)
{
    enum { COUNT = 200 };
    struct iovec parts[2] = {{pieces[0], 1}, {pieces[1], 1}};
    struct ring *ring;
    struct ring_completion c;
    unsigned taken[COUNT], whole = 0, came = 0;
    int fds[2];
    (void)state;
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 256}), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    for (unsigned turn = 0; turn < 2; turn++, whole = came = 0) { /* what was taken is free again */
        for (uint32_t i = 0; i < COUNT; i++) {
            taken[i] = ring_send_parts(ring, fds[0], parts, 2, (struct ring_tag){.op = 1, .slot = i});
            whole += taken[i] == 2;
        }
        if (taken[0] > 1) assert_in_range(whole, 1, COUNT - 1); /* else a kernel that knows no lists */
        assert_int_equal(ring_wait(ring, 0), 0);
        for (; ring_next(ring, &c); came++) assert_int_equal(c.result, taken[c.tag.slot]);
        assert_int_equal(came, COUNT);
        assert_int_equal(read(fds[1], arrived, sizeof arrived), COUNT + whole);
    }
    close(fds[0]);
    close(fds[1]);
    ring_destroy(ring);
}

/* Waits once without a time, and takes what has come: how many completions. Each slot comes once. */
static unsigned take_polls(struct ring *ring, bool *came, unsigned count)
{
    struct ring_completion c;
    unsigned taken = 0;
    assert_int_equal(ring_wait(ring, 0), 0);
    for (; ring_next(ring, &c); taken++) {
        assert_int_equal(c.result, POLLOUT);
        assert_in_range(c.tag.slot, 0, count - 1);
        assert_false(came[c.tag.slot]);
        came[c.tag.slot] = true;
    }
    return taken;
}

/* The completion queue is four times the other one. What does not fit waits in the kernel: the wait that finds it so
 * counts, and nothing is lost. */
static void test_more_completions_than_room(void **state)
{
    enum { ENTRIES = 8, ROOM = 4 * ENTRIES, COUNT = ROOM + ENTRIES };
    bool came[COUNT] = {false};
    struct ring *ring;
    int fds[2];
    (void)state;
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = ENTRIES}), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    const struct ring_stats *stats = ring_get_stats(ring);
    for (uint32_t i = 0; i < ROOM; i++) ring_poll(ring, fds[0], POLLOUT, (struct ring_tag){.op = 1, .slot = i});
    assert_int_equal(take_polls(ring, came, COUNT), ROOM);
    assert_int_equal(counter_read(&stats->overflows), 0);
    memset(came, 0, sizeof came);
    for (uint32_t i = 0; i < COUNT; i++) ring_poll(ring, fds[0], POLLOUT, (struct ring_tag){.op = 1, .slot = i});
    assert_int_equal(take_polls(ring, came, COUNT), ROOM);
    assert_int_equal(counter_read(&stats->overflows), 1);
    assert_int_equal(take_polls(ring, came, COUNT), COUNT - ROOM);
    assert_int_equal(counter_read(&stats->overflows), 1);
    assert_int_equal(take_polls(ring, came, COUNT), 0);
    close(fds[0]);
    close(fds[1]);
    ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_takes_nothing),       cmocka_unit_test(test_receives_are_bounded),
        cmocka_unit_test(test_parts_are_one_send),         cmocka_unit_test(test_lists_of_parts_are_few),
        cmocka_unit_test(test_more_completions_than_room),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}

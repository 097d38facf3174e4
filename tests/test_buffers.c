/* Receive buffers: leases, lists, the reserve behind the kernel's ring; with a real ring and a socket pair, so that it
 * is the kernel that takes the buffers. And the pool of pipes, which is the other thing that flows borrow. */
#include "core/io/buffers.h"
#include "core/io/pipes.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUP 0u
#define SIZE  4096u

struct bench {
    struct ring *ring;
    struct buffers buffers;
    int far, near;
};

static void bench_open(struct bench *b, uint32_t count, uint32_t lent)
{
    int fds[2];
    assert_int_equal(ring_open(&b->ring, &(struct ring_options){.entries = 64}), 0);
    assert_int_equal(buffers_open(&b->buffers, b->ring, GROUP, count, lent, SIZE), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    b->far = fds[0];
    b->near = fds[1];
}

static void bench_close(struct bench *b)
{
    close(b->far);
    close(b->near);
    buffers_close(&b->buffers);
    ring_destroy(b->ring);
}

/* Sends one octet and receives it into a buffer of the group. The completion. */
static struct ring_completion bench_receive(struct bench *b, char octet)
{
    struct ring_completion c = {.result = 0};
    assert_int_equal(write(b->far, &octet, 1), 1);
    ring_recv_group_once(b->ring, b->near, GROUP, SIZE, (struct ring_tag){.op = 1});
    while (!ring_next(b->ring, &c)) assert_int_equal(ring_wait(b->ring, 1000), 0);
    struct ring_completion none;
    while (ring_next(b->ring, &none)) fail_msg("one receive, two completions");
    return c;
}

/* Every buffer is in exactly one place. */
static void check_sum(const struct buffers *buffers)
{
    assert_int_equal(buffers->leased + buffers->lent + buffers->spare_count, buffers->count);
}

static void test_list_is_first_in_first_out(void **state)
{
    struct bench b;
    struct buffer_list list = BUFFER_LIST_EMPTY;
    (void)state;
    bench_open(&b, 8, 8);
    for (int octet = 'a'; octet <= 'e'; octet++) {
        struct ring_completion c = bench_receive(&b, (char)octet);
        assert_true(c.has_buffer);
        assert_int_equal(c.result, 1);
        buffers_append(&b.buffers, &list, c.buffer, 1);
        check_sum(&b.buffers);
    }
    assert_int_equal(list.count, 5);
    assert_int_equal(b.buffers.leased, 5);
    for (int octet = 'a'; octet <= 'e'; octet++) {
        assert_int_equal(*buffers_at(&b.buffers, list.first), octet);
        assert_int_equal(b.buffers.filled[list.first], 1);
        buffers_drop_first(&b.buffers, &list);
        check_sum(&b.buffers);
    }
    assert_int_equal(list.count, 0);
    assert_int_equal(list.last, BUFFERS_NONE);
    bench_close(&b);
}

static void test_empty_group_says_enobufs_and_recovers(void **state)
{
    struct bench b;
    struct buffer_list list = BUFFER_LIST_EMPTY;
    (void)state;
    bench_open(&b, 4, 4);
    for (int i = 0; i < 4; i++) buffers_append(&b.buffers, &list, bench_receive(&b, 'x').buffer, 1);
    assert_false(buffers_are_plenty(&b.buffers));
    assert_int_equal(bench_receive(&b, 'y').result, -ENOBUFS);
    buffers_drop_all(&b.buffers, &list);
    assert_true(buffers_are_plenty(&b.buffers));
    ring_recv_group_once(b.ring, b.near, GROUP, SIZE, (struct ring_tag){.op = 1});
    struct ring_completion c;
    while (!ring_next(b.ring, &c)) assert_int_equal(ring_wait(b.ring, 1000), 0);
    assert_int_equal(c.result, 1);
    assert_int_equal(*buffers_at(&b.buffers, c.buffer), 'y'); /* nothing was lost meanwhile */
    bench_close(&b);
}

static void test_reserve_replaces_what_is_leased(void **state)
{
    struct bench b;
    struct buffer_list list = BUFFER_LIST_EMPTY;
    (void)state;
    bench_open(&b, 2048, 1024);
    uint32_t lent = b.buffers.lent;
    assert_true(lent < 2048);
    assert_int_equal(b.buffers.spare_count, 2048 - lent);
    for (int i = 0; i < 100; i++) {
        buffers_append(&b.buffers, &list, bench_receive(&b, 'x').buffer, 1);
        assert_int_equal(b.buffers.lent, lent); /* the kernel never notices */
        check_sum(&b.buffers);
    }
    buffers_drop_all(&b.buffers, &list);
    assert_int_equal(b.buffers.leased, 0);
    assert_int_equal(b.buffers.lent, lent);
    check_sum(&b.buffers);
    bench_close(&b);
}

static void test_buffer_that_nobody_wants_goes_back(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b, 4, 4);
    for (int i = 0; i < 100; i++) {
        struct ring_completion c = bench_receive(&b, 'x');
        assert_int_equal(c.result, 1);
        buffers_return(&b.buffers, c.buffer);
        check_sum(&b.buffers);
    }
    bench_close(&b);
}

/* Octets that no receive brought are held in spare buffers alone, in order with the others, and the kernel keeps its
 * own. */
static void test_copies_take_spare_buffers(void **state)
{
    struct bench b;
    struct buffer_list list = BUFFER_LIST_EMPTY;
    static uint8_t octets[2 * SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof octets; i++) octets[i] = (uint8_t)(i * 7 + i / SIZE);
    bench_open(&b, 8, 4);
    buffers_append(&b.buffers, &list, bench_receive(&b, 'x').buffer, 1);
    assert_int_equal(b.buffers.spare_count, 3);
    assert_int_equal(buffers_copy(&b.buffers, &list, octets, sizeof octets), SIZE);
    assert_int_equal(buffers_copy(&b.buffers, &list, octets + SIZE, 5), 5);
    check_sum(&b.buffers);
    assert_int_equal(list.count, 3);
    assert_int_equal(buffers_copy(&b.buffers, &list, octets, 1), 1);
    assert_int_equal(buffers_copy(&b.buffers, &list, octets, 1), 0); /* none is spare */
    check_sum(&b.buffers);
    assert_int_equal(b.buffers.leased, 4);
    assert_int_equal(b.buffers.lent, 4);
    buffers_drop_first(&b.buffers, &list);
    assert_int_equal(b.buffers.filled[list.first], SIZE);
    assert_memory_equal(buffers_at(&b.buffers, list.first), octets, SIZE);
    buffers_drop_first(&b.buffers, &list);
    assert_int_equal(b.buffers.filled[list.first], 5);
    assert_memory_equal(buffers_at(&b.buffers, list.first), octets + SIZE, 5);
    buffers_drop_all(&b.buffers, &list);
    assert_int_equal(b.buffers.leased, 0);
    check_sum(&b.buffers);
    bench_close(&b);
}

static void test_pipes_are_a_budget(void **state)
{
    struct pipes pipes;
    uint16_t lent[3];
    (void)state;
    pipes_open(&pipes, 3, 65536);
    for (int i = 0; i < 3; i++) {
        lent[i] = pipes_borrow(&pipes);
        assert_int_not_equal(lent[i], PIPES_NONE);
        for (int j = 0; j < i; j++) assert_int_not_equal(lent[i], lent[j]);
        assert_true(pipes.all[lent[i]].size >= 65536);
    }
    assert_int_equal(pipes_lent(&pipes), 3);
    assert_int_equal(pipes_borrow(&pipes), PIPES_NONE);
    pipes_give(&pipes, lent[1]);
    assert_int_equal(pipes_borrow(&pipes), lent[1]);
    int read_fd = pipes.all[lent[0]].read_fd;
    assert_int_equal(write(pipes.all[lent[0]].write_fd, "left", 4), 4);
    pipes_destroy(&pipes, lent[0]); /* what is left in it must not reach the next borrower */
    char octet;
    assert_int_equal(read(read_fd, &octet, 1), -1);
    uint16_t again = pipes_borrow(&pipes);
    assert_int_equal(read(pipes.all[again].read_fd, &octet, 1), -1);
    assert_int_equal(errno, EAGAIN);
    pipes_close(&pipes);
}

/* What was held at the same time once is not resident for ever: the spare ones that nobody needs are given back. */
static void test_memory_of_a_burst_is_given_back(void **state)
{
    struct bench b;
    struct buffer_list list = BUFFER_LIST_EMPTY;
    static unsigned char pages[1024];
    size_t count = 0;
    (void)state;
    bench_open(&b, 1024, 16);
    for (unsigned i = 0; i < 1000; i++) {
        struct ring_completion c = bench_receive(&b, 'x');
        buffers_append(&b.buffers, &list, c.buffer, (uint32_t)c.result);
    }
    buffers_drop_all(&b.buffers, &list);
    assert_false(buffers_are_trimmed(&b.buffers));
    for (unsigned i = 0; i < 20; i++) buffers_trim(&b.buffers);
    assert_true(buffers_are_trimmed(&b.buffers));
    assert_int_equal(mincore(b.buffers.base, 1024 * SIZE, pages), 0);
    for (unsigned i = 0; i < 1024; i++) count += pages[i] & 1;
    assert_true(count <= 16); /* those of the kernel */
    bench_close(&b);
}

/* Those that were made while the process had its privileges are never given up. */
static void test_pipes_made_ahead(void **state)
{
    struct pipes pipes;
    struct pipe made[2];
    uint8_t octet;
    (void)state;
    assert_int_equal(pipes_make_ahead(made, 2, 65536), 2);
    pipes_open_with(&pipes, 3, 65536, made, 2);
    uint16_t first = pipes_borrow(&pipes);
    assert_int_equal(pipes.all[first].read_fd, made[first].read_fd);
    assert_int_equal(write(pipes.all[first].write_fd, "left", 4), 4);
    pipes_destroy(&pipes, first);
    assert_int_equal(pipes_borrow(&pipes), first);
    assert_int_equal(pipes.all[first].read_fd, made[first].read_fd);
    assert_int_equal(read(pipes.all[first].read_fd, &octet, 1), -1); /* emptied */
    assert_int_equal(errno, EAGAIN);
    uint16_t second = pipes_borrow(&pipes), third = pipes_borrow(&pipes);
    assert_int_equal(pipes.all[second].read_fd, made[second].read_fd);
    assert_true(pipes.all[third].read_fd != made[0].read_fd && pipes.all[third].read_fd != made[1].read_fd);
    assert_int_equal(pipes_borrow(&pipes), PIPES_NONE);
    pipes_close(&pipes);
    assert_int_equal(fcntl(made[0].read_fd, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_is_first_in_first_out),
        cmocka_unit_test(test_empty_group_says_enobufs_and_recovers),
        cmocka_unit_test(test_reserve_replaces_what_is_leased),
        cmocka_unit_test(test_buffer_that_nobody_wants_goes_back),
        cmocka_unit_test(test_copies_take_spare_buffers),
        cmocka_unit_test(test_pipes_are_a_budget),
        cmocka_unit_test(test_pipes_made_ahead),
        cmocka_unit_test(test_memory_of_a_burst_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Records between two threads: in order, each in one piece, none twice; full is an answer. */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>

#include "core/io/record_ring.h"
#include "tests/support.h"

#define SIZE    4096u
#define RECORDS 200000u

static struct record_ring *ring;

static int set_up(void **state)
{
    (void)state;
    return record_ring_open(&ring, SIZE);
}

static int tear_down(void **state)
{
    (void)state;
    record_ring_close(ring);
    return 0;
}

/* Of any size that is allowed, with its number in each octet but the first four. */
static uint32_t size_of(uint32_t number)
{
    return 4u + number * 2654435761u % (SIZE / 4 - 3u);
}

static bool send_record(uint32_t number)
{
    uint8_t *at = record_ring_reserve(ring, size_of(number));
    if (!at) return false;
    memcpy(at, &number, sizeof number);
    memset(at + 4, (int)(number & 0xffu), size_of(number) - 4);
    record_ring_commit(ring);
    return true;
}

static bool take_record(uint32_t wanted)
{
    const uint8_t *at = record_ring_peek(ring);
    uint32_t number;
    if (!at) return false;
    assert_int_equal((uintptr_t)at % 16, 0);
    memcpy(&number, at, sizeof number);
    assert_int_equal(number, wanted);
    for (uint32_t i = 4; i < size_of(number); i++) assert_int_equal(at[i], number & 0xffu);
    assert_ptr_equal(record_ring_peek(ring), at); /* it stays until it is given back */
    record_ring_pop(ring);
    return true;
}

static void test_empty_and_full(void **state)
{
    (void)state;
    assert_null(record_ring_peek(ring));
    uint32_t sent = 0, taken = 0;
    while (send_record(sent)) sent++;
    assert_true(sent >= 3);
    assert_false(send_record(sent)); /* nothing has changed by the refusal */
    while (take_record(taken)) taken++;
    assert_int_equal(taken, sent);
    assert_true(send_record(sent));
    assert_true(take_record(sent));
}

/* One at a time through all offsets: the gap at the end is skipped. */
static void test_wraps(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5000; i++) {
        assert_true(send_record(i));
        assert_true(take_record(i));
        assert_null(record_ring_peek(ring));
    }
}

static void *write_all(void *unused)
{
    for (uint32_t i = 0; i < RECORDS;)
        if (send_record(i))
            i++;
        else
            sched_yield();
    return unused;
}

static void test_two_threads(void **state)
{
    pthread_t writer;
    (void)state;
    assert_int_equal(pthread_create(&writer, NULL, write_all, NULL), 0);
    for (uint32_t i = 0; i < RECORDS;)
        if (take_record(i))
            i++;
        else
            sched_yield();
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_null(record_ring_peek(ring));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_empty_and_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wraps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_threads, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

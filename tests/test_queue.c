/* core/io/queue: full and empty edges, wrap of the counters, and two threads that send millions of messages, sleeping
 * as a worker and the coordinator do. Run under ThreadSanitizer as well. */
#include "core/io/queue.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/support.h"

/* Of each thread. A busy machine switches threads so seldom that it takes minutes for all of them: it ends with fewer.
 */
#define MESSAGES     (SUPPORT_SANITIZED ? 200000u : 2000000u)
#define MESSAGES_MIN 20000u
#define ENOUGH_MS    5000u

static void test_edges(void **state)
{
    (void)state;
    for (uint32_t capacity = 1; capacity <= 64; capacity *= 2) {
        struct queue *queue;
        struct message message = {0};
        assert_int_equal(queue_open(&queue, capacity), 0);
        assert_false(queue_pop(queue, &message));
        for (uint32_t round = 0; round < 5; round++) {
            for (uint32_t i = 0; i < capacity; i++) {
                assert_int_equal(queue_depth(queue), i);
                message = (struct message){.kind = round, .slot = i, .generation = i * 3, .result = -(int32_t)i};
                message.body = &message;
                assert_true(queue_push(queue, &message));
            }
            assert_false(queue_push(queue, &message));
            assert_int_equal(queue_depth(queue), capacity);
            for (uint32_t i = 0; i < capacity; i++) {
                struct message got;
                assert_true(queue_pop(queue, &got));
                assert_int_equal(got.kind, round);
                assert_int_equal(got.slot, i);
                assert_int_equal(got.generation, i * 3);
                assert_int_equal(got.result, -(int32_t)i);
                assert_ptr_equal(got.body, &message);
            }
            assert_false(queue_pop(queue, &message));
        }
        queue_close(queue);
    }
}

static void test_interleaved(void **state)
{
    (void)state;
    struct queue *queue;
    uint32_t pushed = 0, popped = 0;
    assert_int_equal(queue_open(&queue, 4), 0);
    for (uint32_t round = 0; round < 1000; round++) {
        for (uint32_t i = 0; i < round % 6; i++) {
            struct message message = {.slot = pushed};
            bool room = pushed - popped < 4;
            assert_int_equal(queue_push(queue, &message), room);
            if (room) pushed++;
        }
        for (uint32_t i = 0; i < round % 5; i++) {
            struct message message;
            bool there = pushed != popped;
            assert_int_equal(queue_pop(queue, &message), there);
            if (there) assert_int_equal(message.slot, popped++);
        }
        assert_int_equal(queue_depth(queue), pushed - popped);
    }
    queue_close(queue);
}

static void test_sleeper(void **state)
{
    (void)state;
    struct sleeper sleeper = {0};
    assert_false(sleeper_must_wake(&sleeper));
    sleeper_announce(&sleeper);
    assert_true(sleeper_must_wake(&sleeper));
    assert_false(sleeper_must_wake(&sleeper)); /* once per sleep */
    sleeper_announce(&sleeper);
    sleeper_awake(&sleeper);
    assert_false(sleeper_must_wake(&sleeper));
}

/* Two producers with a queue each and one consumer; an eventfd stands in for ring_wake(). The bodies are checked, so
 * that a message that overtakes its memory is seen (and reported by ThreadSanitizer). */
struct line {
    struct queue *queue;
    struct sleeper *sleeper;
    int bell;
    uint32_t pause_every;
    uint32_t wakes;
    _Atomic uint32_t produced; /* 0: not known yet */
    uint64_t numbers[256];
};

static void wake(struct line *line)
{
    if (!sleeper_must_wake(line->sleeper)) return;
    line->wakes++;
    eventfd_write(line->bell, 1);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void *produce(void *argument)
{
    struct line *line = argument;
    uint64_t begin = now_ms();
    uint32_t i = 0;
    for (; i < MESSAGES && (i < MESSAGES_MIN || i % 1024 != 0 || now_ms() - begin < ENOUGH_MS); i++) {
        /* The queue holds 64 and the consumer reads a body before it pops the next one: 256 bodies never collide. */
        uint64_t *number = &line->numbers[i % 256];
        *number = (uint64_t)i * 7;
        struct message message = {.slot = i, .body = number};
        while (!queue_push(line->queue, &message)) sched_yield();
        wake(line);
        if (line->pause_every != 0 && i % line->pause_every == 0) sched_yield();
    }
    atomic_store_explicit(&line->produced, i, memory_order_release);
    wake(line);
    return NULL;
}

static bool is_done(const struct line *line, uint32_t next)
{
    return atomic_load_explicit(&line->produced, memory_order_acquire) == next && next > 0;
}

static uint32_t drain(struct line *line, uint32_t *next)
{
    struct message message;
    uint32_t got = 0;
    while (queue_pop(line->queue, &message)) {
        assert_int_equal(message.slot, *next);
        assert_true(*(const uint64_t *)message.body == (uint64_t)*next * 7);
        (*next)++;
        got++;
    }
    return got;
}

static void test_threads(void **state)
{
    (void)state;
    struct sleeper sleeper = {0};
    struct line lines[2];
    uint32_t next[2] = {0, 0};
    pthread_t threads[2];
    uint32_t sleeps = 0;
    int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(bell >= 0);
    for (int i = 0; i < 2; i++) {
        lines[i] = (struct line){.sleeper = &sleeper, .bell = bell, .pause_every = i == 0 ? 0 : 16};
        assert_int_equal(queue_open(&lines[i].queue, 64), 0);
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &lines[i]), 0);
    }
    while (!is_done(&lines[0], next[0]) || !is_done(&lines[1], next[1])) {
        if (drain(&lines[0], &next[0]) + drain(&lines[1], &next[1]) > 0) continue;
        sleeper_announce(&sleeper);
        bool idle = drain(&lines[0], &next[0]) + drain(&lines[1], &next[1]) == 0;
        if (idle && (!is_done(&lines[0], next[0]) || !is_done(&lines[1], next[1]))) {
            /* A lost wake shows as a sleep without end. */
            assert_int_equal(poll(&(struct pollfd){.fd = bell, .events = POLLIN}, 1, 20000), 1);
            sleeps++;
        }
        sleeper_awake(&sleeper);
        eventfd_t count;
        eventfd_read(bell, &count);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(queue_depth(lines[i].queue), 0);
        queue_close(lines[i].queue);
    }
    assert_true(lines[0].wakes + lines[1].wakes >= sleeps);
    close(bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_sleeper),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}

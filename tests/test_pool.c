/* core/io/pool: order, generations, exhaustion, residency, and the assertion against a second give. */
#include "core/io/pool.h"
#include "core/io/ring.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_takes_each_slot_once(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 5, 100), 0);
    assert_int_equal(pool.slot_size, 128);
    bool seen[5] = {false};
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t slot = pool_take(&pool);
        assert_true(slot < 5);
        assert_false(seen[slot]);
        seen[slot] = true;
        assert_true(pool_is_taken(&pool, slot));
        assert_int_equal((uintptr_t)pool_at(&pool, slot) % 64, 0);
        memset(pool_at(&pool, slot), (int)slot + 1, 100);
    }
    assert_int_equal(pool_take(&pool), POOL_NONE);
    assert_int_equal(pool_take(&pool), POOL_NONE);
    assert_int_equal(pool.used, 5);
    for (uint32_t slot = 0; slot < 5; slot++) {
        const uint8_t *octets = pool_at(&pool, slot);
        for (uint32_t i = 0; i < 100; i++) assert_int_equal(octets[i], slot + 1);
    }
    pool_close(&pool);
}

static void test_last_in_first_out(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 8, 64), 0);
    uint32_t a = pool_take(&pool);
    uint32_t b = pool_take(&pool);
    uint32_t c = pool_take(&pool);
    pool_give(&pool, a);
    pool_give(&pool, c);
    assert_false(pool_is_taken(&pool, a));
    assert_true(pool_is_taken(&pool, b));
    assert_int_equal(pool_take(&pool), c);
    assert_int_equal(pool_take(&pool), a);
    assert_int_equal(pool.untouched, 3);
    assert_int_equal(pool.used_peak, 3);
    pool_close(&pool);
}

static void test_generation_grows_and_wraps(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 2, 1), 0);
    uint32_t slot = pool_take(&pool);
    assert_int_equal(pool_generation(&pool, slot), 0);
    pool_give(&pool, slot);
    assert_int_equal(pool_generation(&pool, slot), 1);
    pool.generations[slot] = RING_GENERATION_MAX - 1;
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pool_take(&pool), slot);
        assert_int_equal(pool_generation(&pool, slot), (RING_GENERATION_MAX - 1 + i) & RING_GENERATION_MAX);
        pool_give(&pool, slot);
    }
    pool_close(&pool);
}

static void test_contents_survive(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 2, 64), 0);
    uint32_t slot = pool_take(&pool);
    const uint8_t *octets = pool_at(&pool, slot);
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(octets[i], 0);
    memset(pool_at(&pool, slot), 0xa5, 64);
    pool_give(&pool, slot);
    assert_int_equal(pool_take(&pool), slot);
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(octets[i], 0xa5);
    pool_close(&pool);
}

/* Random takes and gives against a plain array of flags. */
static void test_against_model(void **state)
{
    (void)state;
    enum { COUNT = 37 };
    struct pool pool;
    bool taken[COUNT] = {false};
    uint32_t generations[COUNT] = {0};
    uint32_t used = 0;
    assert_int_equal(pool_open(&pool, COUNT, 8), 0);
    srandom(1);
    for (int round = 0; round < 200000; round++) {
        uint32_t slot = (uint32_t)random() % COUNT;
        if (taken[slot]) {
            pool_give(&pool, slot);
            taken[slot] = false;
            generations[slot]++;
            used--;
        } else {
            uint32_t got = pool_take(&pool);
            assert_true(got < COUNT);
            assert_false(taken[got]);
            taken[got] = true;
            used++;
        }
        assert_int_equal(pool.used, used);
        assert_int_equal(pool_is_taken(&pool, slot), taken[slot]);
        assert_int_equal(pool_generation(&pool, slot), generations[slot]);
    }
    pool_close(&pool);
}

static size_t resident_pages(const void *memory, size_t size)
{
    size_t pages = (size + 4095) / 4096;
    unsigned char *map = malloc(pages);
    assert_int_equal(mincore((void *)(uintptr_t)memory, size, map), 0);
    size_t resident = 0;
    for (size_t i = 0; i < pages; i++) resident += map[i] & 1u;
    free(map);
    return resident;
}

static void test_untouched_is_not_resident(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 65536, 4096), 0);
    size_t size = (size_t)65536 * 4096;
    assert_int_equal(resident_pages(pool.slots, size), 0);
    for (int i = 0; i < 1000; i++) {
        uint32_t slot = pool_take(&pool);
        memset(pool_at(&pool, slot), 1, 4096);
        pool_give(&pool, slot);
    }
    assert_in_range(resident_pages(pool.slots, size), 1, 512); /* one slot; 2 MiB if the kernel gives huge pages */
    pool_close(&pool);
}

static void test_too_large(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, UINT32_MAX - 2, UINT32_MAX / 2), -ENOMEM);
    assert_null(pool.slots);
    pool_close(&pool); /* harmless after a failure */
}

/* Runs `give` in a child: true if an assertion ended it. */
static bool aborts(void (*give)(struct pool *), struct pool *pool)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        give(pool);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void give_twice(struct pool *pool)
{
    pool_give(pool, 0);
    pool_give(pool, 0);
}

static void give_once(struct pool *pool)
{
    pool_give(pool, 0);
}

static void give_untouched(struct pool *pool)
{
    pool_give(pool, 1);
}

static void give_outside(struct pool *pool)
{
    pool_give(pool, 2);
}

static void test_give_asserts(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 2, 64), 0);
    assert_int_equal(pool_take(&pool), 0);
    assert_false(aborts(give_once, &pool));
    assert_true(aborts(give_twice, &pool));
    assert_true(aborts(give_untouched, &pool));
    assert_true(aborts(give_outside, &pool));
    pool_close(&pool);
}

/* Where huge pages are `always` one slot would bring 2 MiB along. */
static void test_no_huge_pages(void **state)
{
    (void)state;
    struct pool pool;
    char line[512], flags[512] = "";
    unsigned long first, end;
    bool ours = false;
    assert_int_equal(pool_open(&pool, 4096, 1024), 0);
    FILE *smaps = fopen("/proc/self/smaps", "re");
    assert_non_null(smaps);
    while (fgets(line, sizeof line, smaps)) {
        uintptr_t at = (uintptr_t)pool.slots;
        if (sscanf(line, "%lx-%lx ", &first, &end) == 2) ours = first <= at && at < end;
        if (ours && strncmp(line, "VmFlags:", 8) == 0) memcpy(flags, line, sizeof flags);
    }
    fclose(smaps);
    assert_true(flags[0] != '\0');
    assert_non_null(strstr(flags, " nh"));
    pool_close(&pool);
}

/* Octets of a pool's slots that are resident. */
static size_t resident(const struct pool *pool)
{
    static unsigned char pages[4096];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (size_t)pool->slot_size * pool->count, count = 0;
    assert_true(size / page <= sizeof pages);
    assert_int_equal(mincore(pool->slots, size, pages), 0);
    for (size_t i = 0; i < size / page; i++) count += pages[i] & 1;
    return count * page;
}

/* One session that stays must not keep the memory of all those that have gone. */
static void test_memory_of_a_burst_is_given_back(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 4096, 1024), 0);
    for (uint32_t i = 0; i < 4096; i++) memset(pool_at(&pool, pool_take(&pool)), 1, 1024);
    assert_int_equal(resident(&pool), 4096 * 1024);
    for (uint32_t slot = 0; slot < 4096; slot++) {
        if (slot % 400 == 7) continue;
        pool_give(&pool, slot);
        pool_trim(&pool);
    }
    assert_true(resident(&pool) <= 1024 * 1024 + 4096);
    for (uint32_t slot = 7; slot < 4096; slot += 400) assert_int_equal(*(uint8_t *)pool_at(&pool, slot), 1);
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_each_slot_once),
        cmocka_unit_test(test_last_in_first_out),
        cmocka_unit_test(test_generation_grows_and_wraps),
        cmocka_unit_test(test_contents_survive),
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_untouched_is_not_resident),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_give_asserts),
        cmocka_unit_test(test_no_huge_pages),
        cmocka_unit_test(test_memory_of_a_burst_is_given_back),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}

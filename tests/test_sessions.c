/* Whole sessions on the simulated ring: fixed seeds, and a fresh range that is printed. SIM_SEED=n runs that one alone,
 * with everything that happens in it. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim_world.h"
#include "tests/support.h"

#define FIXED_COUNT (SUPPORT_SANITIZED ? 2000u : 5000u)
#define FRESH_COUNT (SUPPORT_SANITIZED ? 500u : 1000u)

static uint64_t running;

/* Assertions of the product know no seed. */
static void on_abort(int number)
{
    char text[64];
    int size = snprintf(text, sizeof text, "stopped at seed %" PRIu64 ": SIM_SEED=%" PRIu64 "\n", running, running);
    (void)number;
    if (write(STDERR_FILENO, text, (size_t)size) != size) _exit(2);
    signal(SIGABRT, SIG_DFL);
    abort();
}

static void run_range(uint64_t first, uint64_t count)
{
    for (running = first; running < first + count; running++) sim_world_run(running, NULL, 0);
}

static void test_fixed_seeds(void **state)
{
    (void)state;
    run_range(1, FIXED_COUNT);
}

static void test_fresh_seeds(void **state)
{
    uint64_t first = (uint64_t)time(NULL) * 1000;
    (void)state;
    print_message("%u fresh seeds from %" PRIu64 " on\n", FRESH_COUNT, first);
    run_range(first, FRESH_COUNT);
}

/* The same seed runs the same way, to the last decision: else a failure could not be looked at again. */
static void test_seeds_reproduce(void **state)
{
    (void)state;
    for (running = 1; running <= 100; running++) {
        uint64_t once = sim_world_run(running, NULL, 0);
        assert_true(once == sim_world_run(running, NULL, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_reproduce),
        cmocka_unit_test(test_fixed_seeds),
        cmocka_unit_test(test_fresh_seeds),
    };
    const char *seed = getenv("SIM_SEED");
    signal(SIGABRT, on_abort);
    if (!seed) return cmocka_run_group_tests(tests, NULL, NULL);
    setenv("SIM_TRACE", "1", 1);
    run_range(strtoull(seed, NULL, 10), 1);
    return 0;
}

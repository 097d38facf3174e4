/* No call of a script lasts much longer than its time budget, whatever it calls, and what it may do to the process. */
#include <sys/stat.h>
#include <time.h>

#include "engine_asked.h"

/* Far beyond what any of these takes, and far below what they would take without a bound. */
#define HELD_MS 5000

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int open_limited(void **state)
{
    int error = open_engine(state);
    if (error == 0) engine->limits.budget_ms = 50;
    return error;
}

/* In a folder of its own. The program's limit of time is what fails a test that hangs. */
static void exceeds(const char *code)
{
    uint64_t begin = now_ms();
    raises(code, "time budget");
    if (now_ms() - begin > HELD_MS) fail_msg("%s took %u ms", code, (unsigned)(now_ms() - begin));
    run("assert(true)"); /* the next entry has its own budget */
}

static void test_patterns(void **state)
{
    (void)state;
    exceeds("local name = ('a'):rep(250) name:find('.-.-.-.-.-b')");
    exceeds("string.match(('a'):rep(250), '(a*)(a*)(a*)(a*)(a*)(a*)b')");
    exceeds("for _ in ('a'):rep(250):gmatch('.-.-.-.-.-.-b') do end");
    exceeds("(('a'):rep(250)):gsub('a*a*a*a*a*a*a*b', '')");
    exceeds("local f = coroutine.wrap(function() ('a'):rep(250):find('.-.-.-.-.-b') end) f()");
    exceeds("pcall(string.find, ('a'):rep(250), '.-.-.-.-.-b') while true do end");
}

/* What waits in the kernel is interrupted: the time by the clock counts. */
static void test_waiting(void **state)
{
    char path[] = "/tmp/sluice-fifo-XXXXXX", code[200];
    (void)state;
    close(mkstemp(path));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    /* Again and again: what the thread has waited for a CPU is taken off, so that the first one may be within time. */
    snprintf(code, sizeof code, "while true do io.open('%s') end", path);
    exceeds(code);
    snprintf(code, sizeof code, "local f = io.open('%s', 'r+') while true do f:read(1) end", path);
    exceeds(code);
    snprintf(code, sizeof code, "local f = io.open('%s', 'r+') while true do f:write(('x'):rep(1 << 20)) end", path);
    exceeds(code);
    snprintf(code, sizeof code, "while true do pcall(function() for _ in io.lines('%s') do end end) end", path);
    exceeds(code);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_patterns, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_waiting, open_limited, close_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

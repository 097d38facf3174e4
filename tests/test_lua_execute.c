/* Commands of scripts: how they end, what they inherit, and what becomes of those that nobody waits for any more. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "core/io/log.h"
#include "core/process/config_size.h"
#include "core/process/options.h"
#include "lua/engine/engine.h"
#include "lua/modules/execute.h"
#include "tests/call_answer.h"
#include "tests/support.h"

static struct config config;
static struct coordinator *coordinator;
static struct engine *engine;

static void run(const char *source, const char *expected)
{
    struct answer answer = {0};
    engine_rpcall(engine, source, strlen(source), on_finished, &answer);
    while (!answer.called) assert_int_equal(coordinator_turn(coordinator), 0);
    assert_string_equal(answer.body, expected);
    assert_true(answer.ok);
    assert_true(execute_is_idle());
}

static void test_ends(void **state)
{
    (void)state;
    run("return await.execute('exit 0')", "return true,true,\"exit\",0");
    run("return await.execute('exit 3')", "return true,nil,\"exit\",3");
    run("return await.execute('kill -9 $$')", "return true,nil,\"signal\",9");
    run("return await.execute('kill -PIPE $$')", "return true,nil,\"signal\",13");
    run("return await.execute('/nonexistent 2>/dev/null')", "return true,nil,\"exit\",127");
    run("return await.execute(''), select('#', await.execute('exit 1'))", "return true,true,3");
}

static void test_arguments(void **state)
{
    static const char invoked[] = "await.execute('exit 0')";
    struct engine_text error = {0};
    (void)state;
    run("local ok, m = pcall(await.execute) return ok, (m:find('bad argument #1', 1, true))", "return true,false,1");
    run("local ok, m = pcall(await.execute, {}) return ok, (m:find('string expected, got table', 1, true)) ~= nil",
        "return true,false,true");
    assert_int_equal(engine_invoke(engine, invoked, sizeof invoked - 1, &error), -1);
    assert_non_null(strstr(error.data, "not in asynchronous routine"));
    engine_text_free(&error);
}

static void test_inheritance(void **state)
{
    int extra = fcntl(0, F_DUPFD, 20);
    (void)state;
    assert_true(extra >= 20);
    setenv("SLUICE_TEST", "inherited", 1);
    run("return await.execute('[ \"$SLUICE_TEST\" = inherited ]')", "return true,true,\"exit\",0");
    run("return await.execute('[ -e /proc/$$/fd/2 ]')", "return true,true,\"exit\",0");
    run("return await.execute('[ ! -e /proc/$$/fd/20 ]')", "return true,true,\"exit\",0");
    /* A session of its own, and of the signals none is blocked or ignored, but for the C library's own
     * two. */
    run("return await.execute('read a b c d e session f < /proc/$$/stat; [ $session = $$ ]')",
        "return true,true,\"exit\",0");
    /* Read by the shell itself: while it starts another program it blocks all signals. */
    run("return await.execute('while read -r name mask; do case $name in "
        "SigBlk:) blocked=$mask;; SigIgn:) ignored=$mask;; esac; done < /proc/$$/status; "
        "case $blocked/$ignored in 0000000000000000/0000000[01][08]0000000) ;; *) exit 1;; esac')",
        "return true,true,\"exit\",0");
    close(extra);
}

/* Several at the same time: the first to be asked is the last to end. */
static void test_many(void **state)
{
    struct answer answers[8] = {0};
    char source[64];
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        snprintf(source, sizeof source, "return await.execute('sleep 0.%u; exit %u')", 8 - i, i);
        assert_non_null(engine_rpcall(engine, source, strlen(source), on_finished, &answers[i]));
    }
    assert_false(execute_is_idle());
    while (!execute_is_idle()) assert_int_equal(coordinator_turn(coordinator), 0);
    while (!answers[0].called) assert_int_equal(coordinator_turn(coordinator), 0);
    assert_string_equal(answers[0].body, "return true,true,\"exit\",0");
    for (unsigned i = 1; i < 8; i++) {
        snprintf(source, sizeof source, "return true,nil,\"exit\",%u", i);
        assert_string_equal(answers[i].body, source);
    }
}

/* Gone, or waiting for whoever adopts orphans here. */
static bool is_dead(pid_t pid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) return true;
    bool read = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    return !read || strstr(line, ") Z ") != NULL;
}

/* A script that resumes its own coroutine instead of waiting gets what it hands in, and the command has nobody left. */
static void test_resumed_by_the_script(void **state)
{
    (void)state;
    struct answer answer = {0};
    static const char source[] = "local co = coroutine.create(function() return 'got', await.execute('exit 3') end) "
                                 "coroutine.resume(co) return coroutine.resume(co, 1, 2)";
    engine_rpcall(engine, source, sizeof source - 1, on_finished, &answer);
    while (!answer.called || !execute_is_idle()) assert_int_equal(coordinator_turn(coordinator), 0);
    assert_string_equal(answer.body, "return true,true,\"got\",1,2");
}

/* The whole group is killed with it. */
static void test_abandoned(void **state)
{
    struct answer answer = {0};
    char path[] = "/tmp/sluice-test-XXXXXX", source[256];
    int fd = mkstemp(path), pid = 0, child = 0;
    FILE *f;
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    snprintf(source, sizeof source, "await.execute('sleep 1000 & echo $$ $! . >%s; wait')", path);
    struct engine_job *call = engine_rpcall(engine, source, strlen(source), on_finished, &answer);
    assert_non_null(call);
    for (char dot = 0; dot != '.';) {
        assert_int_equal(coordinator_turn(coordinator), 0);
        f = fopen(path, "re");
        assert_non_null(f);
        if (fscanf(f, "%d %d %c", &pid, &child, &dot) != 3) dot = 0;
        fclose(f);
    }
    assert_false(is_dead(child));
    engine_job_cancel(call);
    while (!execute_is_idle()) assert_int_equal(coordinator_turn(coordinator), 0);
    assert_int_equal(kill(pid, 0), -1); /* reaped */
    for (int i = 0; i < 2000 && !is_dead(child); i++) usleep(10000);
    assert_true(is_dead(child));
    assert_false(answer.called);
    unlink(path);
}

static void test_stop(void **state)
{
    struct answer answer = {0};
    static const char source[] = "return await.execute('sleep 1000')";
    (void)state;
    assert_non_null(engine_rpcall(engine, source, sizeof source - 1, on_finished, &answer));
    execute_stop();
    while (!answer.called) assert_int_equal(coordinator_turn(coordinator), 0);
    assert_string_equal(answer.body, "return true,nil,\"signal\",9");
    assert_true(execute_is_idle());
}

/* No descriptor is left for the pidfd: the child is looked after all the same. */
static void test_no_descriptor(void **state)
{
    struct rlimit limit, low;
    int last = -1, fd;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 128;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (fd = first; fd >= 0; fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) last = fd;
    run("return await.execute('exit 4')", "return true,nil,\"exit\",4");
    for (fd = first; fd <= last; fd++) close(fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static int open_engine(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    log_open(LOG_TO_STDERR, LOG_LEVEL_ERROR);
    config_defaults(&config);
    config.workers = 1;
    config.max_sessions = 64;
    config_size(&config);
    int error = coordinator_open(&coordinator, &config);
    return error < 0 ? error : engine_open(&engine, coordinator);
}

static int close_engine(void **state)
{
    (void)state;
    engine_close(engine);
    coordinator_close(coordinator);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_inheritance),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_resumed_by_the_script),
        cmocka_unit_test(test_abandoned),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_no_descriptor),
    };
    return cmocka_run_group_tests_name("execute", tests, open_engine, close_engine);
}

/* Scripts that use sockets, run with a real coordinator and a worker that relays: for the two programs that test them.
 * Each includes this once. */
#ifndef SLUICE_TESTS_SOCKET_SCRIPTS_H
#define SLUICE_TESTS_SOCKET_SCRIPTS_H

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
#include "tests/call_answer.h"
#include "tests/support.h"

static struct config config;
static struct coordinator *coordinator;
static struct engine *engine;

static void turn(void)
{
    assert_int_equal(coordinator_turn(coordinator), 0);
}

static struct engine_job *start(const char *source, struct answer *answer)
{
    *answer = (struct answer){0};
    return engine_rpcall(engine, source, strlen(source), on_finished, answer);
}

/* The chunk, run in a coroutine, returns what is written as `expected`. */
static void run(const char *source, const char *expected)
{
    struct answer answer;
    start(source, &answer);
    while (!answer.called) turn();
    if (strcmp(answer.body, expected) != 0) fail_msg("%s\n   gave %s", source, answer.body);
}

/* It runs without an error. */
static void check(const char *source)
{
    run(source, "return true");
}

/* What the chunks below are made of. */
static const char prelude[] =
    "local server = socket.new('inet', 'tcp') server:bind('127.0.0.1') server:listen(1024) "
    "local _, port = server:getsockname() "
    "function _G.pair() local a = socket.new('inet', 'tcp') a:connect('127.0.0.1', port) return a, server:accept() end "
    /* All run side by side; returns when they have ended, raises what one of them raised. */
    "function _G.together(...) local left, failed = select('#', ...), nil "
    "  for _, f in ipairs{...} do neosocksd.async(function(ok, e) left = left - 1 if not ok then failed = e or '?' end "
    "end, f) end "
    "  while left > 0 do await.sleep(0) end if failed then error(failed, 0) end end "
    "function _G.unix_pair() local s <close> = socket.new('x', 't') s:bind'\\0sluice-pair' s:listen(1) "
    "  local a = socket.new('x', 't') a:connect'\\0sluice-pair' return a, s:accept() end "
    "function _G.fails(f, ...) local ok, e = pcall(f, ...) assert(not ok, 'it did not fail') return e end "
    "function _G.free_port() local s <close> = socket.new('i', 't') s:bind('127.0.0.1') return select(2, "
    "s:getsockname()) end ";

static int open_all(void **state)
{
    struct rlimit files;
    struct engine_text error = {0};
    (void)state;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < 8192 ? files.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &files);
    log_open(LOG_TO_STDERR, LOG_LEVEL_ERROR);
    config_defaults(&config);
    config.workers = 1;
    config.max_sessions = 64;
    config.allow_self = true; /* clients, proxies and origins are scripts of one process here */
    config_size(&config);
    int failed = coordinator_open(&coordinator, &config);
    if (failed == 0) failed = engine_open(&engine, coordinator);
    if (failed == 0) failed = coordinator_start(coordinator, NULL);
    return failed == 0 ? engine_invoke(engine, prelude, sizeof prelude - 1, &error) : failed;
}

static int close_all(void **state)
{
    (void)state;
    coordinator_stop(coordinator);
    int error = coordinator_run(coordinator);
    engine_close(engine);
    coordinator_close(coordinator);
    return error;
}

#endif

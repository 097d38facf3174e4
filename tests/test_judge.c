/* The simulator's judgement on what has become of a tunnel: each world here is the result of one, without its way. */
#include "tests/sim_peers.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define GRANT_SIZE 8u /* that the last proxy of the chain says before the stream */

static struct config config;
static struct peers peers;
static struct sim_conn near, far;
static struct tunnel *const tunnel = &peers.tunnels[0];
static struct upstream *const upstream = &peers.upstreams[0];

/* The upstream of a forwarded client behind a chain has ended in order, in the middle of what was planned. */
static void begin(uint32_t said)
{
    sim_begin(1, NULL, 0, NULL, NULL);
    config = (struct config){.hop_count = 1};
    memset(&peers, 0, sizeof peers);
    memset(&far, 0, sizeof far);
    peers.config = &config;
    peers.calm = true;
    peers.tunnel_count = peers.upstream_count = 1;
    tunnel->speech = SPEECH_FORWARD;
    tunnel->flawed = true;
    tunnel->client = (struct actor){.conn = &near, .reads_stream = true, .gone = true};
    upstream->tunnel = tunnel;
    upstream->hop = 1;
    upstream->actor = (struct actor){.conn = &far, .say_size = GRANT_SIZE, .say_sent = said, .reads_stream = true};
    upstream->actor.ended = upstream->actor.gone = far.in_ended = true;
}

/* In a process of its own, which sim_fail() ends. */
static bool is_condemned(void)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fclose(stderr);
        peers_check_finished(&peers);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_end_behind_a_grant(void **state)
{
    (void)state;
    begin(GRANT_SIZE);
    tunnel->client.saw_reset = true;
    assert_true(is_condemned());
    tunnel->client.saw_end = true; /* and the reset behind it */
    assert_false(is_condemned());
    upstream->actor.sent = 3;
    assert_true(is_condemned());
    tunnel->client.received = 3;
    assert_false(is_condemned());
}

/* There is no stream, so that nobody is owed its end. */
static void test_end_before_a_grant(void **state)
{
    (void)state;
    for (uint32_t said = 0; said < GRANT_SIZE; said++) {
        begin(said);
        tunnel->client.saw_reset = true;
        assert_false(is_condemned());
        tunnel->client.saw_reset = false;
        tunnel->client.saw_end = true;
        assert_false(is_condemned());
        tunnel->client.received = 1;
        assert_true(is_condemned());
        tunnel->client.received = 0;
        tunnel->speech = SPEECH_SOCKS5;
        tunnel->established = true;
        assert_true(is_condemned());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_behind_a_grant),
        cmocka_unit_test(test_end_before_a_grant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The simulator's judgement on what has become of a tunnel: each world here is the result of one, without its way. */
#include "tests/sim_lists.h"
#include "tests/sim_peers.h"
#include "tests/sim_users.h"

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
static bool is_fatal(void (*check)(uint64_t since_us), uint64_t since_us)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fclose(stderr);
        check(since_us);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void check_finished(uint64_t since_us)
{
    (void)since_us;
    peers_check_finished(&peers);
}

static void check_allowed(uint64_t since_us)
{
    peers_check_allowed(&peers, tunnel, since_us);
}

static bool is_condemned(void)
{
    return is_fatal(check_finished, 0);
}

static bool may_not_be_reached(uint64_t since_us)
{
    return is_fatal(check_allowed, since_us);
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

/* --- who may come, and where to --- */

static struct sim_users users;
static struct sim_lists lists;

/* A client of the first listener, which came at 1000 us and has been refused; its password is wrong from 500 us on. */
static void begin_barred(void)
{
    begin(0);
    config = (struct config){.hop_count = 0};
    peers.upstream_count = 0;
    memset(&users, 0, sizeof users);
    memset(&lists, 0, offsetof(struct sim_lists, configs));
    users.change_count = 2;
    users.changes[0] = (struct sim_users_change){.at_us = 0, .passwords = {1}};
    users.changes[1] = (struct sim_users_change){.at_us = 500, .passwords = {2}};
    peers.users = &users;
    tunnel->speech = SPEECH_SOCKS5_AUTH;
    tunnel->password = 1;
    tunnel->begun_us = 1000;
    tunnel->address_count = 1;
    tunnel->flawed = false;
    tunnel->started = tunnel->refused = true;
    tunnel->client.reads_stream = false;
}

static void test_a_password_that_is_wrong(void **state)
{
    (void)state;
    begin_barred();
    assert_false(is_condemned());
    tunnel->refused = false; /* it was not told */
    assert_true(is_condemned());
    tunnel->refused = tunnel->established = true; /* it got in */
    assert_true(is_condemned());
    begin_barred();
    users.changes[1].at_us = 1500; /* it was right when the client came, and may have been when it was judged */
    assert_false(is_condemned());
    tunnel->refused = false;
    assert_false(is_condemned());
    begin_barred();
    tunnel->password = 2; /* it is right, and the client was refused */
    assert_true(is_condemned());
}

static void test_reached_for_nobody(void **state)
{
    (void)state;
    begin_barred();
    assert_true(may_not_be_reached(1000));
    assert_false(may_not_be_reached(400)); /* the request before is as old as that */
    tunnel->password = 2;
    assert_false(may_not_be_reached(1000));
    tunnel->anonymous = true;
    assert_true(may_not_be_reached(0));
    tunnel->listener = 1; /* whose clients need not be users */
    assert_false(may_not_be_reached(0));
}

static void test_a_list_that_denies(void **state)
{
    (void)state;
    begin_barred();
    peers.users = NULL;
    peers.lists = &lists;
    lists.on = true;
    lists.count = 2;
    tunnel->target = (struct address){.kind = ADDRESS_NAME};
    tunnel->address_count = 2;
    lists.generations[0] = (struct sim_lists_generation){.ends_us = 900};
    lists.generations[1] = (struct sim_lists_generation){.begins_us = 800, .ends_us = UINT64_MAX, .names = 1};
    assert_true(may_not_be_reached(1000));
    assert_false(may_not_be_reached(900));
    assert_false(is_condemned());
    tunnel->established = true;
    assert_true(is_condemned());
    lists.generations[1] = (struct sim_lists_generation){.ends_us = UINT64_MAX, .addresses = {1}};
    assert_false(may_not_be_reached(1000)); /* one of its two addresses */
    lists.generations[1] = (struct sim_lists_generation){.ends_us = UINT64_MAX, .clients = 1};
    assert_true(may_not_be_reached(1000));
    lists.generations[1].clients = 2; /* another client */
    assert_false(may_not_be_reached(1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_behind_a_grant),       cmocka_unit_test(test_end_before_a_grant),
        cmocka_unit_test(test_a_password_that_is_wrong), cmocka_unit_test(test_reached_for_nobody),
        cmocka_unit_test(test_a_list_that_denies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

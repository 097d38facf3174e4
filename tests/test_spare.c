/* The descriptor for connections that find none, with as many descriptors as the process may have. */
#include "core/session/spare.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/net.h"
#include "tests/support.h"

static struct worker workers[2], *peers[2] = {&workers[0], &workers[1]};
static struct net_address door;
static int listener;
static struct rlimit limit;

static int open_door(void **state)
{
    (void)state;
    struct address loopback;
    for (unsigned i = 0; i < 2; i++) {
        peers[i]->peers = peers;
        peers[i]->peer_count = 2;
    }
    assert_true(address_from_host("127.0.0.1", 9, 0, &loopback) && net_address_from(&loopback, &door));
    listener = net_socket(AF_INET, SOCK_STREAM);
    assert_true(listener >= 0);
    assert_int_equal(net_bind(listener, &door), 0);
    assert_int_equal(net_listen(listener, 16), 0);
    assert_int_equal(net_local_address(listener, &door), 0);
    return getrlimit(RLIMIT_NOFILE, &limit);
}

static int close_door(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) spare_close(peers[i]);
    close(listener);
    return setrlimit(RLIMIT_NOFILE, &limit);
}

/* From here on there is not a single one. */
static void leave_none(void)
{
    int lowest = dup(STDIN_FILENO);
    assert_true(lowest >= 0);
    close(lowest);
    struct rlimit none = {.rlim_cur = (rlim_t)lowest, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(dup(STDIN_FILENO), -1);
}

static int knock(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &door.any, door.size), 0);
    return fd;
}

static struct host_port who; /* was refused */

static uint16_t port_of(int client)
{
    struct net_address at;
    struct address address;
    assert_int_equal(net_local_address(client, &at), 0);
    assert_true(net_address_to(&at, &address));
    return address.port;
}

static void assert_reset(int client)
{
    char octet;
    assert_int_equal(recv(client, &octet, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
}

static void test_nobody_waits(void **state)
{
    (void)state;
    spare_open(&workers[0]);
    int fd = workers[0].spare_fd;
    assert_false(spare_refuse(&workers[0], listener, &who));
    assert_false(spare_is_missing());
    assert_int_equal(workers[0].spare_fd, fd);
}

static void test_who_waits_is_refused(void **state)
{
    (void)state;
    int clients[3];
    spare_open(&workers[0]);
    for (unsigned i = 0; i < 3; i++) clients[i] = knock();
    leave_none();
    for (unsigned i = 0; i < 3; i++) {
        assert_true(spare_refuse(&workers[0], listener, &who));
        assert_int_equal(who.port, port_of(clients[i]));
    }
    assert_false(spare_refuse(&workers[0], listener, &who));
    assert_false(spare_is_missing());
    for (unsigned i = 0; i < 3; i++) assert_reset(clients[i]);
}

static void test_the_other_worker_lends_its_own(void **state)
{
    (void)state;
    spare_open(&workers[1]);
    int clients[2] = {knock(), knock()};
    leave_none();
    spare_open(&workers[0]);
    assert_true(spare_is_missing());
    assert_true(spare_refuse(&workers[0], listener, &who));
    assert_true(spare_refuse(&workers[1], listener, &who)); /* and is lent it again */
    assert_true(spare_is_missing());
    assert_false(spare_refill(&workers[1]));
    for (unsigned i = 0; i < 2; i++) assert_reset(clients[i]);
    assert_true(spare_refill(&workers[1])); /* what the clients had is free */
    assert_false(spare_is_missing());
    assert_true(workers[0].spare_fd > 0 && workers[1].spare_fd > 0);
}

static void test_nobody_has_one(void **state)
{
    (void)state;
    int client = knock();
    leave_none();
    spare_open(&workers[0]);
    spare_open(&workers[1]);
    assert_false(spare_refuse(&workers[0], listener, &who));
    close(client);
}

/* What has taken it gives one back, be it the last descriptor of all. */
static void test_a_connection_becomes_one(void **state)
{
    (void)state;
    int client = knock(), held = dup(STDIN_FILENO);
    leave_none();
    spare_open(&workers[0]);
    spare_open(&workers[1]);
    close(held);
    int fd = net_accept(listener);
    assert_true(fd >= 0);
    spare_make_of(&workers[1], fd);
    assert_int_equal(workers[1].spare_fd, fd);
    assert_true(spare_is_missing());
    assert_reset(client);
    assert_true(spare_refill(&workers[1]));
    assert_false(spare_is_missing());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_waits, open_door, close_door),
        cmocka_unit_test_setup_teardown(test_who_waits_is_refused, open_door, close_door),
        cmocka_unit_test_setup_teardown(test_the_other_worker_lends_its_own, open_door, close_door),
        cmocka_unit_test_setup_teardown(test_nobody_has_one, open_door, close_door),
        cmocka_unit_test_setup_teardown(test_a_connection_becomes_one, open_door, close_door),
    };
    return cmocka_run_group_tests_name("spare", tests, NULL, NULL);
}

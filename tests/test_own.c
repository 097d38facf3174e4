/* core/session/own and core/session/machine: which targets are doors of ours in every form that the kernel takes, and
 * which connections come back; on real sockets and the real routing table. */
#include "core/session/own.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/net.h"
#include "core/session/machine.h"
#include "tests/support.h"

static struct own *own;
static int machine;

static int setup(void **state)
{
    (void)state;
    machine = machine_open();
    return own_open(&own);
}

static int teardown(void **state)
{
    (void)state;
    machine_close(machine);
    own_close(own);
    return 0;
}

static struct address address_of(const char *text)
{
    struct address address;
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return address;
}

/* A socket bound to that host, any port; -1: this machine has no such family. */
static int bound(const char *host, int type, uint16_t *port)
{
    char text[ADDRESS_TEXT_SIZE];
    struct net_address raw;
    snprintf(text, sizeof text, "%s:0", host);
    struct address at = address_of(text);
    net_address_from(&at, &raw);
    int fd = net_socket(raw.any.sa_family, type);
    if (fd < 0 || net_bind(fd, &raw) < 0) {
        if (fd >= 0) close(fd);
        return -1;
    }
    assert_int_equal(net_local_address(fd, &raw), 0);
    assert_true(net_address_to(&raw, &at));
    *port = at.port;
    return fd;
}

static bool is_own(const char *host, uint16_t port)
{
    char text[ADDRESS_TEXT_SIZE];
    uint8_t listener;
    snprintf(text, sizeof text, "%s:%u", host, port);
    struct address to = address_of(text);
    return own_is(own, machine, &to, &listener);
}

static void test_one_address(void **state)
{
    uint16_t port;
    uint8_t listener = 0;
    (void)state;
    int fd = bound("127.0.0.1", SOCK_STREAM, &port);
    assert_true(fd >= 0);
    assert_false(is_own("127.0.0.1", port));
    int door = own_add(own, fd, 7, false);
    assert_true(door >= 0);
    struct address to = {.kind = ADDRESS_IPV4, .port = port, .ipv4 = {127, 0, 0, 1}};
    assert_true(own_is(own, machine, &to, &listener));
    assert_int_equal(listener, 7);
    assert_true(is_own("[::ffff:127.0.0.1]", port));
    assert_true(is_own("0.0.0.0", port)); /* the kernel dials 127.0.0.1 */
    assert_true(is_own("[::ffff:0.0.0.0]", port));
    assert_false(is_own("127.0.0.2", port)); /* nobody of ours listens there */
    assert_false(is_own("[::1]", port));
    assert_false(is_own("192.0.2.1", port));
    assert_false(is_own("127.0.0.1", (uint16_t)(port + 1)));
    to.kind = ADDRESS_NAME;
    assert_false(own_is(own, machine, &to, &listener));
    assert_false(
        own_is_datagrams(own, machine, &(struct address){.kind = ADDRESS_IPV4, .port = port, .ipv4 = {127, 0, 0, 1}}));
    own_remove(own, door);
    assert_false(is_own("127.0.0.1", port));
    own_remove(own, -1);
    close(fd);
}

static void test_all_addresses(void **state)
{
    uint16_t port;
    (void)state;
    int fd = bound("0.0.0.0", SOCK_STREAM, &port);
    int door = own_add(own, fd, OWN_NO_LISTENER, false);
    assert_true(is_own("127.0.0.1", port));
    assert_true(is_own("127.9.8.7", port));
    assert_true(is_own("[::ffff:127.9.8.7]", port));
    assert_true(is_own("0.0.0.0", port));
    assert_false(is_own("[::1]", port));
    assert_false(is_own("192.0.2.1", port)); /* a neighbour, or nowhere */
    own_remove(own, door);
    close(fd);
    fd = bound("[::]", SOCK_STREAM, &port);
    if (fd < 0) return; /* no IPv6 here */
    door = own_add(own, fd, OWN_NO_LISTENER, false);
    assert_true(is_own("[::1]", port));
    assert_true(is_own("[::]", port));
    assert_true(is_own("127.0.0.1", port)); /* IPV6_V6ONLY is off */
    own_remove(own, door);
    int on = 1;
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
    struct net_address raw;
    struct address any = {.kind = ADDRESS_IPV6};
    net_address_from(&any, &raw);
    assert_int_equal(net_bind(fd, &raw), 0);
    assert_int_equal(net_local_address(fd, &raw), 0);
    net_address_to(&raw, &any);
    door = own_add(own, fd, OWN_NO_LISTENER, false);
    assert_true(is_own("[::1]", any.port));
    assert_false(is_own("127.0.0.1", any.port));
    own_remove(own, door);
    close(fd);
}

static void test_datagrams(void **state)
{
    uint16_t port;
    (void)state;
    int fd = bound("127.0.0.1", SOCK_DGRAM, &port);
    int door = own_add(own, fd, OWN_NO_LISTENER, false);
    struct address to = {.kind = ADDRESS_IPV4, .port = port, .ipv4 = {127, 0, 0, 1}};
    assert_true(own_is_datagrams(own, machine, &to));
    assert_false(is_own("127.0.0.1", port)); /* a stream does not arrive there */
    own_remove(own, door);
    assert_false(own_is_datagrams(own, machine, &to));
    own_add_datagrams(own, port);
    own_add_datagrams(own, port); /* one for each family */
    own_remove_datagrams(own, port);
    assert_true(own_is_datagrams(own, machine, &to));
    struct address other = {.kind = ADDRESS_IPV4, .port = port, .ipv4 = {192, 0, 2, 1}};
    assert_false(own_is_datagrams(own, machine, &other));
    own_remove_datagrams(own, port);
    assert_false(own_is_datagrams(own, machine, &to));
    close(fd);
}

static void test_no_door(void **state)
{
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(own_add(own, pair[0], 0, false), -1);
    assert_int_equal(own_add(own, -1, 0, false), -1);
    close(pair[0]);
    close(pair[1]);
}

static void test_full(void **state)
{
    int doors[2000], count = 0;
    uint16_t port;
    (void)state;
    int fd = bound("127.0.0.1", SOCK_STREAM, &port);
    while (count < 2000 && (doors[count] = own_add(own, fd, OWN_NO_LISTENER, false)) >= 0) count++;
    assert_in_range(count, 100, 1999);
    assert_int_equal(doors[count], -ENOBUFS);
    own_remove(own, doors[5]);
    assert_int_equal(own_add(own, fd, OWN_NO_LISTENER, false), doors[5]);
    for (int i = 0; i < count; i++) own_remove(own, doors[i]);
    assert_false(is_own("127.0.0.1", port));
    close(fd);
}

/* --- returns --- */

static void test_notes(void **state)
{
    struct address from = address_of("127.0.0.1:40000"), to = address_of("127.0.0.1:1080"),
                   other = address_of("192.0.2.1:80"), mapped = address_of("[::ffff:127.0.0.1]:40000");
    struct own_trail trail = {0};
    bool elsewhere;
    (void)state;
    assert_false(own_has_notes(own));
    assert_false(own_find(own, &from, &to, 1000, &trail, &elsewhere));
    uint32_t note = own_note(own, &from, &to, (struct own_trail){.listeners = 0x80000001u, .depth = 3}, 1000);
    assert_true(own_has_notes(own));
    assert_true(own_knows(own, &mapped, 2000));
    assert_false(own_knows(own, &to, 2000));
    assert_false(own_knows(own, &from, 30000));
    assert_true(own_find(own, &mapped, &to, 2000, &trail, &elsewhere));
    assert_int_equal(trail.listeners, 0x80000001u);
    assert_int_equal(trail.depth, 3);
    assert_false(own_find(own, &from, &other, 2000, &trail, &elsewhere));
    assert_true(elsewhere); /* a firewall may have turned it */
    assert_false(own_find(own, &to, &from, 2000, &trail, &elsewhere));
    assert_false(elsewhere);
    assert_false(own_find(own, &from, &to, 30000, &trail, &elsewhere)); /* long ago */
    own_forget(own, note);
    assert_false(own_find(own, &from, &to, 2000, &trail, &elsewhere));
    own_forget(own, note);
    own_forget(own, OWN_NO_NOTE);
}

/* More than there is room for: the newest are found, and who forgets late does not take another's. */
static void test_many_notes(void **state)
{
    enum { COUNT = 60000 };
    static uint32_t notes[COUNT];
    struct address from = address_of("127.0.0.1:1"), to = address_of("127.0.0.1:1080");
    struct own_trail trail;
    bool elsewhere;
    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        from.port = (uint16_t)(i + 1);
        notes[i] = own_note(own, &from, &to, (struct own_trail){.listeners = 1, .depth = 1}, 1000 + i);
        assert_true(own_find(own, &from, &to, 1000 + i, &trail, &elsewhere));
    }
    for (uint32_t i = 0; i < COUNT / 2; i++) own_forget(own, notes[i]);
    assert_true(own_find(own, &from, &to, 1000 + COUNT, &trail, &elsewhere));
    for (uint32_t i = COUNT / 2; i < COUNT; i++) own_forget(own, notes[i]);
    for (uint32_t i = 0; i < COUNT; i++) {
        from.port = (uint16_t)(i + 1);
        assert_false(own_find(own, &from, &to, 1000 + COUNT, &trail, &elsewhere));
    }
}

static void test_may_return(void **state)
{
    uint16_t port;
    struct address to = address_of("192.0.2.1:1");
    (void)state;
    int fd = bound("127.0.0.1", SOCK_STREAM, &port);
    int door = own_add(own, fd, 0, false);
    to.port = (uint16_t)(port + 1);
    assert_false(own_may_return(own, &to));
    to.port = port;
    assert_true(own_may_return(own, &to));
    own_remove(own, door);
    assert_false(own_may_return(own, &to));
    door = own_add(own, fd, 0, true);
    to.port = (uint16_t)(port + 1);
    assert_true(own_may_return(own, &to)); /* a firewall may lead it back */
    own_remove(own, door);
    assert_false(own_may_return(own, &to));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_datagrams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_door, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_notes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_notes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_may_return, setup, teardown),
    };
    return cmocka_run_group_tests_name("own", tests, NULL, NULL);
}

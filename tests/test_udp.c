/* What BIND and UDP ASSOCIATE bind their sockets to: net_address_set_port() and net_route_source(). */
#include <netinet/in.h>
#include <string.h>

#include "core/io/net.h"
#include "tests/support.h"

static struct net_address from_text(const char *host, uint16_t port)
{
    struct address address;
    struct net_address out;
    assert_true(address_from_host(host, strlen(host), port, &address));
    assert_true(net_address_from(&address, &out));
    return out;
}

static void assert_text(const struct net_address *address, const char *expected)
{
    struct address plain;
    char text[ADDRESS_TEXT_SIZE];
    assert_true(net_address_to(address, &plain));
    address_format(&plain, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_port_is_replaced(void **state)
{
    (void)state;
    struct net_address address = from_text("192.0.2.1", 1080);
    assert_true(net_address_set_port(&address, 0));
    assert_text(&address, "192.0.2.1:0");
    assert_true(net_address_set_port(&address, 65535));
    assert_text(&address, "192.0.2.1:65535");
    address = from_text("2001:db8::1", 1080);
    assert_true(net_address_set_port(&address, 53));
    assert_text(&address, "[2001:db8::1]:53");
}

static void test_mapped_becomes_ipv4(void **state)
{
    (void)state;
    struct net_address address = from_text("::ffff:192.0.2.1", 1080);
    assert_int_equal(address.any.sa_family, AF_INET6);
    assert_true(net_address_set_port(&address, 7));
    assert_int_equal(address.any.sa_family, AF_INET);
    assert_int_equal(address.size, sizeof(struct sockaddr_in));
    assert_text(&address, "192.0.2.1:7");
}

static void test_scope_is_kept(void **state)
{
    (void)state;
    struct net_address address = from_text("fe80::1", 1080);
    struct sockaddr_in6 in6;
    memcpy(&in6, &address.storage, sizeof in6);
    in6.sin6_scope_id = 3;
    memcpy(&address.storage, &in6, sizeof in6);
    assert_true(net_address_set_port(&address, 9));
    memcpy(&in6, &address.storage, sizeof in6);
    assert_int_equal(in6.sin6_scope_id, 3);
    assert_int_equal(ntohs(in6.sin6_port), 9);
}

static void test_unix_has_no_port(void **state)
{
    (void)state;
    struct net_address address = {.size = sizeof(sa_family_t), .any.sa_family = AF_UNIX};
    assert_false(net_address_set_port(&address, 9));
}

static void test_source_of_a_route(void **state)
{
    (void)state;
    struct net_address to = from_text("127.0.0.9", 0), source;
    assert_int_equal(net_route_source(&to, NULL, 0, &source), 0);
    assert_true(net_address_set_port(&source, 0));
    assert_text(&source, "127.0.0.1:0");
}

/* The broadcast address needs SO_BROADCAST, which nobody sets here, whatever routes this machine has. */
static void test_no_route(void **state)
{
    (void)state;
    struct net_address to = from_text("255.255.255.255", 9), source;
    assert_true(net_route_source(&to, NULL, 0, &source) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_port_is_replaced),  cmocka_unit_test(test_mapped_becomes_ipv4),
        cmocka_unit_test(test_scope_is_kept),     cmocka_unit_test(test_unix_has_no_port),
        cmocka_unit_test(test_source_of_a_route), cmocka_unit_test(test_no_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

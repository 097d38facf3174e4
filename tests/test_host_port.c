/* What is kept of an address: hosts come back as they were, names and paths are nobody. */
#include <string.h>

#include "protocols/host_port.h"
#include "tests/support.h"

static struct address parsed(const char *text)
{
    struct address address = {.kind = ADDRESS_NONE};
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return address;
}

static void test_hosts_come_back(void **state)
{
    static const char *const texts[] = {"192.0.2.7:65535", "[2001:db8::1]:0", "0.0.0.0:1", "[::]:443"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct address address = parsed(texts[i]);
        struct host_port host_port = host_port_of(&address);
        struct address again = host_port_address(&host_port);
        char text[ADDRESS_TEXT_SIZE];
        assert_true(address_equal(&address, &again));
        address_format(&again, text, sizeof text);
        assert_string_equal(text, texts[i]);
    }
}

/* Two ends that are equal are so octet for octet: nothing of a former owner's octets is left. */
static void test_unused_octets_are_zero(void **state)
{
    struct address address;
    (void)state;
    memset(&address, 0xff, sizeof address);
    address.kind = ADDRESS_IPV4;
    struct host_port host_port = host_port_of(&address);
    for (size_t i = 4; i < sizeof host_port.octets; i++) assert_int_equal(host_port.octets[i], 0);
}

static void test_names_and_paths_are_nobody(void **state)
{
    struct address name = parsed("host.example:80"), path = {.kind = ADDRESS_UNIX, .name = "/run/x"}, none = {0};
    (void)state;
    assert_int_equal(host_port_of(&name).kind, ADDRESS_NONE);
    assert_int_equal(host_port_of(&name).port, 0);
    assert_int_equal(host_port_of(&path).kind, ADDRESS_NONE);
    struct host_port host_port = host_port_of(&none);
    assert_int_equal(host_port_address(&host_port).kind, ADDRESS_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_come_back),
        cmocka_unit_test(test_unused_octets_are_zero),
        cmocka_unit_test(test_names_and_paths_are_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* core/session/policy: first and last address of every net and the neighbours outside, carried IPv4 addresses, the
 * option. */
#include "core/session/policy.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOWHERE   POLICY_NOWHERE
#define LOOPBACK  POLICY_LOOPBACK
#define MULTICAST POLICY_MULTICAST
#define LOCAL     POLICY_LOCAL
#define GLOBAL    POLICY_GLOBAL

static enum policy_class class_of(const char *text)
{
    struct address address = {.kind = ADDRESS_IPV4};
    if (inet_pton(AF_INET, text, address.ipv4) != 1) {
        address.kind = ADDRESS_IPV6;
        assert_int_equal(inet_pton(AF_INET6, text, address.ipv6), 1);
    }
    return policy_classify(&address);
}

static void check(const char *text, enum policy_class expected)
{
    enum policy_class class = class_of(text);
    if (class != expected) print_error("%s\n", text);
    assert_int_equal(class, expected);
}

struct range {
    const char *before; /* NULL: there is none */
    enum policy_class before_class;
    const char *first, *last;
    enum policy_class class;
    const char *after;
    enum policy_class after_class;
};

static const struct range ranges[] = {
    {NULL, 0, "0.0.0.0", "0.255.255.255", NOWHERE, "1.0.0.0", GLOBAL},
    {"9.255.255.255", GLOBAL, "10.0.0.0", "10.255.255.255", LOCAL, "11.0.0.0", GLOBAL},
    {"100.63.255.255", GLOBAL, "100.64.0.0", "100.127.255.255", LOCAL, "100.128.0.0", GLOBAL},
    {"126.255.255.255", GLOBAL, "127.0.0.0", "127.255.255.255", LOOPBACK, "128.0.0.0", GLOBAL},
    {"169.253.255.255", GLOBAL, "169.254.0.0", "169.254.255.255", LOCAL, "169.255.0.0", GLOBAL},
    {"172.15.255.255", GLOBAL, "172.16.0.0", "172.31.255.255", LOCAL, "172.32.0.0", GLOBAL},
    {"191.255.255.255", GLOBAL, "192.0.0.0", "192.0.0.255", LOCAL, "192.0.1.0", GLOBAL},
    {"192.0.1.255", GLOBAL, "192.0.2.0", "192.0.2.255", LOCAL, "192.0.3.0", GLOBAL},
    {"192.88.98.255", GLOBAL, "192.88.99.0", "192.88.99.255", LOCAL, "192.88.100.0", GLOBAL},
    {"192.167.255.255", GLOBAL, "192.168.0.0", "192.168.255.255", LOCAL, "192.169.0.0", GLOBAL},
    {"198.17.255.255", GLOBAL, "198.18.0.0", "198.19.255.255", LOCAL, "198.20.0.0", GLOBAL},
    {"198.51.99.255", GLOBAL, "198.51.100.0", "198.51.100.255", LOCAL, "198.51.101.0", GLOBAL},
    {"203.0.112.255", GLOBAL, "203.0.113.0", "203.0.113.255", LOCAL, "203.0.114.0", GLOBAL},
    {"223.255.255.255", GLOBAL, "224.0.0.0", "239.255.255.255", MULTICAST, "240.0.0.0", LOCAL},
    {"239.255.255.255", MULTICAST, "240.0.0.0", "255.255.255.254", LOCAL, "255.255.255.255", NOWHERE},

    {NULL, 0, "::", "::", NOWHERE, "::1", LOOPBACK},
    {"::", NOWHERE, "::1", "::1", LOOPBACK, "::2", NOWHERE}, /* ::0.0.0.2 */
    {"fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "fe00::", GLOBAL},
    {"fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "fec0::", LOCAL},
    {"febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "ff00::", MULTICAST},
    {"feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", MULTICAST,
     NULL, 0},
    {"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "2001:db9::", GLOBAL},
    {"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "3fff:1000::", GLOBAL},
    {"ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "100::", "100::ffff:ffff:ffff:ffff", LOCAL, "100:0:0:1::", LOCAL},
    {"100::ffff:ffff:ffff:ffff", LOCAL, "100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", LOCAL, "100:0:0:2::", GLOBAL},
    /* 2001::/23, with Teredo in front, whose carried address 0.0.0.0 (inverted) is nowhere */
    {"2001::ffff:ffff", NOWHERE, "2001:1::", "2001:2:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "2001:3::", GLOBAL},
    {"2001:2:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL,
     "2001:4::", LOCAL},
    {"2001:4:111:ffff:ffff:ffff:ffff:ffff", LOCAL, "2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff", GLOBAL,
     "2001:4:113::", LOCAL},
    {"2001:f:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "2001:10::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "2001:40::", LOCAL},
    {"2001:100::", LOCAL, "2001:1ff::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL, "2001:200::", GLOBAL},
    {"5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", GLOBAL, "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LOCAL,
     "5f01::", GLOBAL},
    {"64:ff9b:0:ffff:ffff:ffff:ffff:ffff", GLOBAL, "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff:ffff:ffff:8.8.8.8", LOCAL,
     "64:ff9b:2::", GLOBAL},
};

static void test_ranges(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const struct range *range = &ranges[i];
        if (range->before != NULL) check(range->before, range->before_class);
        check(range->first, range->class);
        check(range->last, range->class);
        if (range->after != NULL) check(range->after, range->after_class);
    }
}

/* Every form that carries an IPv4 address is judged as the address inside. */
static void test_carried(void **state)
{
    (void)state;
    static const char *const inside[] = {
        "0.0.0.0",         "0.1.2.3",     "8.8.8.8",         "10.0.0.0",   "10.255.255.255",
        "100.64.0.1",      "127.0.0.1",   "169.254.1.1",     "172.16.0.1", "192.168.255.255",
        "198.18.0.1",      "203.0.113.9", "224.0.0.1",       "240.0.0.1",  "255.255.255.254",
        "255.255.255.255", "1.1.1.1",     "126.255.255.255", "128.0.0.0",  "172.32.0.0",
    };
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        enum policy_class expected = class_of(inside[i]);
        uint8_t v4[4];
        char text[INET6_ADDRSTRLEN + 16];
        assert_int_equal(inet_pton(AF_INET, inside[i], v4), 1);

        snprintf(text, sizeof text, "::ffff:%s", inside[i]);
        check(text, expected);
        snprintf(text, sizeof text, "::ffff:0:%s", inside[i]);
        check(text, expected);
        snprintf(text, sizeof text, "64:ff9b::%s", inside[i]);
        check(text, expected);
        snprintf(text, sizeof text, "64:ff9b:1::%s", inside[i]);
        check(text, expected == GLOBAL ? LOCAL : expected);
        snprintf(text, sizeof text, "::%s", inside[i]);
        check(text, expected);
        snprintf(text, sizeof text, "2002:%02x%02x:%02x%02x::1", v4[0], v4[1], v4[2], v4[3]);
        check(text, expected);
        snprintf(text, sizeof text, "2002:%02x%02x:%02x%02x:ffff:ffff:ffff:ffff:ffff", v4[0], v4[1], v4[2], v4[3]);
        check(text, expected);
        snprintf(text, sizeof text, "2001:0:ffff:ffff:ffff:ffff:%02x%02x:%02x%02x", v4[0] ^ 255, v4[1] ^ 255,
                 v4[2] ^ 255, v4[3] ^ 255);
        check(text, expected);
    }
}

/* The neighbours of the carriers carry nothing. */
static void test_not_carried(void **state)
{
    (void)state;
    check("::fffe:127.0.0.1", GLOBAL);
    check("::1:0:127.0.0.1", GLOBAL);
    check("::1:127.0.0.1", GLOBAL);
    check("64:ff9a::127.0.0.1", GLOBAL);
    check("64:ff9b:0:0:1::127.0.0.1", GLOBAL);
    check("2003:7f00:1::1", GLOBAL);
    check("2001:1::80ff:fffe", LOCAL); /* not Teredo, but of 2001::/23 */
    check("2606:4700:4700::1111", GLOBAL);
    check("2001:4860:4860::8888", GLOBAL);
}

static void test_allows(void **state)
{
    (void)state;
    static const char *const examples[] = {"127.0.0.1", "::1", "224.0.0.1", "10.0.0.1", "8.8.8.8", "2606:4700::1"};
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        enum policy_class class = class_of(examples[i]);
        struct address address = {.kind = ADDRESS_IPV4};
        if (inet_pton(AF_INET, examples[i], address.ipv4) != 1) {
            address.kind = ADDRESS_IPV6;
            assert_int_equal(inet_pton(AF_INET6, examples[i], address.ipv6), 1);
        }
        for (uint32_t blocked = 0; blocked < 16; blocked++)
            assert_int_equal(policy_allows(blocked, &address), (blocked & class) == 0);
    }
    struct address nowhere = {.kind = ADDRESS_IPV4};
    assert_false(policy_allows(0, &nowhere));
    nowhere.kind = ADDRESS_IPV6;
    assert_false(policy_allows(0, &nowhere));
    struct address path = {.kind = ADDRESS_UNIX, .name_size = 2, .name = "/x"};
    assert_int_equal(policy_classify(&path), LOOPBACK);
}

static void parses(const char *text, uint32_t expected)
{
    uint32_t blocked = 0x5a5a;
    const char *bad;
    size_t bad_size;
    assert_true(policy_parse(text, &blocked, &bad, &bad_size));
    assert_int_equal(blocked, expected);
}

static void refuses(const char *text, const char *word)
{
    uint32_t blocked = 0x5a5a;
    const char *bad = NULL;
    size_t bad_size = 0;
    assert_false(policy_parse(text, &blocked, &bad, &bad_size));
    assert_int_equal(blocked, 0x5a5a);
    assert_true(bad >= text && bad + bad_size <= text + strlen(text));
    assert_int_equal(bad_size, strlen(word));
    assert_memory_equal(bad, word, bad_size);
}

static void test_parse(void **state)
{
    (void)state;
    parses("", 0);
    parses(" \t", 0);
    parses("loopback", LOOPBACK);
    parses("multicast", MULTICAST);
    parses("local", LOCAL);
    parses("global", GLOBAL);
    parses("loopback,multicast,local,global", LOOPBACK | MULTICAST | LOCAL | GLOBAL);
    parses(" local , loopback ", LOCAL | LOOPBACK);
    parses("local,local,\tglobal", LOCAL | GLOBAL);
    refuses("loopbac", "loopbac");
    refuses("loopbackx", "loopbackx");
    refuses("local, nets ,global", "nets");
    refuses("Local", "Local");
    refuses("local global", "local global");
    refuses("none", "none");
    refuses("global,x", "x");
    refuses(",", "");
    refuses(",local", "");
    refuses("local,", "");
    refuses("local, ", "");
    refuses("local,,global", "");
    refuses("local, ,global", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_carried), cmocka_unit_test(test_not_carried),
        cmocka_unit_test(test_allows), cmocka_unit_test(test_parse),
    };
    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}

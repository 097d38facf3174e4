/* protocols/egress_text: pools of source addresses, from text, and which address of them is whose. */
#include "protocols/egress_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

static struct egress_sources pool_of(const char *text)
{
    struct egress_sources pool = {0};
    const char *wrong = egress_parse_sources(text, strlen(text), &pool);
    if (wrong) fail_msg("%s: %s", text, wrong);
    return pool;
}

static void test_what_is_read(void **state)
{
    (void)state;
    struct egress_sources pool = pool_of("192.0.2.7");
    assert_true(pool.given && egress_binds(&pool) && !pool.same && pool.by == EGRESS_BY_DEFAULT);
    assert_int_equal(pool.count, 1);
    assert_int_equal(pool.ranges[0].kind, ADDRESS_IPV4);
    assert_int_equal(pool.ranges[0].bits, 32);
    pool = pool_of("10.0.0.0/28,2001:db8:1::/64,same,by=round");
    assert_true(pool.same);
    assert_int_equal(pool.count, 2);
    assert_int_equal(pool.ranges[1].kind, ADDRESS_IPV6);
    assert_int_equal(pool.ranges[1].bits, 64);
    assert_int_equal(pool.by, EGRESS_BY_ROUND);
    assert_int_equal(pool_of("by=user,::1").by, EGRESS_BY_USER);
    assert_int_equal(pool_of("::1,by=source").by, EGRESS_BY_SOURCE);
    assert_int_equal(pool_of("::1,by=random").by, EGRESS_BY_RANDOM);
    pool = pool_of("any");
    assert_true(pool.given && !egress_binds(&pool));
    pool = pool_of("same");
    assert_true(egress_binds(&pool));
}

/* An option may be repeated: what comes later is added. */
static void test_more_is_added(void **state)
{
    (void)state;
    struct egress_sources pool = pool_of("192.0.2.1"), all = pool;
    assert_null(egress_parse_sources("192.0.2.2,by=round", 18, &pool));
    assert_int_equal(pool.count, 2);
    assert_int_equal(pool.by, EGRESS_BY_ROUND);
    assert_non_null(egress_parse_sources("by=round", 8, &pool));
    assert_non_null(egress_parse_sources("any", 3, &all));
    assert_int_equal(all.count, 1); /* as it was */
    all = pool_of("by=round");
    assert_non_null(egress_check_sources(&all));
    assert_null(egress_parse_sources("same", 4, &all));
    assert_null(egress_check_sources(&all));
    assert_null(egress_check_sources(&pool));
    all = pool_of("any");
    assert_null(egress_check_sources(&all));
    assert_non_null(egress_parse_sources("same", 4, &all));
}

static void test_what_is_wrong(void **state)
{
    static const char *const texts[] = {"",
                                        ",",
                                        "192.0.2.1,",
                                        "192.0.2",
                                        "192.0.2.1:80",
                                        "[::1]",
                                        "::1/129",
                                        "10.0.0.1/8",
                                        "2001:db8::1/64",
                                        "10.0.0.0/7",
                                        "2000::/7",
                                        "0.0.0.0",
                                        "0.0.0.0/8",
                                        "::",
                                        "224.0.0.1",
                                        "ff02::1",
                                        "255.255.255.255",
                                        "240.0.0.0/8x",
                                        "::ffff:192.0.2.1",
                                        "eth0",
                                        "example.com",
                                        "by=",
                                        "by=hash",
                                        "by=user,by=user,::1",
                                        "any,same",
                                        "any,by=user",
                                        "any,::1",
                                        "same ",
                                        " same",
                                        "192.0.2.1,,192.0.2.2",
                                        "1.1.1.1\t"};
    struct egress_sources pool = {0};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!egress_parse_sources(texts[i], strlen(texts[i]), &pool)) fail_msg("\"%s\" is taken", texts[i]);
    assert_non_null(egress_parse_sources("10.0.0.1\0", 9, &pool));
    assert_false(pool.given);
    char many[512] = "";
    for (unsigned i = 0; i < EGRESS_RANGES_MAX; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s10.0.0.%u", i > 0 ? "," : "", i + 1);
    pool = pool_of(many);
    assert_int_equal(pool.count, EGRESS_RANGES_MAX);
    assert_non_null(egress_parse_sources("10.1.1.1", 8, &pool));
}

static void test_marks_and_interfaces(void **state)
{
    uint32_t mark = 9;
    char device[EGRESS_DEVICE_SIZE];
    (void)state;
    assert_true(egress_parse_mark("0", 1, &mark) && mark == 0);
    assert_true(egress_parse_mark("4294967295", 10, &mark) && mark == UINT32_MAX);
    assert_true(egress_parse_mark("0x1F", 4, &mark) && mark == 31);
    assert_true(egress_parse_mark("0xffffffff", 10, &mark) && mark == UINT32_MAX);
    static const char *const marks[] = {"",    "-1", "+1",         " 1",          "1 ", "0x",
                                        "0xg", "a",  "4294967296", "12345678901", "1.0"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        assert_false(egress_parse_mark(marks[i], strlen(marks[i]), &mark));
    assert_true(egress_parse_device("eth0.12", 7, device));
    assert_string_equal(device, "eth0.12");
    assert_true(egress_parse_device("fifteen-letters", 15, device));
    static const char *const devices[] = {"", ".", "..", "sixteen--letters", "a b", "a/b", "a:b", "eth%d", "a\n"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        assert_false(egress_parse_device(devices[i], strlen(devices[i]), device));
    assert_string_equal(device, "fifteen-letters");
}

/* --- choosing --- */

static const char *place_text(const struct egress_sources *pool, const struct egress_place *place)
{
    static char text[ADDRESS_TEXT_SIZE];
    struct address address = egress_address(pool, place);
    address_format_host(&address, text, sizeof text);
    return text;
}

static const char *chosen(const struct egress_sources *pool, uint8_t kind, uint64_t number, bool spread)
{
    struct egress_place place;
    return egress_first(pool, kind, number, spread, &place) ? place_text(pool, &place) : "none";
}

/* Every host has its turn; network and broadcast address are none. */
static void test_turns(void **state)
{
    (void)state;
    struct egress_sources pool = pool_of("192.0.2.8/29,192.0.2.32/31,2001:db8::/126,10.0.0.1");
    static const char *const ipv4[] = {"192.0.2.9",  "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13",
                                       "192.0.2.14", "192.0.2.32", "192.0.2.33", "10.0.0.1",   "192.0.2.9"};
    static const char *const ipv6[] = {"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::1"};
    for (unsigned i = 0; i < 10; i++) assert_string_equal(chosen(&pool, ADDRESS_IPV4, i, false), ipv4[i]);
    for (unsigned i = 0; i < 4; i++) assert_string_equal(chosen(&pool, ADDRESS_IPV6, i, false), ipv6[i]);
    pool = pool_of("2001:db8::/64");
    assert_string_equal(chosen(&pool, ADDRESS_IPV6, 0, false), "2001:db8::1");
    assert_string_equal(chosen(&pool, ADDRESS_IPV6, 1, false), "2001:db8::2");
    assert_string_equal(chosen(&pool, ADDRESS_IPV4, 1, false), "none");
    pool = pool_of("same");
    assert_string_equal(chosen(&pool, ADDRESS_IPV4, 1, true), "none");
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

/* 1000 numbers have 1000 addresses of a /64, all inside it, none of them the network's own. */
static void test_large_networks_are_spread(void **state)
{
    static uint8_t seen[1000][16];
    static const uint8_t prefix[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1};
    struct egress_sources pool = pool_of("2001:db8:1::/64");
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        struct egress_place place;
        assert_true(egress_first(&pool, ADDRESS_IPV6, i, true, &place));
        struct address address = egress_address(&pool, &place);
        memcpy(seen[i], address.ipv6, 16);
        assert_memory_equal(seen[i], prefix, 8);
        assert_memory_not_equal(seen[i], prefix, 16);
    }
    qsort(seen, 1000, 16, compare);
    for (unsigned i = 1; i < 1000; i++) assert_memory_not_equal(seen[i - 1], seen[i], 16);
    pool = pool_of("2001:db8::/32"); /* and hosts have all the bits that the network leaves them */
    uint8_t bits[16] = {0};
    for (unsigned i = 0; i < 1000; i++) {
        struct egress_place place;
        egress_first(&pool, ADDRESS_IPV6, i, true, &place);
        struct address address = egress_address(&pool, &place);
        for (unsigned j = 0; j < 16; j++) bits[j] |= address.ipv6[j];
    }
    for (unsigned j = 4; j < 16; j++) assert_int_equal(bits[j], 0xff);
    assert_memory_equal(bits, ((uint8_t[]){0x20, 0x01, 0x0d, 0xb8}), 4);
}

/* A hash gives each address of a small pool about as many. */
static void test_small_pools_are_shared(void **state)
{
    struct egress_sources pool = pool_of("192.0.2.0/29,10.0.0.1,10.0.0.2");
    unsigned counts[8] = {0};
    (void)state;
    for (unsigned i = 0; i < 8000; i++) {
        struct egress_place place;
        assert_true(egress_first(&pool, ADDRESS_IPV4, i, true, &place));
        struct address address = egress_address(&pool, &place);
        counts[address.ipv4[0] == 10 ? 5 + address.ipv4[3] : address.ipv4[3] - 1]++;
    }
    for (unsigned i = 0; i < 8; i++) assert_in_range(counts[i], 800, 1200);
    assert_string_equal(chosen(&pool, ADDRESS_IPV4, 42, true), chosen(&pool, ADDRESS_IPV4, 42, true));
}

static void next_is(const struct egress_sources *pool, struct egress_place *place, const char *expected)
{
    assert_true(egress_next(pool, place));
    assert_string_equal(place_text(pool, place), expected);
}

static void test_another_one(void **state)
{
    struct egress_place place;
    (void)state;
    struct egress_sources pool = pool_of("192.0.2.7,2001:db8::7");
    assert_true(egress_first(&pool, ADDRESS_IPV4, 0, false, &place));
    assert_false(egress_next(&pool, &place)); /* of the other family is no other */
    assert_string_equal(place_text(&pool, &place), "192.0.2.7");
    pool = pool_of("192.0.2.7,2001:db8::7,192.0.2.9");
    assert_true(egress_first(&pool, ADDRESS_IPV4, 1, false, &place));
    next_is(&pool, &place, "192.0.2.7");
    next_is(&pool, &place, "192.0.2.9");
    pool = pool_of("192.0.2.0/30");
    assert_true(egress_first(&pool, ADDRESS_IPV4, 0, false, &place));
    next_is(&pool, &place, "192.0.2.2");
    next_is(&pool, &place, "192.0.2.1");
    pool = pool_of("2001:db8::/127");
    assert_true(egress_first(&pool, ADDRESS_IPV6, 1, false, &place));
    next_is(&pool, &place, "2001:db8::");
    pool = pool_of("2001:db8::/126");
    assert_true(egress_first(&pool, ADDRESS_IPV6, 2, false, &place));
    next_is(&pool, &place, "2001:db8::1");
    pool = pool_of("2001:db8:1::/64,2001:db8:2::/64");
    assert_true(egress_first(&pool, ADDRESS_IPV6, 0, false, &place));
    next_is(&pool, &place, "2001:db8:2::1");
    next_is(&pool, &place, "2001:db8:1::2");
    pool = pool_of("10.0.0.0/29,10.0.1.0/31");
    assert_true(egress_first(&pool, ADDRESS_IPV4, 5, false, &place));
    assert_string_equal(place_text(&pool, &place), "10.0.0.6");
    next_is(&pool, &place, "10.0.1.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_read),
        cmocka_unit_test(test_more_is_added),
        cmocka_unit_test(test_what_is_wrong),
        cmocka_unit_test(test_marks_and_interfaces),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_large_networks_are_spread),
        cmocka_unit_test(test_small_pools_are_shared),
        cmocka_unit_test(test_another_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

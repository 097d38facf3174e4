/* protocols/limit_text: keys and terms of limits, from text and back. */
#include "protocols/limit_text.h"

#include <stdio.h>
#include <string.h>

#include "tests/limit_keys.h"
#include "tests/support.h"

static struct limit_terms terms_of(const char *text)
{
    struct limit_terms terms;
    const char *wrong = limit_terms_parse(text, strlen(text), &terms);
    if (wrong) fail_msg("%s: %s", text, wrong);
    return terms;
}

static void is_written(const char *text, const char *expected)
{
    char out[LIMIT_KEY_TEXT_SIZE];
    struct limit_key key = key_of(text), again;
    size_t size = limit_key_format(&key, out, sizeof out);
    assert_string_equal(out, expected);
    assert_int_equal(size, strlen(out));
    again = key_of(out);
    assert_true(limit_key_equal(&key, &again));
}

static void test_keys_are_read_and_written(void **state)
{
    (void)state;
    is_written("source", "source");
    is_written("source/24/56", "source/24/56");
    is_written("source/32/64", "source");
    is_written("source:192.0.2.7", "source:192.0.2.7");
    is_written("source:192.0.2.7/24", "source:192.0.2.0/24");
    is_written("source:2001:db8:1:2:3::4", "source:2001:db8:1:2::/64");
    is_written("source:2001:db8:ffff::/33", "source:2001:db8:8000::/33");
    is_written("user:alice", "user:alice");
    is_written("user:a%20b%25c:d", "user:a%20b%25c:d");
    is_written("user:\xc3\xa4", "user:%C3%A4");
    is_written("target:WWW.Example.org", "target:www.example.org");
    is_written("target:2001:DB8:0::1", "target:2001:db8::1");
    is_written("listener:[::1]:1080", "listener:[::1]:1080");
    is_written("rule:direct", "rule:direct");
    is_written("user", "user");
    is_written("total", "total");
    is_written("gold", "gold");
    is_written("group:x", "group:x");
    is_written("ruler1", "ruler1");
    is_written("resource", "resource");
    is_written("USER:x", "USER:x");
}

static void test_wrong_keys_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "source:",
                                        "source:example.org",
                                        "source:1.2.3.4/33",
                                        "source/24",
                                        "source/33/64",
                                        "source/24/129",
                                        "source/24/64/1",
                                        "user:",
                                        "user:a b",
                                        "user:a%2",
                                        "user:a%zz",
                                        "total:x",
                                        "total/1",
                                        "user/2",
                                        "a b",
                                        "%73ource:x",
                                        "sourc:1.2.3.4",
                                        "sources",
                                        "suorce/24/64",
                                        "uesr:alice",
                                        "User:alice",
                                        "users",
                                        "totl",
                                        "listner:127.0.0.1:1",
                                        "tar9et:x",
                                        "%75sers:x",
                                        "srule",
                                        "source:1.2.3.4/",
                                        "source:/24",
                                        "\x7f"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct limit_key key, before;
        memset(&key, 0x5a, sizeof key);
        before = key;
        if (!limit_key_parse(wrong[i], strlen(wrong[i]), &key)) fail_msg("taken: %s", wrong[i]);
        assert_memory_equal(&key, &before, sizeof key);
    }
    char text[6 + LIMIT_NAME_MAX + 1];
    memset(text, 'x', sizeof text);
    memcpy(text, "user:", 5);
    struct limit_key key;
    assert_null(limit_key_parse(text, 5 + LIMIT_NAME_MAX, &key));
    assert_non_null(limit_key_parse(text, 6 + LIMIT_NAME_MAX, &key));
}

/* Every octet but blanks and controls may be escaped, digits of both cases; what is no digit beside them is not one. */
static void test_escapes(void **state)
{
    char text[16];
    struct limit_key key;
    (void)state;
    for (unsigned octet = 0; octet < 256; octet++) {
        for (unsigned i = 0; i < 2; i++) {
            if (i == 0)
                snprintf(text, sizeof text, "user:%%%02x", octet);
            else
                snprintf(text, sizeof text, "user:%%%02X", octet);
            if (limit_key_parse(text, strlen(text), &key) != NULL) {
                assert_true(octet == 0); /* which no name holds */
                continue;
            }
            assert_int_equal(key.size, 1);
            assert_int_equal(key.name[0], octet);
        }
        if ((octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'f') || (octet >= 'A' && octet <= 'F'))
            continue;
        snprintf(text, sizeof text, "user:%%4%c", (int)octet);
        assert_non_null(limit_key_parse(text, 8, &key));
        snprintf(text, sizeof text, "user:%%%c4", (int)octet);
        assert_non_null(limit_key_parse(text, 8, &key));
    }
    for (unsigned octet = 0x80; octet < 0x100; octet++) {
        snprintf(text, sizeof text, "user:%%%02x", octet);
        assert_null(limit_key_parse(text, strlen(text), &key));
    }
}

static void test_sources_are_networks(void **state)
{
    (void)state;
    const uint8_t usual[2] = {LIMIT_SOURCE_BITS_IPV4, LIMIT_SOURCE_BITS_IPV6}, wide[2] = {20, 0};
    struct address a, b;
    struct limit_key key, other;
    assert_true(address_from_host("2001:db8:1:2::7", 15, 0, &a));
    assert_true(address_from_host("2001:db8:1:2:ffff::", 19, 0, &b));
    limit_key_source(&a, usual, &key);
    limit_key_source(&b, usual, &other);
    assert_true(limit_key_equal(&key, &other));
    assert_true(address_from_host("2001:db8:1:3::7", 15, 0, &b));
    limit_key_source(&b, usual, &other);
    assert_false(limit_key_equal(&key, &other));
    limit_key_source(&a, wide, &key);
    limit_key_source(&b, wide, &other);
    assert_true(limit_key_equal(&key, &other));
    assert_true(address_from_host("192.0.31.255", 12, 0, &a));
    limit_key_source(&a, wide, &key);
    other = key_of("source:192.0.16.0/20");
    assert_true(limit_key_equal(&key, &other));
}

static void test_names_are_cut_and_hosts_have_no_case(void **state)
{
    (void)state;
    char text[LIMIT_NAME_MAX + 10];
    struct limit_key key, other;
    memset(text, 'A', sizeof text);
    limit_key_text(LIMIT_USER, text, sizeof text, &key);
    assert_int_equal(key.size, LIMIT_NAME_MAX);
    limit_key_text(LIMIT_TARGET, "EXAMPLE.org", 11, &key);
    other = key_of("target:example.ORG");
    assert_true(limit_key_equal(&key, &other));
    limit_key_text(LIMIT_USER, "EXAMPLE.org", 11, &key);
    other = key_of("user:example.org");
    assert_false(limit_key_equal(&key, &other));
}

static void test_terms_are_read(void **state)
{
    (void)state;
    struct limit_terms t = terms_of("connections=200 rate=50/s down=100Mbit/s");
    assert_int_equal(t.connections, 200);
    assert_int_equal(t.rate, 50);
    assert_int_equal(t.rate_seconds, 1);
    assert_true(t.speed[LIMIT_DOWN] == 12500000 && t.speed[LIMIT_UP] == 0 && t.speed[LIMIT_BOTH] == 0);
    assert_true(t.quota[LIMIT_BOTH] == LIMIT_QUOTA_NONE);
    t = terms_of("\tup=1.5MiB/s  both=8bit/s rate=9/h burst=3 quota=100GiB/month quota-up=7MB quota_down=0B/day ");
    assert_int_equal(t.speed[LIMIT_UP], 3 << 19);
    assert_int_equal(t.speed[LIMIT_BOTH], 1);
    assert_int_equal(t.rate_seconds, 3600);
    assert_int_equal(t.burst, 3);
    assert_true(t.quota[LIMIT_BOTH] == UINT64_C(100) << 30);
    assert_int_equal(t.period[LIMIT_BOTH], LIMIT_MONTH);
    assert_int_equal(t.quota[LIMIT_UP], 7000000);
    assert_int_equal(t.period[LIMIT_UP], LIMIT_EVER);
    assert_int_equal(t.quota[LIMIT_DOWN], 0);
    assert_int_equal(t.period[LIMIT_DOWN], LIMIT_DAY);
    assert_int_equal(t.connections, LIMIT_CONNECTIONS_NONE);
    assert_int_equal(terms_of("connections=0").connections, 0);
    assert_int_equal(terms_of("rate=5").rate_seconds, 1);
    assert_int_equal(terms_of("rate=5/min").rate_seconds, 60);
}

static uint64_t speed_of(const char *value)
{
    char text[64];
    snprintf(text, sizeof text, "down=%s", value);
    return terms_of(text).speed[LIMIT_DOWN];
}

/* Speeds are what others got wrong: 512 Mbit/s must not wrap, Mbit and MiB must not be mixed up. */
static void test_speeds_keep_their_size(void **state)
{
    (void)state;
    assert_int_equal(speed_of("1kB/s"), 1000);
    assert_int_equal(speed_of("8kbit/s"), 1000);
    assert_int_equal(speed_of("512Mbit/s"), 64000000);
    assert_int_equal(speed_of("513Mbit/s"), 64125000);
    assert_true(speed_of("10Gbit/s") == 1250000000);
    assert_true(speed_of("1Tbit/s") == LIMIT_SPEED_MAX);
    assert_int_equal(speed_of("1MiB/s"), 1048576);
    assert_int_equal(speed_of("0.5KiB/s"), 512);
    assert_int_equal(speed_of("1.001kB/s"), 1001);
    struct limit_terms t = terms_of("quota=1048576TiB");
    assert_true(t.quota[LIMIT_BOTH] == LIMIT_QUOTA_MAX);
}

static void test_wrong_terms_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "connections",
                                        "connections=",
                                        "connections=-1",
                                        "connections=1000000001",
                                        "rate=0",
                                        "rate=5/d",
                                        "rate=5/",
                                        "rate=1.5/s",
                                        "burst=3",
                                        "burst=0",
                                        "down=100",
                                        "down=100Mbit",
                                        "down=100Mbit/h",
                                        "down=0B/s",
                                        "down=1Mb/s",
                                        "down=1mbit/s",
                                        "down=1.2345MB/s",
                                        "down=.5MB/s",
                                        "down=1.MB/s",
                                        "down=1bit/s",
                                        "down=2Tbit/s",
                                        "down=99999999999999999999B/s",
                                        "quota=5GiB/year",
                                        "quota=5",
                                        "quota=5GiB/",
                                        "quota=1048577TiB",
                                        "up-burst=5kB",
                                        "down-burst=0B down=1kB/s",
                                        "speed=5",
                                        "=5",
                                        "down=5 MB/s",
                                        "connections=1,rate=2",
                                        "connections=1 connections=1",
                                        "down=1MB/s up=2MB/s down=1MB/s",
                                        "up_burst=1B up=3B/s up-burst=2B",
                                        "quota=1GB quota=2GB",
                                        "half-open=0",
                                        "resolving=x",
                                        "resolving=1000000001",
                                        "connections=1 x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct limit_terms terms = terms_of("connections=7"), before = terms;
        if (!limit_terms_parse(wrong[i], strlen(wrong[i]), &terms)) fail_msg("taken: %s", wrong[i]);
        assert_true(limit_terms_equal(&terms, &before));
    }
}

static void test_terms_are_written_so_that_they_are_read_again(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"connections=200 rate=50/s down=100Mbit/s", "connections=200 rate=50/s down=12500000B/s"},
        {"rate=5/min burst=9", "rate=5/min burst=9"},
        {"resolving=7 half_open=9", "half-open=9 resolving=7"},
        {"rate=5/hour", "rate=5/h"},
        {"quota=1048576TiB", "quota=1152921504606846976B"}, /* thousandths of it do not fit into 64 bits */
        {"quota-up=0000344279384GiB", "quota-up=369667173741756416B"},
        {"both=1MB/s both-burst=2MB quota=1GB quota-down=3B/week", "quota-down=3B/week both=1000000B/s "
                                                                   "both-burst=2000000B quota=1000000000B"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char out[LIMIT_TERMS_TEXT_SIZE];
        struct limit_terms terms = terms_of(texts[i][0]), again;
        size_t size = limit_terms_format(&terms, out, sizeof out);
        assert_int_equal(size, strlen(out));
        assert_string_equal(out, texts[i][1]);
        again = terms_of(out);
        assert_true(limit_terms_equal(&terms, &again));
    }
}

static void test_each_term_makes_a_difference(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "connections=3",       "rate=3",   "rate=3/h",    "rate=3 burst=4", "up=3B/s",     "down=3B/s",  "both=3B/s",
        "up=3B/s up-burst=1B", "quota=3B", "quota-up=3B", "quota=3B/day",   "half-open=3", "resolving=3"};
    const size_t count = sizeof texts / sizeof *texts;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            struct limit_terms a = terms_of(texts[i]), b = terms_of(texts[j]);
            assert_int_equal(limit_terms_equal(&a, &b), i == j);
        }
}

static void test_a_limit_is_a_key_and_terms(void **state)
{
    (void)state;
    struct limit_key key;
    struct limit_terms terms;
    const char *text = "source: connections=200 rate=50/s down=100Mbit/s";
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_true(key.every && key.kind == LIMIT_SOURCE);
    assert_int_equal(terms.rate, 50);
    text = "source:2001:db8::/48: connections=2";
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_equal(key.name[1], 48);
    static const char *const wrong[] = {"",
                                        "source",
                                        "source connections=1",
                                        ": connections=1",
                                        "source:",
                                        "source: ",
                                        "user:a b: connections=1",
                                        "nobody: speed=1",
                                        "user: half-open=1",
                                        "total: resolving=1",
                                        "gold: connections=1 half-open=1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_non_null(limit_parse(wrong[i], strlen(wrong[i]), &key, &terms));
}

/* What is wrong names the term, and nothing has changed. */
static void test_a_term_is_given_once(void **state)
{
    (void)state;
    static const char text[] = "down=1MB/s connections=2 down=3MB/s";
    struct limit_terms terms = terms_of("rate=7");
    assert_string_equal(limit_terms_parse(text, sizeof text - 1, &terms), "down: is given twice");
    assert_true(terms.rate == 7 && terms.speed[LIMIT_DOWN] == 0);
    assert_null(limit_terms_set(&terms, "down", 4, "1MB/s", 5));
    assert_string_equal(limit_terms_set(&terms, "down", 4, "2MB/s", 5), "down: is given twice");
    assert_int_equal(terms.speed[LIMIT_DOWN], 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_read_and_written),
        cmocka_unit_test(test_wrong_keys_are_refused),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_sources_are_networks),
        cmocka_unit_test(test_names_are_cut_and_hosts_have_no_case),
        cmocka_unit_test(test_terms_are_read),
        cmocka_unit_test(test_speeds_keep_their_size),
        cmocka_unit_test(test_wrong_terms_are_refused),
        cmocka_unit_test(test_terms_are_written_so_that_they_are_read_again),
        cmocka_unit_test(test_each_term_makes_a_difference),
        cmocka_unit_test(test_a_limit_is_a_key_and_terms),
        cmocka_unit_test(test_a_term_is_given_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

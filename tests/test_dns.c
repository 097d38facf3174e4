/* protocols/dns: questions and their case, addresses behind CNAMEs in any order, and whatever anybody may send. */
#include "protocols/dns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support.h"

struct message {
    uint8_t octets[4096];
    size_t size;
};

static void put(struct message *m, const void *data, size_t size)
{
    memcpy(m->octets + m->size, data, size);
    m->size += size;
}

static void put_16(struct message *m, unsigned value)
{
    put(m, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

static void put_name(struct message *m, const char *name)
{
    while (*name) {
        size_t label = strcspn(name, ".");
        put(m, &(uint8_t){(uint8_t)label}, 1);
        put(m, name, label);
        name += label + (name[label] == '.');
    }
    put(m, "", 1);
}

static void begin(struct message *m, const char *name, unsigned type)
{
    m->size = 0;
    put(m, "\x12\x34\x01\0\0\1\0\0\0\0\0\0", 12);
    put_name(m, name);
    put_16(m, type);
    put_16(m, 1);
}

static void add(struct message *m, const char *owner, unsigned type, unsigned ttl, const void *data, size_t size)
{
    put_name(m, owner);
    put_16(m, type);
    put_16(m, 1);
    put_16(m, 0);
    put_16(m, ttl);
    put_16(m, (unsigned)size);
    put(m, data, size);
    m->octets[2] |= 0x80;
    m->octets[7]++;
}

static void add_alias(struct message *m, const char *owner, const char *to, unsigned ttl)
{
    struct message name = {.size = 0};
    put_name(&name, to);
    add(m, owner, DNS_TYPE_CNAME, ttl, name.octets, name.size);
}

static void add_address(struct message *m, const char *owner, unsigned ttl, uint8_t last)
{
    add(m, owner, DNS_TYPE_A, ttl, (uint8_t[]){192, 0, 2, last}, 4);
}

static void test_order(void **state)
{
    struct message m;
    struct dns_addresses found;
    (void)state;
    begin(&m, "www.test", DNS_TYPE_A); /* the address in front of its CNAME */
    add_address(&m, "real.test", 300, 7);
    add_alias(&m, "www.test", "REAL.test", 20);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 1);
    assert_int_equal(found.octets[0][3], 7);
    assert_int_equal(found.ttl, 20);

    begin(&m, "a.test", DNS_TYPE_A); /* a chain backwards, strangers between */
    add_address(&m, "d.test", 60, 1);
    add_alias(&m, "c.test", "d.test", 50);
    add_address(&m, "other.test", 1, 9);
    add_alias(&m, "b.test", "c.test", 40);
    add_address(&m, "d.test", 60, 2);
    add_alias(&m, "a.test", "b.test", 70);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 2);
    assert_int_equal(found.octets[1][3], 2);
    assert_int_equal(found.ttl, 40);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_AAAA, &found));
    assert_int_equal(found.count, 0);
}

static void test_loops_and_crowds(void **state)
{
    struct message m;
    struct dns_addresses found;
    char from[16], to[16];
    (void)state;
    begin(&m, "a.test", DNS_TYPE_A);
    add_alias(&m, "a.test", "b.test", 40);
    add_alias(&m, "b.test", "a.test", 40);
    add_address(&m, "c.test", 60, 1);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 0);

    for (unsigned length = 15; length <= 18; length++) { /* a chain of 16 is followed, a longer one is not */
        begin(&m, "n0", DNS_TYPE_A);
        for (unsigned i = 0; i < length; i++) {
            snprintf(from, sizeof from, "n%u", i);
            snprintf(to, sizeof to, "n%u", i + 1);
            add_alias(&m, from, to, 40);
        }
        add_address(&m, to, 60, 1);
        assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
        assert_int_equal(found.count, length <= 16);
    }
    begin(&m, "m.test", DNS_TYPE_A);
    for (unsigned i = 0; i < 30; i++) add_address(&m, "m.test", 60, (uint8_t)i);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, DNS_ADDRESSES_MAX);
}

/* Each ends at an unmapped page. */
static void assert_no_prefix_is_read(const struct message *m, uint16_t type)
{
    struct dns_addresses found;
    for (size_t size = 0; size < m->size; size++) {
        uint8_t *copy = support_guard(m->octets, size);
        assert_false(dns_read_addresses(copy, size, type, &found));
        support_unguard(copy, size);
    }
}

static void test_pointers(void **state)
{
    struct message m;
    struct dns_addresses found;
    (void)state;
    begin(&m, "p.test", DNS_TYPE_A);
    m.octets[7] = 1;
    put(&m, "\xc0\x0c\0\1\0\1\0\0\0\5\0\4\1\2\3\4", 16);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 1);
    assert_int_equal(found.ttl, 5);
    assert_no_prefix_is_read(&m, DNS_TYPE_A);
    size_t owner = m.size - 16;
    m.octets[owner + 1] = (uint8_t)owner; /* to itself, forwards, into the header */
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 0);
    m.octets[owner + 1] = (uint8_t)(owner + 4);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 0);
    m.octets[owner + 1] = 2;
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_A, &found));
    assert_int_equal(found.count, 0);
}

static void test_cut_off(void **state)
{
    struct message m;
    struct dns_addresses found;
    (void)state;
    begin(&m, "www.test", DNS_TYPE_AAAA);
    add_alias(&m, "www.test", "real.test", 20);
    add(&m, "real.test", DNS_TYPE_AAAA, 60, "0123456789abcdef", 16);
    assert_true(dns_read_addresses(m.octets, m.size, DNS_TYPE_AAAA, &found));
    assert_int_equal(found.count, 1);
    assert_no_prefix_is_read(&m, DNS_TYPE_AAAA);
    for (size_t at = 0; at < m.size; at++) { /* any octet may be any other: nothing is promised but an end */
        uint8_t octet = m.octets[at];
        for (unsigned value = 0; value < 256; value++) {
            m.octets[at] = (uint8_t)value;
            dns_read_addresses(m.octets, m.size, DNS_TYPE_AAAA, &found);
            assert_true(found.count <= DNS_ADDRESSES_MAX);
        }
        m.octets[at] = octet;
    }
}

static void test_case(void **state)
{
    struct message query, answer;
    (void)state;
    begin(&query, "Example-1.Test", DNS_TYPE_A);
    answer = query;
    answer.octets[2] |= 0x80;
    assert_int_equal(dns_match(query.octets, query.size, answer.octets, answer.size), DNS_SAME);
    assert_true(dns_mix_case(query.octets, query.size, 0));
    assert_memory_equal(query.octets + 12, "\11example-1\4test", 15);
    assert_true(dns_mix_case(query.octets, query.size, UINT64_MAX));
    assert_memory_equal(query.octets + 12, "\11EXAMPLE-1\4TEST", 15);
    assert_true(dns_mix_case(query.octets, query.size, 5));
    assert_memory_equal(query.octets + 12, "\11ExAmple-1\4test", 15);
    assert_int_equal(dns_match(query.octets, query.size, answer.octets, answer.size), DNS_CASE);
    memcpy(answer.octets + 12, query.octets + 12, 15);
    assert_int_equal(dns_match(query.octets, query.size, answer.octets, answer.size), DNS_SAME);
    assert_int_equal(dns_match(query.octets, query.size, query.octets, query.size), DNS_DIFFERS); /* no answer */
    for (size_t at = 0; at < answer.size; at++) { /* what must be the same */
        bool matters = at < 2 || at == 4 || at == 5 || at >= 12;
        answer.octets[at] ^= 1;
        assert_int_equal(dns_match(query.octets, query.size, answer.octets, answer.size) == DNS_DIFFERS, matters);
        answer.octets[at] ^= 1;
        assert_int_equal(dns_match(query.octets, query.size, answer.octets, at), DNS_DIFFERS);
    }
    begin(&answer, "AZ@[`{.az", DNS_TYPE_A); /* the first and the last letter, and their neighbours */
    assert_true(dns_mix_case(answer.octets, answer.size, UINT64_MAX));
    assert_memory_equal(answer.octets + 12, "\6AZ@[`{\2AZ", 10);
    assert_true(dns_mix_case(answer.octets, answer.size, 0));
    assert_memory_equal(answer.octets + 12, "\6az@[`{\2az", 10);
    assert_int_equal(dns_truncate(query.octets, query.size), query.size);
    assert_int_equal(query.octets[2] & 0x82, 0x82);
    assert_false(dns_mix_case(query.octets, 12, 1));
    assert_int_equal(dns_truncate(query.octets, 16), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),    cmocka_unit_test(test_loops_and_crowds),
        cmocka_unit_test(test_pointers), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_case),
    };
    return cmocka_run_group_tests_name("dns", tests, NULL, NULL);
}

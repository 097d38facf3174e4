/* Whom associations have sent to: what is remembered, who gives up what, and 300,000 steps beside a naive model. */
#include <string.h>

#include "core/session/udp_peers.h"
#include "tests/support.h"

static struct address ipv4(uint32_t number)
{
    struct address a = {.kind = ADDRESS_IPV4, .port = (uint16_t)number};
    memcpy(a.ipv4, &number, sizeof a.ipv4);
    return a;
}

static struct address ipv6(uint32_t number)
{
    struct address a = {.kind = ADDRESS_IPV6, .port = 53};
    memcpy(a.ipv6 + 12, &number, sizeof number);
    return a;
}

static struct udp_peers *open_peers(uint32_t count, uint32_t owners)
{
    struct udp_peers *p;
    assert_int_equal(udp_peers_open(&p, count, owners), 0);
    return p;
}

static void note_many(struct udp_peers *p, uint32_t owner, uint32_t from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct address a = ipv4(from + i);
        udp_peers_note(p, owner, &a, 1000);
    }
}

static uint32_t known(struct udp_peers *p, uint32_t owner, uint32_t from, uint32_t count)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct address a = ipv4(from + i);
        sum += udp_peers_know(p, owner, &a, 1000);
    }
    return sum;
}

static void test_a_thousand_at_a_time(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(65536, 256);
    note_many(p, 7, 1, UDP_PEERS_MAX);
    assert_int_equal(known(p, 7, 1, UDP_PEERS_MAX), UDP_PEERS_MAX);
    assert_int_equal(known(p, 8, 1, UDP_PEERS_MAX), 0);
    udp_peers_close(p);
}

static void test_port_does_not_count_but_family_does(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(16, 2);
    struct address a = ipv4(5), b = ipv6(5), mapped = {.kind = ADDRESS_IPV6};
    memcpy(mapped.ipv6, a.ipv4, sizeof a.ipv4);
    udp_peers_note(p, 0, &a, 1000);
    a.port++;
    assert_true(udp_peers_know(p, 0, &a, 1000));
    assert_false(udp_peers_know(p, 0, &b, 1000));
    assert_false(udp_peers_know(p, 0, &mapped, 1000)); /* the same octets */
    udp_peers_note(p, 0, &b, 1000);
    assert_true(udp_peers_know(p, 0, &b, 1000));
    udp_peers_close(p);
}

static void test_time(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(16, 1);
    struct address a = ipv4(1);
    udp_peers_note(p, 0, &a, 1000);
    assert_true(udp_peers_know(p, 0, &a, 1000 + UDP_PEER_MS - 1));
    assert_false(udp_peers_know(p, 0, &a, 1000 + UDP_PEER_MS));
    udp_peers_note(p, 0, &a, 1000 + UDP_PEER_MS);
    assert_true(udp_peers_know(p, 0, &a, 1000 + UDP_PEER_MS));
    assert_int_equal(udp_peers_count(p, 0), 1);
    udp_peers_close(p);
}

static void test_least_recently_used_goes(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(65536, 256);
    note_many(p, 0, 1, UDP_PEERS_MAX);
    note_many(p, 0, 1, 1); /* used again: the second one is the oldest now */
    note_many(p, 0, 5000, 1);
    assert_int_equal(known(p, 0, 1, 1), 1);
    assert_int_equal(known(p, 0, 2, 1), 0);
    assert_int_equal(known(p, 0, 3, UDP_PEERS_MAX - 2), UDP_PEERS_MAX - 2);
    assert_int_equal(udp_peers_count(p, 0), UDP_PEERS_MAX);
    udp_peers_close(p);
}

/* A full table: whoever has most gives up what it used longest ago; those with little keep it. */
static void test_the_richest_pays(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(2048, 8);
    note_many(p, 0, 1, UDP_PEERS_MAX);
    note_many(p, 1, 1, UDP_PEERS_MAX - 10);
    note_many(p, 2, 1, 10); /* full */
    note_many(p, 3, 1, 200);
    assert_int_equal(udp_peers_count(p, 2), 10);
    assert_int_equal(known(p, 2, 1, 10), 10);
    assert_int_equal(known(p, 3, 1, 200), 200);
    assert_in_range(udp_peers_count(p, 0), 919, 920);
    assert_in_range(udp_peers_count(p, 1), 918, 919);
    assert_int_equal(known(p, 0, 1 + UDP_PEERS_MAX - 900, 900), 900);
    for (uint32_t i = 0; i < 100000; i++) note_many(p, 4, i, 1); /* a flood ends at its fair share */
    assert_int_equal(known(p, 2, 1, 10), 10);
    assert_int_equal(known(p, 3, 1, 200), 200);
    assert_true(udp_peers_count(p, 0) > 500 && udp_peers_count(p, 1) > 500);
    udp_peers_close(p);
}

static void test_forgotten(void **state)
{
    (void)state;
    struct udp_peers *p = open_peers(256, 2);
    for (unsigned round = 0; round < 100; round++) { /* no entry is lost on the way */
        note_many(p, 0, round, 200);
        note_many(p, 1, round, 56);
        assert_int_equal(known(p, 0, round, 200), 200);
        udp_peers_forget(p, 0);
        assert_int_equal(known(p, 0, round, 200), 0);
        assert_int_equal(udp_peers_count(p, 0), 0);
        assert_int_equal(known(p, 1, round, 56), 56);
        udp_peers_forget(p, 1);
    }
    udp_peers_close(p);
}

/* --- beside a model: arrays in the order of use, oldest first --- */

#define OWNERS 5u
#define COUNT  64u

struct model {
    uint32_t numbers[OWNERS][COUNT];
    uint32_t counts[OWNERS];
};

static void model_remove(struct model *m, uint32_t owner, uint32_t at)
{
    m->counts[owner]--;
    memmove(&m->numbers[owner][at], &m->numbers[owner][at + 1], (m->counts[owner] - at) * sizeof m->numbers[0][0]);
}

static void model_note(struct model *m, uint32_t owner, uint32_t number)
{
    uint32_t sum = 0, richest = 0;
    for (uint32_t at = 0; at < m->counts[owner]; at++)
        if (m->numbers[owner][at] == number) {
            model_remove(m, owner, at);
            break;
        }
    for (uint32_t i = 0; i < OWNERS; i++) {
        sum += m->counts[i];
        if (m->counts[i] > m->counts[richest]) richest = i;
    }
    if (sum == COUNT) model_remove(m, richest, 0);
    m->numbers[owner][m->counts[owner]++] = number;
}

static bool model_knows(const struct model *m, uint32_t owner, uint32_t number)
{
    for (uint32_t at = 0; at < m->counts[owner]; at++)
        if (m->numbers[owner][at] == number) return true;
    return false;
}

static void test_model(void **state)
{
    (void)state;
    static struct model model;
    struct udp_peers *p = open_peers(COUNT, OWNERS);
    uint64_t random = 88172645463325252u;
    for (unsigned step = 0; step < 300000; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint32_t owner = (uint32_t)(random >> 8) % OWNERS, number = (uint32_t)(random >> 32) % 100;
        struct address a = number % 2 ? ipv4(number) : ipv6(number);
        if (random % 1000 == 0) {
            udp_peers_forget(p, owner);
            model.counts[owner] = 0;
        } else if (random % 3) {
            udp_peers_note(p, owner, &a, 1);
            model_note(&model, owner, number);
        }
        assert_int_equal(udp_peers_know(p, owner, &a, 1), model_knows(&model, owner, number));
        assert_int_equal(udp_peers_count(p, owner), model.counts[owner]);
    }
    udp_peers_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thousand_at_a_time),
        cmocka_unit_test(test_port_does_not_count_but_family_does),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_the_richest_pays),
        cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* core/resolver/address_order: which of two addresses is tried first, as far as every machine has the same routes, and
 * how the families take turns. */
#include "core/resolver/address_order.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

static struct resolve_result result(const char *text)
{
    struct address plain;
    struct resolve_result out = {.kind = ADDRESS_NONE};
    assert_true(address_from_host(text, strlen(text), 0, &plain));
    out.kind = plain.kind;
    memcpy(out.octets, plain.ipv6, sizeof out.octets);
    return out;
}

static void is(const struct resolve_result *got, const char *text)
{
    struct resolve_result expected = result(text);
    assert_int_equal(got->kind, expected.kind);
    assert_memory_equal(got->octets, expected.octets, got->kind == ADDRESS_IPV4 ? 4 : 16);
}

/* Of 127.0.0.1, ... and the one given in IPv6 that many of each; what comes out is as listed. */
static void interlaces(uint32_t ipv4_count, const char *ipv6, uint32_t ipv6_count, uint32_t room,
                       const char *const *expected, uint32_t count)
{
    struct resolve_result four[] = {result("127.0.0.1"), result("127.0.0.2"), result("127.0.0.3")};
    struct resolve_result six[] = {result(ipv6), result(ipv6), result(ipv6)}, out[7];
    memset(out, 0, sizeof out);
    assert_int_equal(address_order_interlace(four, ipv4_count, six, ipv6_count, out, room), count);
    for (uint32_t i = 0; i < count; i++) is(&out[i], expected[i]);
    assert_int_equal(out[count].kind, ADDRESS_NONE);
}

/* ::2 is no address that anybody has: IPv4 begins. 2001:db8:: would be one behind a default route. */
static void test_families_take_turns(void **state)
{
    (void)state;
    interlaces(2, "::2", 3, 6, (const char *[]){"127.0.0.1", "::2", "127.0.0.2", "::2", "::2"}, 5);
    interlaces(3, "::2", 1, 6, (const char *[]){"127.0.0.1", "::2", "127.0.0.2", "127.0.0.3"}, 4);
    interlaces(3, "::2", 2, 3, (const char *[]){"127.0.0.1", "::2", "127.0.0.2"}, 3);
    interlaces(2, "::2", 0, 6, (const char *[]){"127.0.0.1", "127.0.0.2"}, 2);
    interlaces(0, "::2", 2, 6, (const char *[]){"::2", "::2"}, 2);
    interlaces(0, "::2", 0, 6, NULL, 0);
    interlaces(1, "::2", 1, 1, (const char *[]){"127.0.0.1"}, 1);
}

static void sorts(const char *const *before, const char *const *behind, uint32_t count)
{
    struct resolve_result all[4];
    for (uint32_t i = 0; i < count; i++) all[i] = result(before[i]);
    address_order_sort(all, count);
    for (uint32_t i = 0; i < count; i++) is(&all[i], behind[i]);
}

/* Rule 1: what cannot be reached comes last, the others stay as they were. */
static void test_unusable_last(void **state)
{
    (void)state;
    sorts((const char *[]){"255.255.255.255", "127.0.0.1"}, (const char *[]){"127.0.0.1", "255.255.255.255"}, 2);
    sorts((const char *[]){"127.0.0.3", "255.255.255.255", "127.0.0.1", "127.0.0.2"},
          (const char *[]){"127.0.0.3", "127.0.0.1", "127.0.0.2", "255.255.255.255"}, 4);
    sorts((const char *[]){"255.255.255.255"}, (const char *[]){"255.255.255.255"}, 1);
}

/* Rule 9: of two with the same source the one that has more of its bits in front; also where they part within an octet.
 * In a network of our own, in which one address is the source for its whole prefix. */
static void test_longest_prefix_first(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNET) < 0) skip();
    /* NOLINTNEXTLINE(cert-env33-c): a test without threads */
    int status = system("ip link set lo up && ip -6 addr add 2001:db8:a::1/128 dev lo nodad && "
                        "ip -6 route add 2001:db8:a::/48 dev lo src 2001:db8:a::1");
    assert_int_equal(status, 0);
    sorts((const char *[]){"2001:db8:a:8000::1", "2001:db8:a:4000::1"},
          (const char *[]){"2001:db8:a:4000::1", "2001:db8:a:8000::1"}, 2);
    sorts((const char *[]){"2001:db8:a:100::1", "2001:db8:a:1::1", "2001:db8:a:2::1", "2001:db8:a:200::1"},
          (const char *[]){"2001:db8:a:1::1", "2001:db8:a:2::1", "2001:db8:a:100::1", "2001:db8:a:200::1"}, 4);
    sorts((const char *[]){"2001:db8:a:4000::1", "2001:db8:a:6000::1"}, /* both 49 bits: as they were */
          (const char *[]){"2001:db8:a:4000::1", "2001:db8:a:6000::1"}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families_take_turns),
        cmocka_unit_test(test_unusable_last),
        cmocka_unit_test(test_longest_prefix_first),
    };
    return cmocka_run_group_tests_name("address order", tests, NULL, NULL);
}

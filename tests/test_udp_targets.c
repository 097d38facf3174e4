/* What a UDP association remembers of its targets: bounded, by name in whatever case, until it is void. */
#include "core/session/udp_targets.h"
#include <stdio.h>
#include <string.h>

#include "tests/support.h"

static struct udp_targets targets;

static struct address at(const char *host, uint16_t port)
{
    struct address address;
    assert_true(address_from_host(host, strlen(host), port, &address));
    return address;
}

static struct udp_target *find(const char *host, uint16_t port, uint64_t now_ms)
{
    struct address address = at(host, port);
    return udp_targets_find(&targets, &address, now_ms);
}

static struct udp_target *put(const char *host, uint16_t port)
{
    struct address address = at(host, port);
    struct udp_target *target = udp_targets_put(&targets, &address);
    assert_true(target->drops);
    assert_int_equal(target->chain, UDP_NO_CHAIN);
    target->to = address;
    return target;
}

static int setup(void **state)
{
    (void)state;
    memset(&targets, 0xa5, sizeof targets); /* what the slot's last owner has left */
    udp_targets_clear(&targets);
    return 0;
}

static void test_found_by_what_was_asked(void **state)
{
    (void)state;
    assert_null(find("192.0.2.1", 53, 0));
    struct udp_target *address = put("192.0.2.1", 53), *name = put("Name.example", 53);
    assert_ptr_equal(find("192.0.2.1", 53, 0), address);
    assert_ptr_equal(find("nAME.example", 53, 0), name);
    assert_null(find("192.0.2.1", 54, 0));
    assert_null(find("192.0.2.2", 53, 0));
    assert_null(find("::ffff:192.0.2.1", 53, 0));
    udp_targets_clear(&targets);
    assert_null(find("192.0.2.1", 53, 0));
}

static void test_void_in_time(void **state)
{
    (void)state;
    put("192.0.2.1", 53)->until_ms = 1000;
    assert_non_null(find("192.0.2.1", 53, 999));
    assert_null(find("192.0.2.1", 53, 1000));
    assert_null(find("192.0.2.1", 53, 0)); /* gone */
    put("192.0.2.2", 53);
    assert_int_equal(targets.count, 1); /* in its place */
}

static void test_the_one_used_longest_ago_makes_room(void **state)
{
    char host[32];
    (void)state;
    for (unsigned i = 0; i < UDP_TARGETS_MAX; i++) {
        snprintf(host, sizeof host, "10.0.%u.%u", i / 250, i % 250 + 1);
        put(host, 9);
    }
    assert_non_null(find("10.0.0.1", 9, 0)); /* the first one is used: the second is the oldest now */
    put("192.0.2.1", 9);
    assert_int_equal(targets.count, UDP_TARGETS_MAX);
    assert_non_null(find("192.0.2.1", 9, 0));
    assert_non_null(find("10.0.0.1", 9, 0));
    assert_null(find("10.0.0.2", 9, 0));
    assert_non_null(find("10.0.0.3", 9, 0));
}

static void test_chain_that_is_lost(void **state)
{
    (void)state;
    struct udp_target *first = put("192.0.2.1", 9), *second = put("192.0.2.2", 9), *direct = put("192.0.2.3", 9);
    first->chain = 0;
    second->chain = 1;
    first->drops = second->drops = direct->drops = false;
    udp_targets_lose_chain(&targets, 0, 500);
    assert_true(find("192.0.2.1", 9, 499)->drops);
    assert_null(find("192.0.2.1", 9, 500));
    assert_false(find("192.0.2.2", 9, 500)->drops);
    assert_false(find("192.0.2.3", 9, 500)->drops);
    udp_targets_lose_chain(&targets, 1, 0);
    assert_null(find("192.0.2.2", 9, 0));
    assert_non_null(find("192.0.2.3", 9, 0));
}

static void sends(const char *asked, const char *to)
{
    struct udp_target *target = put(asked, 9);
    target->to = at(to, 9);
    struct address sent_to = at(to, 9);
    udp_targets_note(&targets, target, &sent_to);
}

static void assert_answers_as(const char *from, uint16_t port, const char *expected)
{
    struct address source = at(from, port);
    const struct address *asked = udp_targets_asked(&targets, &source);
    char text[ADDRESS_TEXT_SIZE];
    if (expected) assert_non_null(asked);
    if (!expected) assert_null(asked);
    if (!expected || !asked) return;
    address_format_host(asked, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_answers_in_the_name_of_what_was_asked_for(void **state)
{
    (void)state;
    sends("192.0.2.1", "192.0.2.1");
    assert_answers_as("192.0.2.1", 9, NULL);
    sends("192.0.2.9", "192.0.2.1"); /* from here on it is the one that was used last */
    assert_answers_as("192.0.2.1", 9, "192.0.2.9");
    assert_non_null(find("192.0.2.1", 9, 0));
    assert_answers_as("192.0.2.1", 9, "192.0.2.1");
    sends("192.0.2.2", "10.0.0.1");
    assert_answers_as("10.0.0.1", 9, "192.0.2.2");
    assert_answers_as("10.0.0.1", 10, NULL);
    assert_answers_as("10.0.0.2", 9, NULL);
    sends("name.example", "10.0.0.2");
    assert_answers_as("10.0.0.2", 9, NULL);
    sends("2001:db8::1", "10.0.0.1"); /* two of them go there: the one used last */
    assert_answers_as("10.0.0.1", 9, "2001:db8::1");
    assert_non_null(find("192.0.2.2", 9, 0));
    assert_answers_as("10.0.0.1", 9, "192.0.2.2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_found_by_what_was_asked, setup),
        cmocka_unit_test_setup(test_void_in_time, setup),
        cmocka_unit_test_setup(test_the_one_used_longest_ago_makes_room, setup),
        cmocka_unit_test_setup(test_chain_that_is_lost, setup),
        cmocka_unit_test_setup(test_answers_in_the_name_of_what_was_asked_for, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

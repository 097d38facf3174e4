/* protocols/group_text: groups of upstreams as text. */
#include "protocols/group_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

static struct group_plan plan;

static const char *parse(const char *text)
{
    return group_parse(text, strlen(text), &plan);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_null(parse("pool=socks5://a:1080,socks5://u:p%2Cq@b"));
    assert_string_equal(plan.name, "pool");
    assert_int_equal(plan.count, 2);
    assert_false(plan.targets);
    assert_int_equal(plan.policy, GROUP_ROUND);
    assert_int_equal(plan.check, GROUP_CHECK_NONE);
    assert_int_equal(plan.tries, 3);
    assert_int_equal(plan.fails, 3);
    assert_int_equal(plan.timeout_ms, 5000);
    assert_int_equal(plan.members[1].weight, 1);
    assert_int_equal(plan.members[1].uri.address.port, 1080);
    assert_string_equal(plan.members[1].uri.credentials.password, "p,q");
}

static void test_terms_of_members_and_of_the_group(void **state)
{
    (void)state;
    assert_null(parse("web_1.x=policy=hash,10.0.0.1:80,weight=256, 10.0.0.2:80 ,backup=yes,max=7,[2001:db8::1]:80,"
                      "check=http,path=/up?x=1,interval=0.25,check_timeout=1.5,rise=1,fall=4,fails=0,window=8,eject=2,"
                      "tries=8,timeout=0.1"));
    assert_true(plan.targets);
    assert_int_equal(plan.count, 3);
    assert_int_equal(plan.members[0].weight, 256);
    assert_int_equal(plan.members[1].most, 7);
    assert_true(plan.members[1].backup);
    assert_false(plan.members[2].backup);
    assert_int_equal(plan.policy, GROUP_HASH);
    assert_int_equal(plan.check, GROUP_CHECK_HTTP);
    assert_string_equal(plan.path, "/up?x=1");
    assert_int_equal(plan.interval_ms, 250);
    assert_int_equal(plan.check_timeout_ms, 1500);
    assert_int_equal(plan.rise, 1);
    assert_int_equal(plan.fall, 4);
    assert_int_equal(plan.fails, 0);
    assert_int_equal(plan.window_ms, 8000);
    assert_int_equal(plan.eject_ms, 2000);
    assert_int_equal(plan.tries, 8);
    assert_int_equal(plan.timeout_ms, 100);
}

static void is_wrong(const char *text, const char *expected)
{
    const char *wrong = parse(text);
    if (!wrong) fail_msg("%s is taken", text);
    if (!strstr(wrong, expected)) fail_msg("%s: %s", text, wrong);
}

static void test_wrong_groups_are_refused(void **state)
{
    (void)state;
    is_wrong("", "NAME=");
    is_wrong("pool", "NAME=");
    is_wrong("=socks5://a", "name");
    is_wrong("a b=socks5://a", "name");
    is_wrong(".a=socks5://a", "name");
    is_wrong("abcdefghijklmnopqrstuvwxyz0123456=socks5://a", "name");
    is_wrong("p=", "nothing between");
    is_wrong("p=socks5://a,,socks5://b", "nothing between");
    is_wrong("p=socks5://a,", "nothing between");
    is_wrong("p=policy=round", "needs a member");
    is_wrong("p=socks4://a", "unknown scheme");
    is_wrong("p=a", "neither");
    is_wrong("p=a:0", "neither");
    is_wrong("p=group:q", "neither");
    is_wrong("p=socks5://a\"b", "host");
    is_wrong("p=socks5://a,b:80", "not both");
    is_wrong("p=socks5://a,http://a:1080", "same host");
    is_wrong("p=socks5://a,colour=red", "unknown term");
    is_wrong("p=weight=2,socks5://a", "behind a member");
    is_wrong("p=socks5://a,weight=2,weight=3", "twice");
    is_wrong("p=socks5://a,policy=least,policy=hash", "twice");
    is_wrong("p=socks5://a,weight=0", "1 to 256");
    is_wrong("p=socks5://a,weight=257", "1 to 256");
    is_wrong("p=socks5://a,backup=maybe", "yes or no");
    is_wrong("p=socks5://a,backup=yes", "all members are backups");
    is_wrong("p=socks5://a,policy=random", "round, least");
    is_wrong("p=socks5://a,interval=5", "give check");
    is_wrong("p=socks5://a,check=tcp,interval=0.05", "0.1 to");
    is_wrong("p=socks5://a,check=tcp,interval=1.0001", "0.1 to");
    is_wrong("p=socks5://a,check=tcp,interval=.5", "0.1 to");
    is_wrong("p=socks5://a,check=tcp,interval=1e3", "0.1 to");
    is_wrong("p=socks5://a,check=http", "check=http is for");
    is_wrong("p=http://a,check=socks5", "check=socks5 is for");
    is_wrong("p=a:1,check=socks5", "no proxies");
    is_wrong("p=http://a,check=http,path=/x", "HTTP checks of targets");
    is_wrong("p=a:1,check=http,path=x", "begins with /");
    is_wrong("p=a:1,check=http,path=/a b", "begins with /");
    is_wrong("p=socks5://a,tries=9", "1 to 8");
    is_wrong("p=socks5://a,fails=17", "0 to 16");
}

static void test_there_is_room_for_64_members(void **state)
{
    char text[4096] = "p=a:1";
    (void)state;
    for (unsigned i = 2; i <= GROUP_MEMBERS_MAX; i++) {
        size_t size = strlen(text);
        snprintf(text + size, sizeof text - size, ",a:%u", i);
    }
    assert_null(parse(text));
    assert_int_equal(plan.count, GROUP_MEMBERS_MAX);
    strcat(text, ",b:1");
    is_wrong(text, "64 members");
}

static void test_groups_where_they_are_used(void **state)
{
    struct address address;
    struct proxy_uri hop;
    char out[PROXY_URI_TEXT_SIZE];
    (void)state;
    assert_true(group_address_parse("group:a-1", 9, &address));
    assert_int_equal(address.kind, ADDRESS_GROUP);
    assert_int_equal(address_format(&address, out, sizeof out), 9);
    assert_string_equal(out, "group:a-1");
    assert_false(group_address_parse("group:", 6, &address));
    assert_false(group_address_parse("group:a:80", 10, &address)); /* what a client could make a name of */
    assert_false(group_address_parse("group:80", 8, &address));    /* a host of that name */
    assert_false(group_address_parse("grouper:80", 10, &address));
    assert_null(group_hop_parse("group:a", 7, &hop));
    assert_int_equal(hop.address.kind, ADDRESS_GROUP);
    proxy_uri_format(&hop, out, sizeof out);
    assert_string_equal(out, "group:a");
    assert_non_null(group_hop_parse("group:a b", 9, &hop));
    assert_null(group_hop_parse("socks5://a", 10, &hop));
    assert_int_equal(hop.address.kind, ADDRESS_NAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_terms_of_members_and_of_the_group),
        cmocka_unit_test(test_wrong_groups_are_refused),
        cmocka_unit_test(test_there_is_room_for_64_members),
        cmocka_unit_test(test_groups_where_they_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

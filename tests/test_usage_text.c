/* protocols/usage_text: where usage is kept, as text. */
#include "protocols/usage_text.h"

#include <string.h>

#include "tests/support.h"

static const char *parse(const char *text, struct usage_text *out)
{
    uint8_t *guarded = support_guard(text, strlen(text));
    const char *wrong = usage_text_parse((const char *)guarded, strlen(text), out);
    support_unguard(guarded, strlen(text));
    return wrong;
}

static void test_texts(void **state)
{
    (void)state;
    struct usage_text u;
    char text[USAGE_TEXT_SIZE];
    assert_null(parse("sqlite:/var/lib/x.db", &u));
    assert_int_equal(u.kind, USAGE_SQLITE);
    assert_string_equal(u.path, "/var/lib/x.db");
    usage_text_format(&u, text, sizeof text);
    assert_string_equal(text, "sqlite:/var/lib/x.db");
    assert_null(parse("REDISS://us%65r:p%40ss@[2001:db8::1]:7000/12?ca=/etc/ca.pem", &u));
    assert_true(u.kind == USAGE_REDIS && u.tls && u.db == 12 && u.address.port == 7000 &&
                u.address.kind == ADDRESS_IPV6);
    assert_string_equal(u.credentials.user, "user");
    assert_string_equal(u.credentials.password, "p@ss");
    assert_string_equal(u.ca, "/etc/ca.pem");
    usage_text_format(&u, text, sizeof text);
    assert_string_equal(text, "rediss://[2001:db8::1]:7000/12");
    assert_null(parse("redis://:secret@cache", &u));
    assert_true(!u.tls && u.db == 0 && u.address.port == 6379 && u.credentials.present && !*u.credentials.user);
    assert_null(parse("redis://cache/", &u));
    assert_false(u.credentials.present);
}

static void test_wrong_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "sqlite",
                                        "redis",
                                        "redis://",
                                        "redis:///0",
                                        "redis://host/a",
                                        "redis://host/0/0",
                                        "redis://host/1000001",
                                        "redis://host/99999999999999",
                                        "redis://host:0",
                                        "redis://host:70000",
                                        "redis://a@b@c",
                                        "redis://%zz@host",
                                        "redis://%00@host",
                                        "redis://host?ca=x",
                                        "rediss://host?ca=",
                                        "rediss://host?cb=x",
                                        "mysql://host"};
    struct usage_text u, before;
    memset(&u, 0x5a, sizeof u);
    before = u;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *wrong = parse(texts[i], &u);
        if (!wrong || !*wrong) fail_msg("\"%s\" was taken", texts[i]);
        assert_memory_equal(&u, &before, sizeof u);
    }
    char longest[USAGE_PATH_MAX + 9] = "sqlite:";
    memset(longest + 7, 'x', USAGE_PATH_MAX + 1);
    assert_non_null(usage_text_parse(longest, USAGE_PATH_MAX + 8, &u));
    assert_null(usage_text_parse(longest, USAGE_PATH_MAX + 7, &u));
    assert_non_null(usage_text_parse("sqlite:a\0b", 10, &u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_wrong_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

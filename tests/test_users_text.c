/* protocols/users_text: lines of a file of users. */
#include "protocols/users_text.h"

#include <stdio.h>
#include <string.h>

#include "tests/support.h"

#define BCRYPT   "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
#define SALT     "abcdefghijkl./AB"
#define SHA512   SALT "$" A43 A43
#define A43      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq"
#define YESCRYPT "$y$j9T$abcdefghijklmnopqrstuv$" A43

/* Each line ends at an unmapped page. */
static const char *parse(const char *text, struct users_line *line)
{
    static uint8_t *copy;
    static size_t size;
    if (copy) support_unguard(copy, size); /* what the spans of the call before have pointed to */
    size = strlen(text);
    copy = support_guard(text, size);
    return users_parse_line((const char *)copy, size, line);
}

static void is_field(struct users_span span, const char *expected)
{
    assert_int_equal(span.size, strlen(expected));
    assert_memory_equal(span.text, expected, span.size);
}

static void reads(const char *text, const char *name, const char *hash, const char *groups, const char *limit)
{
    struct users_line line;
    const char *wrong = parse(text, &line);
    if (wrong) fail_msg("%s: %s", text, wrong);
    is_field(line.name, name);
    is_field(line.hash, hash);
    is_field(line.groups, groups);
    is_field(line.limit, limit);
}

static void refuses(const char *text, const char *part)
{
    struct users_line line;
    const char *wrong = parse(text, &line);
    if (!wrong) fail_msg("`%s' is accepted", text);
    if (!strstr(wrong, part)) fail_msg("`%s': %s", text, wrong);
}

static void test_lines_are_read(void **state)
{
    (void)state;
    reads("alice:" BCRYPT, "alice", BCRYPT, "", "");
    reads("alice:" BCRYPT ":staff,eu", "alice", BCRYPT, "staff,eu", "");
    reads("alice:" BCRYPT "::down=1MiB/s connections=2", "alice", BCRYPT, "", "down=1MiB/s connections=2");
    reads(" alice : " YESCRYPT " : staff : quota=5GiB/month \r", "alice", YESCRYPT, "staff", "quota=5GiB/month");
    reads("a b\xc3\xa4@x.example:$6$" SHA512, "a b\xc3\xa4@x.example", "$6$" SHA512, "", "");
    reads("x:$6$rounds=1000$" SHA512, "x", "$6$rounds=1000$" SHA512, "", "");
    reads("x:$5$" SALT "$" A43, "x", "$5$" SALT "$" A43, "", "");
    reads("x:$gy$jBT$abcdefghijklmnopqrstuv$" A43, "x", "$gy$jBT$abcdefghijklmnopqrstuv$" A43, "", "");
    reads("x:!" BCRYPT, "x", "!" BCRYPT, "", "");
    reads("x:*", "x", "*", "", "");
}

static void test_blank_lines_and_comments(void **state)
{
    static const char *const blank[] = {"", " ", "\t", "\r", "# alice:x", "  # x", "#"};
    struct users_line line;
    (void)state;
    for (size_t i = 0; i < sizeof blank / sizeof *blank; i++) {
        assert_null(parse(blank[i], &line));
        assert_int_equal(line.name.size, 0);
    }
}

static void test_wrong_lines_are_refused(void **state)
{
    char text[3 * USERS_LINE_MAX];
    (void)state;
    refuses("alice", "no colon");
    refuses(":" BCRYPT, "name is missing");
    refuses("alice:", "hash is missing");
    refuses("alice::staff", "hash is missing");
    refuses("al\001ice:" BCRYPT, "control");
    refuses("alice:" BCRYPT ":staff,,eu", "group is empty");
    refuses("alice:" BCRYPT ":staff,", "group is empty");
    refuses("alice:" BCRYPT ":,staff", "group is empty");
    refuses("alice:" BCRYPT ":a b", "letters");
    refuses("alice:" BCRYPT ":a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "16 groups");
    refuses("alice:" BCRYPT "::down=fast", "");
    refuses("alice:" BCRYPT "::nothing", "");
    snprintf(text, sizeof text, "%0256d:" BCRYPT, 0);
    refuses(text, "255");
    snprintf(text, sizeof text, "alice:" BCRYPT ":%064d", 0);
    refuses(text, "63");
    snprintf(text, sizeof text, "alice:" BCRYPT "::%02048d", 0);
    refuses(text, "2048");
}

/* What is cheap to try, and what would keep a thread busy for long. */
static void test_hashes_are_judged(void **state)
{
    (void)state;
    refuses("a:secret", "no hash of");
    refuses("a:$1$abcdefgh$ABCDEFGHIJKLMNOPQRSTUV", "no hash of");
    refuses("a:abJnggxhB/yWI", "no hash of");
    refuses("a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "no hash of");
    refuses("a:$2b$03$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "4 to 14");
    refuses("a:$2b$15$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "4 to 14");
    refuses("a:$2b$1x$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "whole bcrypt");
    refuses("a:$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ0123", "whole bcrypt");
    refuses("a:$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ0123%", "whole bcrypt");
    refuses("a:$6$rounds=999$" SHA512, "1000 to");
    refuses("a:$6$rounds=1000001$" SHA512, "1000 to");
    refuses("a:$6$rounds=$" SHA512, "no number");
    refuses("a:$6$rounds=5000", "no number");
    refuses("a:$6$rounds=1234567890$" SHA512, "no number");
    refuses("a:$6$x" SHA512, "whole sha512");
    refuses("a:$6$" SHA512 "A", "whole sha512");
    refuses("a:$6$" SALT, "whole sha512");
    refuses("a:$y$jCT$abcdefghijklmnopqrstuv$" A43, "j75 to jBT");
    refuses("a:$y$j1T$abcdefghijklmnopqrstuv$" A43, "j75 to jBT");
    refuses("a:$y$j9T5$abcdefghijklmnopqrstuv$" A43, "parameters");
    refuses("a:$y$j9$abcdefghijklmnopqrstuv$" A43, "parameters");
    refuses("a:$y$j9T$$" A43, "whole yescrypt");
    refuses("a:$y$j9T$", "whole yescrypt");
    refuses("a:$y$j9T", "whole yescrypt");
    refuses("a:$y$", "parameters");
    refuses("a:$y$j9T$abc$" A43 "A", "whole yescrypt");
    assert_true(users_hash_is_locked("!x", 2) && users_hash_is_locked("*", 1));
    assert_false(users_hash_is_locked("", 0) || users_hash_is_locked("$", 1));
}

/* Of a good line every octet is replaced by every other: whatever is still accepted has its parts within the line. */
static void test_any_octet(void **state)
{
    static const char good[] = "alice:" BCRYPT ":staff,eu:down=1MiB/s";
    char text[sizeof good];
    struct users_line line;
    (void)state;
    memcpy(text, good, sizeof good);
    for (size_t i = 0; i + 1 < sizeof good; i++) {
        for (unsigned value = 0; value < 256; value++) {
            text[i] = (char)value;
            if (users_parse_line(text, sizeof good - 1, &line) != NULL) continue;
            assert_true(line.name.text >= text);
            assert_true(line.limit.size == 0 || line.limit.text + line.limit.size <= text + sizeof good - 1);
            if (line.name.size == 0) continue;
            assert_null(users_judge_name(line.name.text, line.name.size));
            assert_null(users_judge_hash(line.hash.text, line.hash.size));
            assert_null(memchr(text, '\n', sizeof good - 1));
        }
        text[i] = good[i];
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_read),
        cmocka_unit_test(test_blank_lines_and_comments),
        cmocka_unit_test(test_wrong_lines_are_refused),
        cmocka_unit_test(test_hashes_are_judged),
        cmocka_unit_test(test_any_octet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

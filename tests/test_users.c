/* core/control/users: the store, its file, and what is answered of it. */
#include "core/control/users.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support.h"

#define CHEAP "$2b$04$abcdefghijklmnopqrstuu"

static char folder[] = "/tmp/sluice-users-XXXXXX";
static char path[sizeof folder + 8];
static struct verifier verifier = {.keys = {{1, 2}, {3, 4}}};
static struct users *users;
static char said[4096]; /* by what watches limits */

static const char *hash_of(const char *password)
{
    static struct crypt_data data;
    const char *hash = crypt_r(password, CHEAP, &data);
    assert_non_null(hash);
    return hash;
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void on_limit(void *context, const char *name, const struct limit_terms *terms)
{
    char text[LIMIT_TERMS_TEXT_SIZE] = "-";
    assert_ptr_equal(context, said);
    if (terms) limit_terms_format(terms, text, sizeof text);
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s %s;", name, text);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/users", folder);
    assert_int_equal(users_open(&users, path, &verifier, &verifier.eras[1]), 0);
    users_watch_limits(users, on_limit, said);
    said[0] = '\0';
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    users_close(users);
    unlink(path);
    return 0;
}

static void load(const char *text)
{
    char why[512] = "";
    write_file(text);
    if (users_load(users, why, sizeof why) < 0) fail_msg("%s", why);
}

static void refuses(const char *text, const char *part)
{
    char why[512] = "";
    uint32_t era = verifier.eras[1], count = users_count(users);
    write_file(text);
    assert_int_equal(users_load(users, why, sizeof why), -1);
    if (!strstr(why, part)) fail_msg("%s", why);
    assert_true(strncmp(why, path, strlen(path)) == 0);
    assert_int_equal(users_count(users), count);
    assert_int_equal(verifier.eras[1], era);
    assert_int_equal(users_check(path, why, sizeof why), -1);
}

static struct credentials pair(const char *user, const char *password)
{
    struct credentials c = {.present = true};
    snprintf(c.user, sizeof c.user, "%s", user);
    snprintf(c.password, sizeof c.password, "%s", password);
    return c;
}

/* As the desk does it; *slow: a hash was needed. */
static enum verify_result sign_in(const char *user, const char *password, bool *slow)
{
    static struct crypt_data data;
    struct credentials c = pair(user, password);
    struct verify_digest digest = verify_digest_of(&verifier, 1, &c);
    char setting[USERS_SETTING_SIZE];
    uint32_t era = 0;
    *slow = users_ask(users, &c, &digest, setting, &era) == USERS_HASH;
    if (!*slow) return VERIFY_RIGHT;
    const char *hash = crypt_r(password, setting, &data);
    assert_non_null(hash);
    return users_judge(users, &c, &digest, setting, hash, &era);
}

static void is_judged(const char *user, const char *password, enum verify_result result, bool slow)
{
    bool was_slow;
    assert_int_equal(sign_in(user, password, &was_slow), result);
    assert_int_equal(was_slow, slow);
}

static char *lines_of(const char *name, const char *password, const char *rest)
{
    static char text[1024];
    snprintf(text, sizeof text, "# users\n\n%s:%s%s\n", name, hash_of(password), rest);
    return text;
}

static void test_a_password_costs_one_hash(void **state)
{
    (void)state;
    load(lines_of("alice", "secret", ""));
    is_judged("alice", "wrong", VERIFY_WRONG, true);
    is_judged("alice", "secret", VERIFY_RIGHT, true);
    is_judged("alice", "secret", VERIFY_RIGHT, false);
    is_judged("alice", "secre", VERIFY_WRONG, true);
    is_judged("alice", "secret ", VERIFY_WRONG, true);
    is_judged("Alice", "secret", VERIFY_UNKNOWN, true);
    is_judged("", "secret", VERIFY_UNKNOWN, true);
    is_judged("alice", "secret", VERIFY_RIGHT, false);
}

/* What was verified lives as long as the hash that it was verified against. */
static void test_what_a_change_makes_of_it(void **state)
{
    (void)state;
    load(lines_of("alice", "secret", ""));
    uint32_t era = verifier.eras[1];
    is_judged("alice", "secret", VERIFY_RIGHT, true);
    load(lines_of("alice", "secret", ":staff"));
    assert_int_not_equal(verifier.eras[1], era);
    is_judged("alice", "secret", VERIFY_RIGHT, false);
    load(lines_of("alice", "other", ":staff"));
    is_judged("alice", "secret", VERIFY_WRONG, true);
    is_judged("alice", "other", VERIFY_RIGHT, true);
    assert_null(users_put(users, "alice", &(struct users_change){.groups = "eu"}));
    is_judged("alice", "other", VERIFY_RIGHT, false);
    assert_null(users_put(users, "alice", &(struct users_change){.hash = hash_of("third")}));
    is_judged("alice", "other", VERIFY_WRONG, true);
    is_judged("alice", "third", VERIFY_RIGHT, true);
    assert_true(users_remove(users, "alice"));
    is_judged("alice", "third", VERIFY_UNKNOWN, true);
    assert_null(users_put(users, "alice", &(struct users_change){.hash = hash_of("third")}));
    is_judged("alice", "third", VERIFY_RIGHT, true);
}

/* A hash that was computed for a user who has another one meanwhile proves nothing. */
static void test_a_change_in_the_middle(void **state)
{
    struct credentials c = pair("alice", "secret");
    struct verify_digest digest = verify_digest_of(&verifier, 1, &c);
    char setting[USERS_SETTING_SIZE];
    uint32_t era;
    (void)state;
    load(lines_of("alice", "secret", ""));
    assert_int_equal(users_ask(users, &c, &digest, setting, &era), USERS_HASH);
    char right[USERS_SETTING_SIZE];
    snprintf(right, sizeof right, "%s", setting);
    assert_null(users_put(users, "alice", &(struct users_change){.hash = hash_of("other")}));
    assert_int_equal(users_judge(users, &c, &digest, setting, right, &era), VERIFY_STOPPED);
    is_judged("alice", "secret", VERIFY_WRONG, true);
    assert_int_equal(users_ask(users, &c, &digest, setting, &era), USERS_HASH);
    assert_true(users_remove(users, "alice"));
    assert_int_equal(users_judge(users, &c, &digest, setting, setting, &era), VERIFY_UNKNOWN);
}

/* Nobody has the password of a locked user, and it costs a hash all the same. */
static void test_locked_users(void **state)
{
    char text[1024];
    (void)state;
    size_t size = (size_t)snprintf(text, sizeof text, "alice:!%s\nbob:*\n", hash_of("secret"));
    snprintf(text + size, sizeof text - size, "carol:%s\n", hash_of("x"));
    load(text);
    is_judged("alice", "secret", VERIFY_UNKNOWN, true);
    is_judged("alice", "x", VERIFY_UNKNOWN, true);
    is_judged("bob", "*", VERIFY_UNKNOWN, true);
    is_judged("carol", "x", VERIFY_RIGHT, true);
    assert_null(users_put(users, "carol", &(struct users_change){.hash = "!"}));
    is_judged("carol", "x", VERIFY_UNKNOWN, true);
}

/* Who is not there costs what somebody who is there costs, and the same each time: of two methods one cannot tell
 * from the time whether a name is a user's. */
static void test_nobody_is_as_slow_as_somebody(void **state)
{
    char text[1024], name[32], first[USERS_SETTING_SIZE], setting[USERS_SETTING_SIZE];
    unsigned bcrypt = 0, sha = 0;
    uint32_t era;
    (void)state;
    snprintf(text, sizeof text, "alice:%s\nbob:$6$rounds=1000$abc$%086d\n", hash_of("x"), 0);
    load(text);
    for (unsigned i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "nobody%u", i);
        struct credentials c = pair(name, "x");
        struct verify_digest digest = verify_digest_of(&verifier, 1, &c);
        assert_int_equal(users_ask(users, &c, &digest, first, &era), USERS_HASH);
        assert_int_equal(users_ask(users, &c, &digest, setting, &era), USERS_HASH);
        assert_string_equal(first, setting);
        bcrypt += strncmp(setting, "$2b$", 4) == 0;
        sha += strncmp(setting, "$6$", 3) == 0;
    }
    assert_int_equal(bcrypt + sha, 64);
    assert_true(bcrypt > 0 && sha > 0);
    load("");
    assert_int_equal(users_count(users), 0);
    struct credentials c = pair("x", "x");
    struct verify_digest digest = verify_digest_of(&verifier, 1, &c);
    assert_int_equal(users_ask(users, &c, &digest, setting, &era), USERS_HASH);
    assert_int_equal(strncmp(setting, "$y$j9T$", 7), 0);
}

static void test_wrong_files_change_nothing(void **state)
{
    char text[4096], long_line[3000];
    (void)state;
    load(lines_of("alice", "secret", ""));
    refuses("alice", ":1: there is no colon");
    refuses("# x\n\nbob:plain\n", ":3: this is no hash of");
    snprintf(text, sizeof text, "bob:%s\ncarol:*\n bob : *\n", hash_of("x"));
    refuses(text, ":3: that user stands on line 1 already");
    memset(long_line, 'x', sizeof long_line - 1);
    long_line[sizeof long_line - 1] = '\0';
    snprintf(text, sizeof text, "bob:*\n%s", long_line);
    refuses(text, ":2: the line is longer than 2048 octets");
    FILE *file = fopen(path, "w");
    assert_int_equal(fwrite("bob:*\0:x", 1, 8, file), 8);
    fclose(file);
    assert_int_equal(users_load(users, text, sizeof text), -1);
    assert_non_null(strstr(text, ":1: the line has a control character"));
    is_judged("alice", "secret", VERIFY_RIGHT, true);
}

static void test_what_is_no_file(void **state)
{
    char why[512];
    (void)state;
    unlink(path);
    assert_int_equal(users_load(users, why, sizeof why), -1);
    assert_non_null(strstr(why, "No such file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(users_load(users, why, sizeof why), -1); /* and does not wait for a writer */
    assert_non_null(strstr(why, "no regular file"));
    assert_int_equal(users_check("/", why, sizeof why), -1);
    assert_non_null(strstr(why, "no regular file"));
}

static void test_a_file_from_elsewhere(void **state)
{
    struct users_row row;
    (void)state;
    load("\xef\xbb\xbf"
         "alice:*\r\n  # x\r\nbob:!:a,b\r\n\r\ncarol:*");
    assert_int_equal(users_count(users), 3);
    assert_true(users_find(users, "alice", &row) && users_find(users, "carol", &row) && users_find(users, "bob", &row));
    assert_string_equal(row.groups, "a,b");
    assert_true(row.locked && !row.has_limit);
    assert_false(users_find(users, "dave", &row));
}

static void test_users_are_shown_in_order(void **state)
{
    struct users_row row = {.name = ""};
    char names[64] = "";
    (void)state;
    load("m:*\nz:*:g:down=1MiB/s\na:*\n");
    assert_null(users_put(users, "k", &(struct users_change){.hash = "*", .limit = "connections=3"}));
    for (const char *after = NULL; users_next(users, after, &row); after = row.name) strcat(names, row.name);
    assert_string_equal(names, "akmz");
    assert_true(row.has_limit);
    assert_int_equal(row.limit.speed[LIMIT_DOWN], 1048576);
    assert_true(users_next(users, "b", &row));
    assert_string_equal(row.name, "k");
    assert_int_equal(row.limit.connections, 3);
    assert_false(users_next(users, "z", &row));
}

static void test_wrong_changes_are_refused(void **state)
{
    char name[300];
    (void)state;
    load("a:*\n");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_non_null(users_put(users, name, &(struct users_change){.hash = "*"}));
    assert_non_null(users_put(users, "", &(struct users_change){.hash = "*"}));
    assert_non_null(users_put(users, "b:c", &(struct users_change){.hash = "*"}));
    assert_non_null(users_put(users, "b", &(struct users_change){.groups = "x"}));
    assert_non_null(users_put(users, "b", &(struct users_change){.hash = "secret"}));
    assert_non_null(users_put(users, "b", &(struct users_change){.hash = "*:x"}));
    assert_non_null(users_put(users, "b", &(struct users_change){.hash = "*\n"}));
    assert_non_null(users_put(users, "a", &(struct users_change){.limit = "x"}));
    assert_non_null(users_put(users, "a", &(struct users_change){.groups = "x y"}));
    assert_false(users_remove(users, "b"));
    assert_int_equal(users_count(users), 1);
}

static void test_limits_are_told(void **state)
{
    (void)state;
    load("a:*::connections=1\nb:*::connections=2\nc:*\n");
    assert_string_equal(said, "a connections=1;b connections=2;");
    said[0] = '\0';
    load("b:*::connections=2\nc:*::connections=3\nd:*\n");
    assert_string_equal(said, "a -;c connections=3;");
    said[0] = '\0';
    assert_null(users_put(users, "b", &(struct users_change){.groups = "x"}));
    assert_null(users_put(users, "b", &(struct users_change){.limit = ""}));
    assert_null(users_put(users, "d", &(struct users_change){.limit = "connections=4"}));
    assert_true(users_remove(users, "d") && users_remove(users, "b"));
    assert_string_equal(said, "b -;d connections=4;d -;");
}

static void test_pairs_have_digests_of_their_own(void **state)
{
    static const char *const pairs[][2] = {{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}, {"a", "b"}, {"A", "bc"}};
    struct verify_digest digests[12];
    unsigned count = 0;
    (void)state;
    for (uint8_t store = 1; store <= 2; store++) {
        for (size_t i = 0; i < 6; i++) {
            struct credentials c = pair(pairs[i][0], pairs[i][1]);
            digests[count++] = verify_digest_of(&verifier, store, &c);
        }
    }
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < i; j++) assert_memory_not_equal(&digests[i], &digests[j], sizeof *digests);
}

/* What a worker remembers holds for an era, and is bounded. */
static void test_what_a_worker_remembers(void **state)
{
    struct verified verified = {0};
    unsigned kept = 0;
    (void)state;
    assert_false(verified_find(&verified, &(struct verify_digest){{1, 2}}, 0));
    verified_keep(&verified, &(struct verify_digest){{1, 2}}, 0);
    assert_int_equal(verified_open(&verified), 0);
    assert_false(verified_find(&verified, &(struct verify_digest){{1, 2}}, 0));
    verified_keep(&verified, &(struct verify_digest){{1, 2}}, 7);
    assert_true(verified_find(&verified, &(struct verify_digest){{1, 2}}, 7));
    assert_false(verified_find(&verified, &(struct verify_digest){{1, 2}}, 8));
    assert_false(verified_find(&verified, &(struct verify_digest){{1, 3}}, 7));
    assert_false(verified_find(&verified, &(struct verify_digest){{2, 2}}, 7));
    verified_keep(&verified, &(struct verify_digest){{1, 2}}, 8);
    assert_true(verified_find(&verified, &(struct verify_digest){{1, 2}}, 8));
    for (uint64_t i = 0; i < 100; i++) verified_keep(&verified, &(struct verify_digest){{1, i + 10}}, 8);
    for (uint64_t i = 0; i < 100; i++) kept += verified_find(&verified, &(struct verify_digest){{1, i + 10}}, 8);
    assert_int_equal(kept, 4);
    assert_true(verified_find(&verified, &(struct verify_digest){{1, 109}}, 8));
    verified_close(&verified);
}

static void test_hashing_a_password(void **state)
{
    char hash[USERS_SETTING_SIZE], password[300];
    static struct crypt_data data;
    (void)state;
    assert_null(users_hash_password("secret", hash));
    assert_null(users_judge_hash(hash, strlen(hash)));
    assert_string_equal(crypt_r("secret", hash, &data), hash);
    assert_non_null(users_hash_password("", hash));
    memset(password, 'x', sizeof password);
    password[256] = '\0';
    assert_non_null(users_hash_password(password, hash));
    password[255] = '\0';
    assert_null(users_hash_password(password, hash));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_password_costs_one_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_change_makes_of_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_change_in_the_middle, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_locked_users, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_is_as_slow_as_somebody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_files_change_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_from_elsewhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_users_are_shown_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_changes_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limits_are_told, set_up, tear_down),
        cmocka_unit_test(test_pairs_have_digests_of_their_own),
        cmocka_unit_test(test_what_a_worker_remembers),
        cmocka_unit_test(test_hashing_a_password),
    };
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}

/* What of the API needs no server: numbers of /stats, tokens, hosts and origins, fields, ids, routes, connections. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/access.h"
#include "api/endpoints.h"
#include "api/fields.h"
#include "api/peers.h"
#include "api/sessions.h"
#include "api/stats_text.h"
#include "api/text.h"
#include "tests/support.h"

static void test_bytes(void **state)
{
    static const struct {
        double octets;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1B"},
                 {-1092, "-1092B"},
                 {2047, "2047B"},
                 {2048, "2.00KiB"},
                 {10 * 1024, "10.0KiB"},
                 {26214, "25.6KiB"},
                 {100 * 1024, "100KiB"},
                 {2047.0 * 1024, "2047KiB"},
                 {2048.0 * 1024, "2.00MiB"},
                 {-3.0 * 1024 * 1024, "-3.00MiB"},
                 {5e18, "4.34EiB"}};
    char out[STATS_TEXT_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(stats_text_bytes(out, cases[i].octets), cases[i].text);
}

static void test_counts(void **state)
{
    char out[STATS_TEXT_SIZE];
    (void)state;
    assert_string_equal(stats_text_count(out, 0), "0");
    assert_string_equal(stats_text_count(out, 366), "366");
    assert_string_equal(stats_text_count(out, -28), "-28");
    assert_string_equal(stats_text_count(out, 1610), "1.61k");
    assert_string_equal(stats_text_count(out, 16100), "16.1k");
    assert_string_equal(stats_text_count(out, 161000), "161k");
    assert_string_equal(stats_text_count(out, 2.5e6), "2.50M");
}

static void test_durations(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0"},
                 {-1, "0"},
                 {33e-9, "33ns"},
                 {9999e-9, "9999ns"},
                 {33.02e-6, "33.02\302\265s"},
                 {330.2e-6, "330.2\302\265s"},
                 {1.5e-3, "1.500ms"},
                 {15e-3, "15.00ms"},
                 {0.2538, "253.8ms"},
                 {1.09, "1090ms"},
                 {9.999, "9999ms"},
                 {12.5, "12.50s"},
                 {61.5, "1:01.5"},
                 {600, "10:00"},
                 {3661, "1:01:01"},
                 {90061, "1d01:01:01"},
                 /* where the form changes */
                 {10e-6, "10.00\302\265s"},
                 {100e-6, "100.0\302\265s"},
                 {0.001, "1.000ms"},
                 {0.01, "10.00ms"},
                 {0.1, "100.0ms"},
                 {1, "1000ms"},
                 {10, "10.00s"},
                 {60, "1:00.0"},
                 {3600, "1:00:00"},
                 {86400, "1d00:00:00"}};
    char out[STATS_TEXT_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(stats_text_duration(out, cases[i].seconds), cases[i].text);
}

static struct access_tokens tokens;

static const char *parse(const char *text, unsigned *line)
{
    memset(&tokens, 0, sizeof tokens);
    return access_parse_tokens(text, strlen(text), &tokens, line);
}

static void test_tokens(void **state)
{
    unsigned line;
    (void)state;
    assert_null(parse("# first\n\n  one  \ntwo read\r\nthree\tadmin # ops\nfour#x", &line));
    assert_int_equal(tokens.count, 4);
    assert_string_equal(tokens.all[0].token, "one");
    assert_int_equal(tokens.all[0].scope, ACCESS_ADMIN);
    assert_int_equal(tokens.all[1].scope, ACCESS_READ);
    assert_int_equal(tokens.all[2].scope, ACCESS_ADMIN);
    assert_string_equal(tokens.all[3].token, "four#x");
    assert_string_equal(tokens.all[0].name, "7692c3ad"); /* of SHA-256 */
}

static void test_wrong_tokens(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
    } cases[] = {{"", 0},        {"# x\n", 0},          {"a\nb\na", 3},   {"a read\na", 2},
                 {"a write", 1}, {"a\nb read more", 2}, {"a\n\n\x80", 3}, {"a\x01", 1}};
    char text[600];
    unsigned line;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_non_null(parse(cases[i].text, &line));
        assert_int_equal(line, cases[i].line);
    }
    memset(text, 'x', sizeof text);
    text[ACCESS_TOKEN_SIZE_MAX] = '\0';
    assert_null(parse(text, &line));
    text[ACCESS_TOKEN_SIZE_MAX] = 'x';
    text[ACCESS_TOKEN_SIZE_MAX + 1] = '\0';
    assert_non_null(parse(text, &line));
    char many[8 * (ACCESS_TOKENS_MAX + 1)];
    for (unsigned i = 0, used = 0; i <= ACCESS_TOKENS_MAX; i++)
        used += (unsigned)snprintf(many + used, sizeof many - used, "%u\n", i);
    assert_non_null(parse(many, &line));
    assert_int_equal(line, ACCESS_TOKENS_MAX + 1);
}

static void test_finding_tokens(void **state)
{
    unsigned line;
    (void)state;
    assert_null(parse("one\ntwo read\n", &line));
    assert_ptr_equal(access_find(&tokens, "Bearer one"), &tokens.all[0]);
    assert_ptr_equal(access_find(&tokens, "bearer   two"), &tokens.all[1]);
    static const char *const wrong[] = {"Bearer",      "Bearer ",   "Bearer on", "Bearer onee",
                                        "Bearer one ", "Basic one", "one",       ""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_null(access_find(&tokens, wrong[i]));
    assert_null(access_find(&tokens, NULL));
}

static void test_hosts(void **state)
{
    static const char *const ours[] = {"localhost",  "LocalHost:80", "127.0.0.1",      "127.9.8.7:1", "[::1]",
                                       "[::1]:9080", "192.0.2.5",    "192.0.2.5:9080", "[::1]:"};
    static const char *const foreign[] = {"",
                                          "example.com",
                                          "localhost.example.com",
                                          "192.0.2.6",
                                          "[::2]",
                                          "[::1",
                                          "[::1]x",
                                          ":80",
                                          "127.0.0.1.example.com",
                                          "0.0.0.0",
                                          "127.1",
                                          "localhostx",
                                          "[localhost",
                                          "2130706433",
                                          "localhost:x",
                                          "localhost:1@evil.test",
                                          "[::1]:1x",
                                          "localhost@evil.test"};
    (void)state;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!access_host_is_ours(ours[i], "192.0.2.5")) fail_msg("%s is foreign", ours[i]);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (access_host_is_ours(foreign[i], "192.0.2.5")) fail_msg("%s is ours", foreign[i]);
    assert_false(access_host_is_ours("192.0.2.5", NULL));
}

static void test_origins(void **state)
{
    (void)state;
    assert_true(access_origin_is_host("http://localhost:1", "localhost:1"));
    assert_true(access_origin_is_host("HTTPS://Box:1", "box:1"));
    assert_false(access_origin_is_host("http://localhost:1", "localhost:2"));
    assert_false(access_origin_is_host("http://localhost", "localhost:80"));
    assert_false(access_origin_is_host("null", "null"));
    assert_false(access_origin_is_host("file://localhost", "localhost"));
    assert_false(access_origin_is_host("", ""));
}

static void test_accepted_codings(void **state)
{
    static const struct {
        const char *field;
        enum codec codec;
    } cases[] = {{NULL, CODEC_NONE},
                 {"", CODEC_NONE},
                 {"deflate", CODEC_DEFLATE},
                 {"DEFLATE", CODEC_DEFLATE},
                 {"gzip", CODEC_GZIP},
                 {"x-gzip", CODEC_GZIP},
                 {"gzip, deflate", CODEC_DEFLATE},
                 {"gzip,deflate;q=0.5", CODEC_GZIP},
                 {"gzip;q=0.001, br", CODEC_GZIP},
                 {"deflate;q=0.5", CODEC_DEFLATE},
                 {"deflate;q=0", CODEC_NONE},
                 {"deflate; q=0", CODEC_NONE},
                 {"deflate ;Q=0.000", CODEC_NONE},
                 {"gzip;q=0, deflate", CODEC_DEFLATE},
                 {"deflate;q=0, gzip", CODEC_GZIP},
                 {"*", CODEC_DEFLATE},
                 {"*;q=0", CODEC_NONE},
                 {"identity, *;q=0", CODEC_NONE},
                 {"deflate;q=0, *", CODEC_GZIP},
                 {"*;q=0, gzip;q=1.000", CODEC_GZIP},
                 {"xgzip, deflates, br", CODEC_NONE},
                 {",, ,deflate,", CODEC_DEFLATE},
                 {"a=\"x, deflate\"", CODEC_NONE},
                 {"deflate;q=1.5", CODEC_NONE},
                 {"deflate;q=0.0001", CODEC_NONE},
                 {"deflate;q=-1", CODEC_NONE},
                 {"deflate;q=", CODEC_NONE},
                 {"deflate;q=0.x", CODEC_NONE},
                 {"deflate;q=1x", CODEC_NONE},
                 {"gzip;level=1;q=0", CODEC_NONE}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (fields_choose_codec(cases[i].field) != cases[i].codec)
            fail_msg("%s is %d", cases[i].field, fields_choose_codec(cases[i].field));
}

static void test_content_codings(void **state)
{
    static const char *const none[] = {"br", "", "deflate, gzip", "deflate;q=1", "gzi", "gzipp", " gzip"};
    enum codec codec;
    (void)state;
    assert_true(fields_read_codec(NULL, &codec) && codec == CODEC_NONE);
    assert_true(fields_read_codec("Identity", &codec) && codec == CODEC_NONE);
    assert_true(fields_read_codec("deflate", &codec) && codec == CODEC_DEFLATE);
    assert_true(fields_read_codec("GZIP", &codec) && codec == CODEC_GZIP);
    assert_true(fields_read_codec("x-gzip", &codec) && codec == CODEC_GZIP);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_false(fields_read_codec(none[i], &codec));
}

#define RPC "application/x-neosocksd-rpc"
static void test_rpc_types(void **state)
{
    static const char *const good[] = {RPC "; version=1",           RPC ";version=1",
                                       RPC " ; VERSION=\"1\" ;a=b", "Application/X-Neosocksd-RPC;a=b;version=1",
                                       RPC ";;version=1",           RPC ";a=\"x;version=2\"; version=1"};
    static const char *const wrong[] = {"",
                                        RPC,
                                        RPC ";",
                                        RPC "; version=2",
                                        RPC "; version=11",
                                        RPC "; version=",
                                        RPC "; version=\"1",
                                        RPC "; version=\"1\"x",
                                        RPC "; version = 1",
                                        RPC "; xversion=1",
                                        RPC "s; version=1",
                                        "text/plain; version=1",
                                        RPC ", version=1",
                                        RPC "; a=\"x;version=1\"",
                                        RPC "; a=\"\\\";version=1\""};
    (void)state;
    assert_false(fields_is_rpc(NULL));
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!fields_is_rpc(good[i])) fail_msg("%s is none", good[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (fields_is_rpc(wrong[i])) fail_msg("%s is one", wrong[i]);
}

static void test_urls(void **state)
{
    static const char *const sound[] = {"", "/", "/stats?q=%20%ff%0A", "/%41", "/%25zz", "/a%01", "*"};
    static const char *const wrong[] = {"%", "/%4", "/%zz", "/%4g", "/a%00", "/?q=%0", "/%%41", "/%20%"};
    char authority[16];
    (void)state;
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) assert_true(fields_url_is_sound(sound[i]));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (fields_url_is_sound(wrong[i])) fail_msg("%s is sound", wrong[i]);
    assert_string_equal(fields_split_url("/x", authority, sizeof authority), "/x");
    assert_string_equal(authority, "");
    assert_string_equal(fields_split_url("HTTP://[::1]:80/x/y", authority, sizeof authority), "/x/y");
    assert_string_equal(authority, "[::1]:80");
    assert_string_equal(fields_split_url("http://h", authority, sizeof authority), "/");
    assert_string_equal(authority, "h");
    assert_string_equal(fields_split_url("http://localhost.of.somebody/x", authority, sizeof authority), "/x");
    assert_string_equal(authority, "localhost.of.so");
    assert_false(access_host_is_ours(authority, NULL));
    assert_string_equal(fields_split_url("https://h/", authority, sizeof authority), "https://h/");
}

static bool is_shut(int fd)
{
    char octet;
    return recv(fd, &octet, 1, MSG_DONTWAIT) == 0;
}

/* What each state's time is, and who ends. */
static void test_peers(void **state)
{
    static struct peers peers;
    int a[2], b[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    struct peer *slow = peers_take(&peers, a[0], 1000), *waiting = peers_take(&peers, b[0], 1000);
    assert_int_equal(peers.count, 2);
    peers_enter(slow, PEER_BUSY, 4000); /* its time begins here */
    peers_enter(waiting, PEER_BUSY, 1000);
    peers_enter(waiting, PEER_WAITS, 1000);
    assert_int_equal(peers_sweep(&peers, 8999, 5000), 0);
    assert_int_equal(peers_sweep(&peers, 9000, 5000), 1);
    assert_true(is_shut(a[1]));
    assert_false(is_shut(b[1]));
    assert_int_equal(peers_sweep(&peers, 900, 5000), 0); /* a clock that was read before */
    peers_enter(waiting, PEER_BUSY, 60000);
    peers_give(&peers, slow);
    assert_int_equal(peers_sweep(&peers, 64999, 5000), 0);
    close(b[1]); /* the client has ended: a request goes on, an idle connection does not */
    assert_int_equal(peers_sweep(&peers, 64999, 5000), 0);
    peers_enter(waiting, PEER_IDLE, 64999);
    assert_int_equal(peers_sweep(&peers, 65000, 5000), 1);
    peers_give(&peers, waiting);
    peers_enter(NULL, PEER_BUSY, 0);
    assert_int_equal(peers.count, 0);
    close(a[0]);
    close(a[1]);
    close(b[0]);
}

/* What a client has sent before its end is not lost. */
static void test_peers_unread(void **state)
{
    static struct peers peers;
    int pair[2];
    char octet = 'x';
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_non_null(peers_take(&peers, pair[0], 0));
    assert_int_equal(write(pair[1], &octet, 1), 1);
    close(pair[1]);
    assert_int_equal(peers_sweep(&peers, 1, 5000), 0);
    assert_int_equal(read(pair[0], &octet, 1), 1);
    assert_int_equal(peers_sweep(&peers, 1, 5000), 1);
    for (unsigned i = 1; i < PEERS_MAX; i++) assert_non_null(peers_take(&peers, pair[0], 0));
    assert_null(peers_take(&peers, pair[0], 0));
    close(pair[0]);
}

static void test_session_ids(void **state)
{
    uint32_t worker, slot, generation;
    static const char *const wrong[] = {"",       "1",    "1-2",           "1-2-3-4", "1-2-3x", "x-2-3",  "-1-2-3",
                                        "1--2-3", "1-2-", "123456789-1-2", "1-2-3 ",  " 1-2-3", "+1-2-3", "0x1-2-3"};
    (void)state;
    assert_true(sessions_parse_id("1-a-ffffff", &worker, &slot, &generation));
    assert_int_equal(worker, 1);
    assert_int_equal(slot, 10);
    assert_int_equal(generation, 0xffffff);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (sessions_parse_id(wrong[i], &worker, &slot, &generation)) fail_msg("%s is an id", wrong[i]);
}

static void test_routes(void **state)
{
    const char *rest;
    (void)state;
    for (size_t i = 0; endpoint_at(i); i++) {
        const struct endpoint *e = endpoint_at(i);
        assert_true((e->handle || e->outside) && e->methods && e->path[0] == '/');
        if (e->takes_id) continue;
        for (unsigned method = CALL_GET; method <= CALL_PUT; method <<= 1)
            if (e->methods & method) assert_ptr_equal(endpoint_find(e->path, method, &rest), e);
        assert_int_equal(endpoint_methods(e) & e->methods, e->methods);
        assert_string_equal(rest, "");
    }
    assert_non_null(endpoint_find("/sessions/1-2-3", CALL_DELETE, &rest));
    assert_string_equal(rest, "1-2-3");
    assert_int_equal(endpoint_find("/limits/source:2001:db8::/48", CALL_PUT, &rest)->scope, ACCESS_ADMIN);
    assert_string_equal(rest, "source:2001:db8::/48");
    assert_int_equal(endpoint_find("/limits/source/24/56", CALL_GET, &rest)->scope, ACCESS_READ);
    /* Scopes differ by method; a method that no row takes finds one all the same, for the 405. */
    assert_int_equal(endpoint_find("/scripts", CALL_GET, &rest)->scope, ACCESS_READ);
    assert_int_equal(endpoint_find("/scripts", CALL_POST, &rest)->scope, ACCESS_ADMIN);
    assert_int_equal(endpoint_methods(endpoint_find("/scripts", CALL_DELETE, &rest)), CALL_GET | CALL_HEAD | CALL_POST);
    assert_int_equal(endpoint_methods(endpoint_find("/scripts/x", CALL_GET, &rest)), CALL_DELETE);
    assert_string_equal(rest, "x");
    static const char *const none[] = {"",         "//",        "/stats/", "/Stats", "/sessions/", "/sessions/1/2",
                                       "/ruleset", "/healthy/x"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_null(endpoint_find(none[i], CALL_GET, &rest));
}

static void test_text(void **state)
{
    struct text text = {0};
    char line[1500];
    (void)state;
    text_add(&text, "", 0);
    assert_string_equal(text.data, "");
    for (int i = 0; i < 1000; i++) text_printf(&text, "%d,", i % 10);
    assert_int_equal(text.size, 2000);
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    text_add(&text, line, sizeof line - 1);
    assert_int_equal(text.size, 3499);
    assert_int_equal(strlen(text.data), 3499);
    text_free(&text);
    assert_null(text.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_wrong_tokens),
        cmocka_unit_test(test_finding_tokens),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_accepted_codings),
        cmocka_unit_test(test_content_codings),
        cmocka_unit_test(test_rpc_types),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_peers_unread),
        cmocka_unit_test(test_session_ids),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

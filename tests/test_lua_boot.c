/* Scripts of the command line: -c, -r and SIGHUP. */
#include "tests/engine_asked.h"
#include <limits.h>

#include "core/process/config_check.h"
#include "lua/boot/nearest.h"
#include "lua/engine/codec.h"

static char script_path[] = "/tmp/sluice-script-XXXXXX";

static void write_script(const void *data, size_t size)
{
    FILE *file = fopen(script_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int open_with_script(void **state)
{
    memcpy(script_path + strlen(script_path) - 6, "XXXXXX", 6);
    int fd = mkstemp(script_path);
    if (fd < 0) return -1;
    close(fd);
    return open_engine(state);
}

static int close_with_script(void **state)
{
    unlink(script_path);
    return close_engine(state);
}

static int boot(const char *code)
{
    write_script(code, strlen(code));
    config.boot = script_path;
    return engine_boot(engine, &config);
}

static void boot_fails(const char *code, const char *why)
{
    struct config before = config;
    before.boot = script_path;
    assert_int_equal(boot(code), -1);
    if (!strstr(engine->last_error, why)) fail_msg("%s\ninstead of %s: %s", engine->last_error, why, code);
    assert_memory_equal(&config, &before, sizeof config); /* all or nothing */
}

static void test_boot_errors(void **state)
{
    (void)state;
    boot_fails("return 5", "config: expected table, got number");
    boot_fails("x =", "config:1: unexpected symbol near <eof>");
    boot_fails("error('no')", "config:1: no");
    boot_fails("return { timeout = 30, loglevel = 4.0 }", "boot: field `loglevel' must be an integer");
    boot_fails("return { timeout = '30' }", "boot: field `timeout' must be a number");
    boot_fails("return { max_sessions = 10, listen = 5 }", "boot: field `listen' must be a string");
    boot_fails("return { tcp_nodelay = 1 }", "boot: field `tcp_nodelay' must be a boolean");
    boot_fails("return { timeout = 4.9 }", "boot: field `timeout' is out of range");
    boot_fails("return { timeout = 0/0 }", "boot: field `timeout' is out of range");
    boot_fails("return { loglevel = 9 }", "boot: field `loglevel' is out of range");
    boot_fails("return { loglevel = -1 }", "boot: field `loglevel' is out of range");
    boot_fails("return { startup_limit_rate = 101 }", "boot: field `startup_limit_rate' is out of range");
    boot_fails("return { resolve_pf = 3 }", "boot: field `resolve_pf' is out of range");
    boot_fails("return { user_name = 'a\\0b' }", "boot: field `user_name' holds a zero octet");
    boot_fails("return { ruleset = 5 }", "config: `ruleset' must be a table; it is a number");
    boot_fails("return { ruleset = '' }", "boot: field `ruleset' is no path of a script");
    boot_fails("return { ruleset = 'a\\0b' }", "boot: field `ruleset' is no path of a script");
    boot_fails("return { max_sessions = 7, proxy = 'ftp://x' }", "config: failed to load fields");
    boot_fails("return { listen = 'no port' }", "config: failed to load fields");
    engine->limits.budget_ms = 100;
    boot_fails("while true do end", "time budget of 100 ms exceeded");
    engine->limits.budget_ms = config.lua_budget_ms;
    assert_false(engine_has_ruleset(engine));
    config.boot = "/nowhere/at all";
    assert_int_equal(engine_boot(engine, &config), -1);
}

static void test_boot(void **state)
{
    (void)state;
    assert_int_equal(
        boot("assert(... == 'config' and select('#', ...) == 1 and neosocksd.config().timeout == 60)\n"
             "return { listen = '127.0.0.1:1080,127.0.0.1:1081', forward = ',x.y:80',\n"
             "  http_listen = '127.0.0.1:8080', proxy = 'socks5://a:1,http://b:2', restapi = '127.0.0.1:9080',\n"
             "  timeout = 5.5, loglevel = 3, resolve_pf = 2, memlimit = -3, pipe = true, traceback = true,\n"
             "  block_multicast = false, block_local = true, tcp_nodelay = false, tcp_sndbuf = 65536,\n"
             "  max_sessions = 9, startup_limit_start = 1, startup_limit_rate = 2, startup_limit_full = 3,\n"
             "  unknown = {}, daemonize = true, ruleset = { resolve = function(a) return a end } }"),
        0);
    assert_int_equal(config.listener_count, 3);
    assert_int_equal(config.listeners[0].kind, LISTENER_AUTO);
    assert_int_equal(config.listeners[1].kind, LISTENER_FORWARD);
    assert_string_equal(config.listeners[1].forward_text, "x.y:80");
    assert_int_equal(config.listeners[2].kind, LISTENER_HTTP);
    assert_int_equal(config.hop_count, 2);
    assert_int_equal(config.timeout_ms, 5500);
    assert_int_equal(config.log_level, 3);
    assert_int_equal(config.family, AF_INET);
    assert_int_equal(config.memlimit_mib, 0);
    assert_true(config.pipe && config.traceback && !config.tcp_nodelay && !config.daemonize);
    assert_int_equal(config.tcp_sndbuf, 65536);
    assert_int_equal(config.max_sessions, 9);
    assert_true(config.startup_start == 1 && config.startup_rate == 2 && config.startup_full == 3);
    assert_string_equal(config.api_text, "127.0.0.1:9080");
    assert_true(engine_has_ruleset(engine));
    run("assert(type(ruleset.resolve) == 'function' and neosocksd.config().listen == '127.0.0.1:1080,127.0.0.1:1081')");
}

/* Options of a listener, which commas separate, too. */
static void test_listener_options(void **state)
{
    (void)state;
    assert_int_equal(boot("return { listen = '127.0.0.1:1080,protocol=socks,127.0.0.1:1081,127.0.0.1:1082', forward = "
                          "',x.y:80',\n http_listen = '127.0.0.1:1083,protocol=http,127.0.0.1:1084' }"),
                     0);
    assert_int_equal(config.listener_count, 5);
    assert_int_equal(config.listeners[0].kind, LISTENER_SOCKS);
    assert_int_equal(config.listeners[1].kind, LISTENER_FORWARD);
    assert_int_equal(config.listeners[2].kind, LISTENER_AUTO);
    assert_string_equal(config.listeners[3].text, "127.0.0.1:1083");
    assert_string_equal(config.listeners[4].text, "127.0.0.1:1084");
    run("local c = neosocksd.config()\n"
        "assert(c.listen == '127.0.0.1:1080,protocol=socks,127.0.0.1:1081,127.0.0.1:1082')\n"
        "assert(c.http_listen == '127.0.0.1:1083,protocol=http,127.0.0.1:1084')");
    boot_fails("return { listen = '127.0.0.1:1080,colour=red' }",
               "field `listen': \"colour\" is no option of a listener");
}

/* What a metamethod answers is asked for once: what was judged is what is applied. */
static void test_boot_asks_once(void **state)
{
    (void)state;
    assert_int_equal(boot("asked = 0\n"
                          "return setmetatable({}, { __index = function(_, key)\n"
                          "  if key == 'timeout' then asked = asked + 1 return asked == 1 and 30 or 1e300 end end })"),
                     0);
    assert_int_equal(config.timeout_ms, 30000);
    run("assert(asked == 1)");
}

/* Every listener that has no kind of its own, wherever it stands, and whether the table names it or the command line.
 */
static void test_transparent(void **state)
{
    static const enum listener_kind kinds[] = {LISTENER_TPROXY, LISTENER_TPROXY, LISTENER_TPROXY, LISTENER_HTTP};
    (void)state;
    for (unsigned named = 0; named < 2; named++) {
        assert_int_equal(boot("return { listen = '127.0.0.1:1,127.0.0.1:2,127.0.0.1:3', http_listen = '127.0.0.1:4', "
                              "transparent = false }"),
                         0);
        for (uint32_t i = 0; i < 3; i++) assert_int_equal(config.listeners[i].kind, LISTENER_AUTO);
        assert_int_equal(boot(named ? "return { listen = '127.0.0.1:1,127.0.0.1:2,127.0.0.1:3', "
                                      "http_listen = '127.0.0.1:4', transparent = true }"
                                    : "return { transparent = true }"),
                         0);
        assert_int_equal(config.listener_count, 4);
        for (uint32_t i = 0; i < 4; i++) assert_int_equal(config.listeners[i].kind, kinds[i]);
    }
}

static void test_nearest(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("", ""), 0);
    assert_int_equal(nearest_distance("abc", ""), 3);
    assert_int_equal(nearest_distance("Max-Sessions", "max_sessions"), 0);
    assert_int_equal(nearest_distance("listne", "listen"), 1); /* exchanged */
    assert_int_equal(nearest_distance("ilsten", "listen"), 1);
    assert_int_equal(nearest_distance("ab", "ba"), 1);
    assert_int_equal(nearest_distance("kitten", "sitting"), 3);
    assert_int_equal(nearest_distance("timeuot", "timeout"), 1);
    assert_int_equal(nearest_distance("timout", "timeout"), 1);
    char word[NEAREST_WORD_MAX + 2];
    memset(word, 'x', sizeof word);
    word[NEAREST_WORD_MAX + 1] = '\0';
    assert_true(nearest_distance(word, "x") == UINT_MAX && nearest_distance("x", word) == UINT_MAX);
    word[NEAREST_WORD_MAX] = '\0';
    assert_int_equal(nearest_distance(word, "x"), NEAREST_WORD_MAX - 1);
}

static void test_boot_without_ruleset(void **state)
{
    (void)state;
    assert_int_equal(boot("return {}"), 0);
    assert_false(engine_has_ruleset(engine));
    assert_int_equal(boot("return { auth_required = true }"), 0);
    assert_int_equal(config_check(&config), -1); /* who calls asks, and says so also when the log is silent */
    config.auth_required = false;
    assert_int_equal(boot("_G.ruleset = {} return {}"), 0);
    assert_true(engine_has_ruleset(engine));
}

static void test_ruleset_file(void **state)
{
    char *packed;
    size_t size;
    struct ask a;
    (void)state;
    config.ruleset = script_path;
    write_script("return 1", 8);
    assert_int_equal(engine_boot(engine, &config), -1);
    assert_string_equal(engine->last_error, "ruleset: expected table, got number");
    static const char code[] = "#!x\nassert(... == 'ruleset') return { resolve = function(a) return a end }";
    assert_int_equal(codec_encode(CODEC_GZIP, code, sizeof code - 1, &packed, &size), CODEC_OK);
    write_script(packed, size - 9);
    assert_int_equal(engine_boot(engine, &config), -1); /* cut off */
    write_script(packed, size);
    free(packed);
    assert_int_equal(engine_boot(engine, &config), 0);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    run("assert(neosocksd.config().ruleset == '"
        "/tmp' or neosocksd.config().ruleset:find('sluice%-script'))");

    uint32_t revision = engine_revision(engine); /* SIGHUP */
    write_script("error('no')", 11);
    hooks.on_reload(hooks.context);
    assert_int_equal(engine_revision(engine), revision);
    unlink(script_path);
    hooks.on_reload(hooks.context);
    assert_int_equal(engine_revision(engine), revision);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    write_script("return { resolve = function() return 'new:1' end }", 50);
    hooks.on_reload(hooks.context);
    assert_true(engine_revision(engine) > revision);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial new:1");
}

static const struct config *now(void)
{
    return coordinator_config(coordinator);
}

static void reload(const char *code)
{
    write_script(code, strlen(code));
    hooks.on_reload(hooks.context);
}

static void test_boot_reload(void **state)
{
    (void)state;
    config.listeners[0] = (struct listener_config){.text = "127.0.0.1:1080"};
    config.listener_count = 1;
    assert_int_equal(boot("count = (count or 0) + 1\n"
                          "return { timeout = 10, ruleset = { resolve = function() return 'one:1' end } }"),
                     0);
    reload("count = count + 1 return { timeout = 20.5, proxy = 'http://p:1', ruleset = { } }");
    assert_int_equal(now()->timeout_ms, 20500);
    assert_int_equal(now()->hop_count, 1);
    run("assert(count == 2 and ruleset.resolve == nil and neosocksd.config().timeout == 20.5)"); /* the same state */
    for (const char *const *bad =
             (const char *const[]){"return { timeout = 1, ruleset = { bad = 1 } }", "return { loglevel = 'x' }",
                                   "return { max_sessions = 1, startup_limit_full = 5 }", "error('x')", "return 5",
                                   "_G.ruleset = 5 error('x')",
                                   "_G.ruleset = nil return { auth_required = true, timeout = 30 }",
                                   "return { max_sessions = 4, proxy = 'x' }", NULL};
         *bad; bad++) {
        reload(*bad);
        assert_int_equal(now()->timeout_ms, 20500);
        assert_int_equal(now()->max_sessions, 64);
        run("assert(ruleset.bad == nil)");
        assert_true(engine_has_ruleset(engine));
    }
    for (int i = 0; i < 3; i++) { /* without a ruleset, and again: neosocksd frees its state twice */
        reload("_G.ruleset = 5 return { timeout = 30 }");
        assert_int_equal(now()->timeout_ms, 30000);
        assert_false(engine_has_ruleset(engine));
        assert_int_equal(engine_revision(engine), 0);
    }
    reload("return { ruleset = {} }");
    assert_true(engine_has_ruleset(engine));
}

#define WITH_SCRIPT(f) cmocka_unit_test_setup_teardown(f, open_with_script, close_with_script)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRIPT(test_boot_errors),      WITH_SCRIPT(test_boot),           WITH_SCRIPT(test_boot_without_ruleset),
        WITH_SCRIPT(test_listener_options), WITH_SCRIPT(test_boot_asks_once), cmocka_unit_test(test_nearest),
        WITH_SCRIPT(test_transparent),      WITH_SCRIPT(test_ruleset_file),   WITH_SCRIPT(test_boot_reload),
    };
    return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}

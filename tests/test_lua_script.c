/* Scripts that run by themselves, with a real coordinator and a worker that relays: how they begin, what they hold, and
 * that nothing of them is left. */
#include <time.h>

#include "lua/engine/state.h"
#include "lua/modules/execute.h"
#include "lua/socket/socket.h"
#include "tests/socket_scripts.h"

/* A busy machine makes it no longer. */
static uint64_t thread_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

static enum engine_script_result add(const char *name, const char *source)
{
    struct engine_text error = {0};
    enum engine_script_result result = engine_add_script(engine, name, source, strlen(source), &error);
    assert_int_equal(result == ENGINE_SCRIPT_OK, error.data == NULL);
    engine_text_free(&error);
    return result;
}

/* It is refused, and the text has these words. */
static void refuse(const char *name, const char *source, enum engine_script_result wanted, const char *words)
{
    struct engine_text error = {0};
    enum engine_script_result result = engine_add_script(engine, name, source, strlen(source), &error);
    if (result != wanted || !error.data || !strstr(error.data, words))
        fail_msg("%s: %d, %s", source, (int)result, error.data ? error.data : "no text");
    engine_text_free(&error);
}

static struct engine_script get(const char *name)
{
    struct engine_script s;
    for (unsigned i = 0; engine_get_script(engine, i, &s); i++)
        if (strcmp(s.name, name) == 0) return s;
    fail_msg("there is no script %s", name);
    return s;
}

static bool is_there(const char *name)
{
    struct engine_script s;
    for (unsigned i = 0; engine_get_script(engine, i, &s); i++)
        if (strcmp(s.name, name) == 0) return true;
    return false;
}

static void turns(int count)
{
    while (count-- > 0) check("await.sleep(0)");
}

/* Runs until the state of it is closed. */
static struct engine_script await_end(const char *name)
{
    while (get(name).memory > 0) turns(1);
    return get(name);
}

static void end(const char *name)
{
    assert_true(engine_remove_script(engine, name));
    assert_false(is_there(name));
}

/* What a script holds outside of its state, and what all states hold. */
struct held {
    unsigned descriptors;
    size_t bytes;
};

static void await_idle(void)
{
    while (!socket_is_idle() || !execute_is_idle() || engine->waking > 0) turn();
}

/* When nothing is left to close: other threads close descriptors in their own time. */
static struct held measure(void)
{
    struct held now = {0, 0};
    for (unsigned same = 0, tries = 0; same < 3 && tries < 500; tries++) {
        struct held before = now;
        await_idle();
        check("collectgarbage() collectgarbage() await.sleep(0.005)");
        now = (struct held){support_count_descriptors(), engine->limits.bytes_all - engine->limits.bytes};
        same = now.descriptors == before.descriptors ? same + 1 : 0;
    }
    return now;
}

/* A worker that relays closes its descriptors in its own time. */
static void assert_nothing_left(struct held before)
{
    struct held now = measure();
    for (int i = 0; i < 500 && now.descriptors != before.descriptors; i++) {
        check("await.sleep(0.01)");
        now = measure();
    }
    assert_int_equal(now.descriptors, before.descriptors);
    assert_int_equal(now.bytes, before.bytes);
}

static void test_names(void **state)
{
    static const char *const wrong[] = {"", ".", "..", ".a", "a/b", "../a", "a b", "a\n", "\xc3\xa4", "a?", "%41"};
    char name[ENGINE_SCRIPT_NAME_MAX + 2];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refuse(wrong[i], "", ENGINE_SCRIPT_NO_NAME, "1 to 64 letters");
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    refuse(name, "", ENGINE_SCRIPT_NO_NAME, "1 to 64 letters");
    name[ENGINE_SCRIPT_NAME_MAX] = '\0';
    assert_int_equal(add(name, "assert(... == ('n'):rep(64))"), ENGINE_SCRIPT_OK);
    assert_int_equal(await_end(name).state, ENGINE_SCRIPT_FINISHED);
    end(name);
    assert_int_equal(add("A-1_b.c", "return ..."), ENGINE_SCRIPT_OK);
    await_end("A-1_b.c");
    end("A-1_b.c");
    assert_false(engine_remove_script(engine, "A-1_b.c"));
}

static void test_life(void **state)
{
    struct held before = measure();
    (void)state;
    /* Its body has ended, but not what it has started. */
    assert_int_equal(add("a", "neosocksd.async(function() end, function() await.sleep(0.05) end) "
                              "s = socket.new('i', 't') s:bind'127.0.0.1'"),
                     ENGINE_SCRIPT_OK);
    struct engine_script s = get("a");
    assert_int_equal(s.state, ENGINE_SCRIPT_RUNNING);
    assert_int_equal(s.sockets, 1);
    assert_int_equal(s.coroutines, 1);
    assert_true(s.memory > 10000);
    assert_null(s.error);
    refuse("a", "", ENGINE_SCRIPT_TAKEN, "choose another");
    s = await_end("a");
    assert_int_equal(s.state, ENGINE_SCRIPT_FINISHED);
    assert_int_equal(s.sockets, 0);
    assert_int_equal(s.coroutines, 0);
    assert_null(s.error);
    /* The name is free again; what does not compile leaves the old entry. */
    refuse("a", "x = = 1", ENGINE_SCRIPT_WRONG, "a:1: unexpected symbol");
    assert_int_equal(get("a").state, ENGINE_SCRIPT_FINISHED);
    assert_int_equal(add("a", "await.sleep(100)"), ENGINE_SCRIPT_OK);
    assert_int_equal(get("a").state, ENGINE_SCRIPT_RUNNING);
    end("a");
    /* An error that one of its coroutines makes of itself is told, and ends nothing. */
    add("a", "neosocksd.async(function() error'in between' end, function() end) await.sleep(100)");
    assert_int_equal(get("a").state, ENGINE_SCRIPT_RUNNING);
    assert_string_equal(get("a").error, "a:1: in between");
    end("a");
    assert_nothing_left(before);
}

static void test_failures(void **state)
{
    struct held before = measure();
    (void)state;
    refuse("f", "local s = socket.new('i', 't')\ns:bind('192.0.2.1', 5)", ENGINE_SCRIPT_RAISED,
           "f:2: bind: EADDRNOTAVAIL");
    assert_int_equal(get("f").state, ENGINE_SCRIPT_FAILED);
    refuse("f", "error'text'", ENGINE_SCRIPT_RAISED, "f:1: text"); /* a failed one holds no name */
    refuse("f", "error{}", ENGINE_SCRIPT_RAISED, "f:1: (error object is not a string)");
    refuse("f", "\n\nnil_function()", ENGINE_SCRIPT_RAISED, "f:3: attempt to call a nil value");
    refuse("f", "coroutine.yield()", ENGINE_SCRIPT_RAISED, "it yielded by itself");
    refuse("f", "neosocksd.setinterval(1)", ENGINE_SCRIPT_RAISED, "setinterval is for rulesets");
    refuse("f", "await.forward('127.0.0.1:1')", ENGINE_SCRIPT_RAISED, "must be called from a ruleset");
    refuse("f", "\x1bLua", ENGINE_SCRIPT_WRONG, "attempt to load a binary chunk");
    engine->traceback = true;
    refuse("f", "local function inner() error'deep' end\ninner() return 1", ENGINE_SCRIPT_RAISED, "f:2: in main chunk");
    refuse("f", "x = = 1", ENGINE_SCRIPT_WRONG, "unexpected symbol near '='");
    engine->traceback = false;
    /* Later, with others that wait: all of it ends. */
    add("f", "_, s = nil, socket.new('i', 'u') s:bind'127.0.0.1' "
             "for _ = 1, 10 do neosocksd.async(function() end, s.recv, s, 1) end await.sleep(0.02) error'late'");
    assert_int_equal(get("f").coroutines, 11);
    struct engine_script s = await_end("f");
    assert_int_equal(s.state, ENGINE_SCRIPT_FAILED);
    assert_string_equal(s.error, "f:1: late");
    assert_int_equal(s.sockets + s.coroutines, 0);
    end("f");
    assert_nothing_left(before);
}

/* Each waits for something else when it is ended; whoever still holds a part of it finds nothing to go on with. */
static void test_ended_while_waiting(void **state)
{
    static const char listen[] = "local s = socket.new('i', 't') s:bind'127.0.0.1' s:listen(9) "
                                 "local a = socket.new('i', 't') a:connect(s:getsockname()) local b = s:accept() ";
    static const char *const waits[] = {
        "await.sleep(0)",
        "await.sleep(100)",
        "await.execute'sleep 100'",
        "s:accept()",
        "a:recv(1)",
        "a:settimeout(60) a:receive'*a'",
        "a:send(('x'):rep(32 << 20))",
        "socket.poll{a, b, s}:select()",
        "a:relay(b)",
        "neosocksd.async(function() end, b.recv, b, 5) neosocksd.async(function() end, a.recv, a, 5) s:accept()",
        "coroutine.wrap(function() a:recv(1) end)() b:recv(1)",
        "local co = coroutine.create(function() a:recv(1) end) coroutine.resume(co) coroutine.resume(co) b:recv(1)",
    };
    char source[1024];
    struct held before = measure();
    (void)state;
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        snprintf(source, sizeof source, "%s %s error'it does not wait'", listen, waits[i]);
        add("w", source);
        if (i > 0) turns(3);
        if (get("w").coroutines == 0 && i > 0) fail_msg("%s does not wait", waits[i]);
        end("w");
        assert_nothing_left(before);
    }
    assert_int_equal(coordinator_set_nameservers(coordinator, "127.0.0.1:9"), 0);
    add("w", "await.resolve'name.invalid'");
    assert_int_equal(get("w").coroutines, 1);
    end("w");
    assert_nothing_left(before);
}

/* What is to be closed is closed, within the time of one entry; and it can begin nothing any more. */
static void test_closing(void **state)
{
    char source[1024];
    int ends[2];
    char text[64] = "";
    struct held before = measure();
    (void)state;
    assert_int_equal(pipe(ends), 0);
    snprintf(source, sizeof source,
             "local file = io.open('/proc/self/fd/%d', 'w') file:setvbuf'no' "
             "function closes(what, f) return setmetatable({}, {__close = function() f() file:write(what) end}) end "
             "function nothing() end "
             "neosocksd.async(nothing, function() local c <close> = closes('a', nothing) await.sleep(9) end) "
             "coroutine.wrap(function() local c <close> = closes('b', nothing) await.sleep(9) end)() "
             "neosocksd.async(nothing, function() local c <close> = closes('x', function() await.sleep(9) end) "
             "await.sleep(9) end) "
             "neosocksd.async(nothing, function() local c <close> = closes('c', function() "
             "assert(not pcall(neosocksd.async, nothing, nothing)) end) await.sleep(9) end) "
             "gc = setmetatable({}, {__gc = function() file:write(tostring(pcall(neosocksd.async, nothing, nothing))) "
             "end}) await.sleep(9)",
             ends[1]);
    assert_int_equal(add("c", source), ENGINE_SCRIPT_OK);
    end("c");
    assert_true(read(ends[0], text, sizeof text - 1) == 8);
    for (const char *octet = "abc"; *octet; octet++) assert_non_null(strchr(text, *octet));
    assert_null(strchr(text, 'x'));
    assert_non_null(strstr(text, "false"));
    close(ends[0]);
    close(ends[1]);
    config.lua_budget_ms = 20 * support_slow();
    add("c", "for _ = 1, 100 do neosocksd.async(print, function() "
             "local c <close> = setmetatable({}, {__close = function() while true do end end}) await.sleep(9) end) end "
             "await.sleep(9)");
    assert_int_equal(get("c").coroutines, 101);
    uint64_t begin = thread_cpu_ns();
    end("c");
    assert_true(thread_cpu_ns() - begin < 100 * UINT64_C(20000000) * support_slow()); /* not that of each */
    config.lua_budget_ms = 5000 * support_slow();
    assert_nothing_left(before);
}

static void test_budget(void **state)
{
    struct held before = measure();
    (void)state;
    config.lua_budget_ms = 20;
    refuse("b", "while true do pcall(function() while true do end end) end", ENGINE_SCRIPT_RAISED,
           "time budget of 20 ms exceeded");
    add("b", "await.sleep(0) while true do end");
    assert_int_equal(await_end("b").state, ENGINE_SCRIPT_FAILED);
    assert_non_null(strstr(get("b").error, "b:1: time budget of 20 ms exceeded"));
    config.lua_budget_ms = 5000 * support_slow();
    end("b");
    assert_nothing_left(before);
}

static void test_memory(void **state)
{
    struct engine_memory memory;
    struct held before = measure();
    (void)state;
    add("m", "text = ('x'):rep(8 << 20) buffer = data.new(4 << 20) await.sleep(100)");
    assert_true(get("m").memory > 12 << 20 && get("m").memory < 14 << 20);
    engine_get_memory(engine, &memory);
    assert_int_equal(engine->limits.bytes_all, memory.bytes + before.bytes + get("m").memory);
    /* All together have one limit: what a script takes, the others have no more. */
    config.memlimit_mib = 22;
    engine->limits.bytes_max = (size_t)22 << 20;
    refuse("n", "local t = {} while true do t[#t + 1] = ('x'):rep(65536) .. #t end", ENGINE_SCRIPT_RAISED,
           "not enough memory");
    assert_true(engine->limits.bytes_all < engine->limits.bytes_max);
    await_end("n");
    check("assert(not pcall(string.rep, 'x', 9 << 20)) assert(pcall(string.rep, 'x', 1 << 20))");
    assert_int_equal(get("m").state, ENGINE_SCRIPT_RUNNING);
    end("m");
    check("assert(pcall(string.rep, 'x', 9 << 20)) collectgarbage()");
    end("n");
    config.memlimit_mib = 0;
    engine->limits.bytes_max = 0;
    assert_nothing_left(before);
}

/* Neither sees what the other does, and no update of the ruleset reaches a script. */
static void test_apart(void **state)
{
    static const char rules[] = "shared = 'of the ruleset' return {route = function(a) return a end}";
    struct engine_text error = {0};
    struct held before = measure();
    (void)state;
    add("one", "assert(shared == nil and ruleset == nil) shared = 1 string.format = nil "
               "local s = socket.new('x', 't') s:bind'\\0sluice-apart' s:listen(9) "
               "while true do local c <close> = s:accept() c:send'served' end");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(engine_update(engine, NULL, NULL, rules, sizeof rules - 1, &error), 0);
        check("assert(_G.shared == 'of the ruleset' and string.format)");
        check("local c <close> = socket.new('x', 't') c:connect'\\0sluice-apart' assert(c:receive'*a' == 'served')");
        engine_collect(engine);
    }
    add("two", "assert(shared == nil and string.format)");
    assert_int_equal(await_end("two").state, ENGINE_SCRIPT_FINISHED);
    assert_int_equal(get("one").state, ENGINE_SCRIPT_RUNNING);
    assert_int_equal(socket_count(engine), 1); /* the prelude's */
    assert_int_equal(get("one").sockets, 1);
    end("one");
    end("two");
    assert_nothing_left(before);
}

static void test_crowd(void **state)
{
    char name[16];
    struct held before = measure();
    (void)state;
    for (unsigned i = 0; i < ENGINE_SCRIPTS_MAX; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(add(name, "await.sleep(100)"), ENGINE_SCRIPT_OK);
    }
    refuse("more", "", ENGINE_SCRIPT_FULL, "delete one");
    for (unsigned i = 0; i < ENGINE_SCRIPTS_MAX; i += 2) {
        snprintf(name, sizeof name, "s%u", i);
        end(name);
    }
    assert_int_equal(add("more", ""), ENGINE_SCRIPT_OK);
    assert_int_equal(await_end("more").state, ENGINE_SCRIPT_FINISHED);
    end("more");
    for (unsigned i = 1; i < ENGINE_SCRIPTS_MAX; i += 2) {
        snprintf(name, sizeof name, "s%u", i);
        end(name);
    }
    assert_nothing_left(before);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_files(void **state)
{
    static const char path[] = "build/.odd name.lua";
    struct held before = measure();
    (void)state;
    unlink(path);
    log_open(LOG_DISCARD, LOG_LEVEL_SILENCE); /* what is refused is said */
    config.scripts[0] = path;
    config.script_count = 1;
    assert_int_equal(engine_load_scripts(engine, &config), -1);
    write_file(path, "x = = 1");
    assert_int_equal(engine_load_scripts(engine, &config), -1);
    write_file(path, "#!/usr/bin/env sluice\nerror'in a file'");
    config.scripts[1] = path;
    config.script_count = 2;
    assert_int_equal(engine_load_scripts(engine, &config), -1); /* two of one name */
    assert_int_equal(get("_odd_name").state, ENGINE_SCRIPT_LOADED);
    engine_start_scripts(engine);
    assert_int_equal(await_end("_odd_name").state, ENGINE_SCRIPT_FAILED);
    assert_string_equal(get("_odd_name").error, "build/.odd name.lua:2: in a file");
    log_open(LOG_TO_STDERR, LOG_LEVEL_FATAL);
    end("_odd_name");
    config.script_count = 0;
    unlink(path);
    assert_nothing_left(before);
}

/* What runs when the process stops is ended with it. */
static int close_with_scripts(void **state)
{
    add("last", "s = socket.new('i', 'u') s:bind'127.0.0.1' neosocksd.async(print, s.recv, s, 1) await.sleep(100)");
    assert_int_equal(get("last").sockets, 1);
    return close_all(state);
}

static int open_quietly(void **state)
{
    int failed = open_all(state);
    log_open(LOG_TO_STDERR, LOG_LEVEL_FATAL);
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_life),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_ended_while_waiting),
        cmocka_unit_test(test_closing),  cmocka_unit_test(test_budget),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_apart),
        cmocka_unit_test(test_crowd),    cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests_name("script", tests, open_quietly, close_with_scripts);
}

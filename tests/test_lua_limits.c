/* No call of a script lasts much longer than its time budget, whatever it calls, and what it may do to the process. */
#include <sys/stat.h>
#include <time.h>

#include "lua/engine/entry.h"
#include "lua/modules/marshal.h"
#include "tests/engine_asked.h"

/* Far beyond what any of these takes, and far below what they would take without a bound. */
#define HELD_MS 30000

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int open_limited(void **state)
{
    int error = open_engine(state);
    if (error == 0) engine->limits.budget_ms = 50;
    return error;
}

/* In a folder of its own. The program's limit of time is what fails a test that hangs. */
static void exceeds(const char *code)
{
    uint64_t begin = now_ms();
    raises(code, "time budget");
    if (now_ms() - begin > HELD_MS) fail_msg("%s took %u ms", code, (unsigned)(now_ms() - begin));
    /* A child that it has left is waited for by the finalizer of its file, in whatever entry that runs. */
    engine_collect(engine);
    run("assert(true)"); /* the next entry has its own budget */
}

static void test_patterns(void **state)
{
    (void)state;
    exceeds("local name = ('a'):rep(250) name:find('.-.-.-.-.-b')");
    exceeds("string.match(('a'):rep(250), '(a*)(a*)(a*)(a*)(a*)(a*)b')");
    exceeds("for _ in ('a'):rep(250):gmatch('.-.-.-.-.-.-b') do end");
    exceeds("(('a'):rep(250)):gsub('a*a*a*a*a*a*a*b', '')");
    exceeds("local f = coroutine.wrap(function() ('a'):rep(250):find('.-.-.-.-.-b') end) f()");
    exceeds("pcall(string.find, ('a'):rep(250), '.-.-.-.-.-b') while true do end");
}

/* What waits in the kernel is interrupted: the time by the clock counts. */
static void test_waiting(void **state)
{
    char path[] = "/tmp/sluice-fifo-XXXXXX", code[200];
    (void)state;
    close(mkstemp(path));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    /* Again and again: what the thread has waited for a CPU is taken off, so that the first one may be within time. */
    snprintf(code, sizeof code, "while true do io.open('%s') end", path);
    exceeds(code);
    snprintf(code, sizeof code, "local f = io.open('%s', 'r+') while true do f:read(1) end", path);
    exceeds(code);
    snprintf(code, sizeof code, "local f = io.open('%s', 'r+') while true do f:write(('x'):rep(1 << 20)) end", path);
    exceeds(code);
    snprintf(code, sizeof code, "while true do pcall(function() for _ in io.lines('%s') do end end) end", path);
    exceeds(code);
    unlink(path);
}

/* Loops of C functions, over tables of any length. */
static void test_tables(void **state)
{
    (void)state;
    exceeds("table.move({}, 1, 1 << 60, 2)");
    exceeds("table.move({}, 1, 1 << 60, 2, {})");
    exceeds("table.move(setmetatable({}, {__index = math.abs}), 1, 0, 2) table.move({}, -5, 1 << 60, 1 << 61)");
    exceeds("table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 5)");
    exceeds("table.remove(setmetatable({}, {__len = function() return 1 << 60 end}), 1)");
    exceeds("table.concat(setmetatable({}, {__index = function() return '' end}), '', 1, 1 << 60)");
    exceeds(
        "table.concat(setmetatable({}, {__index = ipairs and rawlen}), '', 1, 0) while true do table.concat({}) end");
    exceeds("table.sort(setmetatable({}, {__len = function() return (1 << 31) - 2 end}), rawequal)");
    exceeds("local t, a = {}, ('a'):rep(1 << 22) for i = 1, 4000 do t[i] = a .. i end table.sort(t)");
    exceeds("while true do pcall(table.unpack, {}, 1, 100000) end");
    run("assert((''):rep(1 << 60) == '')");
}

/* The same as Lua's, but for the order in which sort() compares. */
static void test_tables_same(void **state)
{
    (void)state;
    run("local t = {1, 2, 3} table.insert(t, 4) table.insert(t, 1, 0) assert(table.concat(t, ',') == '0,1,2,3,4')\n"
        "assert(table.remove(t) == 4 and table.remove(t, 1) == 0 and table.concat(t) == '123')\n"
        "assert(table.remove(t, 4) == nil and table.remove({}) == nil and table.remove({}, 0) == nil)\n"
        "assert(table.concat({1, 2.5, 'x'}, '-', 2, 3) == '2.5-x' and table.concat({}, 'x') == '')\n"
        "assert(table.concat({}, 'x', 2, 1) == '' and table.concat({[math.maxinteger] = 7}, '', math.maxinteger, "
        "math.maxinteger) == '7')\n"
        "assert(table.concat(table.move({1, 2, 3, 4}, 1, 3, 2), ',') == '1,1,2,3')\n"
        "assert(table.concat(table.move({1, 2, 3, 4}, 2, 4, 1), ',') == '2,3,4,4')\n"
        "local u = table.move({1, 2, 3}, 1, 3, 3, {9, 9}) assert(table.concat(u, ',') == '9,9,1,2,3')\n"
        "assert(table.move({1}, 1, 0, 5)[5] == nil)");
    run("local m, seen = getmetatable(''), {} local index = m.__index\n" /* what behaves like a table */
        "m.__len, m.__newindex = string.len, function(s, k, v) seen[k] = v end\n"
        "m.__index = function(s, k) if type(k) == 'number' then return k * 2 end return index[k] end\n"
        "table.insert('abc', 'x') table.insert('abc', 3, 'y') local all = table.concat('abc', '-')\n"
        "m.__index, m.__newindex, m.__len = index, nil, nil\n"
        "assert(all == '2-4-6' and seen[4] == 6 and seen[3] == 'y' and not pcall(table.concat, 'abc'))");
    raises("table.insert({1, 2}, 5, 1)", "bad argument #2 to 'insert' (position out of bounds)");
    raises("table.insert({1, 2})", "wrong number of arguments to 'insert'");
    raises("table.remove({1, 2}, 7)", "bad argument #2 to 'remove' (position out of bounds)");
    raises("table.concat({1, {}, 3})", "invalid value (at index 2) in table for 'concat'");
    raises("table.move({}, math.mininteger, 1, 1)", "too many elements to move");
    raises("table.move({}, 1, 5, math.maxinteger)", "destination wrap around");
    raises("table.insert(5, 1)", "bad argument #1 to 'insert' (table expected, got number)");
    raises("table.sort({1, 'x'})", "attempt to compare");
    raises("table.sort({1, 2}, 5)", "bad argument #2 to 'sort' (function expected, got number)");
    run("local log = {} local p = setmetatable({}, {__len = function() return 3 end, __index = function(_, i) return i "
        "end,\n"
        "    __newindex = function(_, i, v) log[#log + 1] = i .. '=' .. tostring(v) end})\n"
        "table.insert(p, 2, 'x') assert(table.concat(log, ' ') == '4=3 3=2 2=x')");
}

static void test_sort(void **state)
{
    (void)state;
    engine->limits.budget_ms = 5000 * support_slow();
    run("local seed = 1 local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return seed // 65536 "
        "% n end\n"
        "for size = 0, 300 do for _, range in ipairs{2, 10, 1000000} do\n"
        "    local t, sum = {}, 0 for i = 1, size do t[i] = random(range) sum = sum + t[i] end\n"
        "    local down = table.move(t, 1, size, 1, {})\n"
        "    table.sort(t) table.sort(down, function(a, b) return a > b end)\n"
        "    for i = 1, size do sum = sum - t[i] assert(down[i] == t[size + 1 - i] and (i == 1 or t[i - 1] <= t[i])) "
        "end\n"
        "    assert(sum == 0)\n"
        "end end\n"
        "for size = 1, 100 do local t = {} for i = 1, size do t[i] = i end\n"
        "    table.sort(t, function() return true end) table.sort(t, function() return false end) assert(#t == size)\n"
        "    local set = {} for _, v in ipairs(t) do assert(not set[v]) set[v] = true end end");
}

/* Lua calls finalizers, and what closes a dead coroutine, where its hooks are off. */
static void test_finalizers(void **state)
{
    (void)state;
    exceeds("setmetatable({}, {__gc = function() while true do end end}) while true do local t = {} end");
    exceeds("setmetatable({}, {__gc = function() while true do end end}) collectgarbage() while true do end");
    exceeds("local m = {__gc = true} setmetatable({}, m) m.__gc = function() while true do end end collectgarbage() "
            "while true do end");
    exceeds("debug.setmetatable({}, {__gc = function() while true do end end}) collectgarbage() while true do end");
    exceeds("local f <close> = setmetatable({}, {__close = function() while true do end end})");
    exceeds(
        "coroutine.wrap(function() local x <close> = setmetatable({}, {__close = function() while true do end end}) "
        "while true do end end)()");
    exceeds(
        "local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() while true do "
        "end end}) while true do end end) kept = co coroutine.resume(co)");
    run("_G.closed = {coroutine.close(coroutine.create(print))}");
    exceeds(
        "_G.kept = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() while true do "
        "end end}) while true do end end) coroutine.resume(kept)");
    run("local ok, e = coroutine.close(kept) assert(not ok and e:find('budget')) assert(coroutine.status(kept) == "
        "'dead')");
}

static void test_finalizers_same(void **state)
{
    (void)state;
    run("collectgarbage('stop') local order = {} local m = {__gc = function(o) order[#order + 1] = o.n end}\n"
        "for i = 1, 3 do setmetatable({n = i}, m) end collectgarbage() assert(table.concat(order, ',') == '3,2,1')\n"
        "local t = setmetatable({}, {__gc = function() order.x = 1 end}) t = nil collectgarbage() assert(order.x == "
        "1)");
    /* Only what has __gc when the metatable is set is finalized, by what stands there in the end. */
    run("local n = 0 local m = {} local t = setmetatable({}, m) m.__gc = function() n = n + 1 end t = nil "
        "collectgarbage()\n"
        "assert(n == 0) t = setmetatable({}, m) m.__gc = function() n = n + 10 end t = nil collectgarbage() assert(n "
        "== 10)\n"
        "assert(type(m.__gc) == 'function')");
    /* Once, unless it is set again; the object may live on. */
    run("local n, kept = 0 local m m = {__gc = function(o) n = n + 1 kept = o if n < 3 then setmetatable(o, m) end "
        "end}\n"
        "setmetatable({}, m) for i = 1, 6 do kept = nil collectgarbage() end assert(n == 3)");
    run("local n = 0 local t = {} for i = 1, 5000 do t[i] = setmetatable({}, {__gc = function() n = n + 1 end}) end\n"
        "collectgarbage('step') for i = 1, 5000 do t[i] = nil if i % 50 == 0 then collectgarbage('step') end end\n"
        "collectgarbage() collectgarbage() assert(n == 5000, n)");
    run("local n = 0 for _, mode in ipairs{'incremental', 'generational'} do collectgarbage(mode)\n"
        "for i = 1, 20000 do setmetatable({i, {}}, {__gc = function(o) n = n + (o[1] == i and 1 or 0) end}) end\n"
        "collectgarbage() collectgarbage() end assert(n == 40000, n)");
    run("local a, b = {}, {} a.b, b.a = b, a local n = 0 local m = {__gc = function(o) assert(o.a or o.b) n = n + 1 "
        "end}\n"
        "setmetatable(a, m) setmetatable(b, m) a, b = nil, nil collectgarbage() assert(n == 2)");
    /* What it may not do, and what it raises. */
    run("local why local t = setmetatable({}, {__gc = function() local _, e = pcall(coroutine.yield) why = e end}) t = "
        "nil\n"
        "collectgarbage() assert(why:find('attempt to yield'), why)");
    run("local why local t = setmetatable({}, {__gc = function() local _, e = pcall(await.sleep, 1) why = e end}) t = "
        "nil\n"
        "collectgarbage() assert(why:find('not in asynchronous routine'), why)");
    run("setmetatable({}, {__gc = function() error('x') end}) collectgarbage()\n"
        "local n = 0 setmetatable({}, {__gc = function() n = 1 end}) collectgarbage() assert(n == 1)");
    run("local co setmetatable({}, {__gc = function() co = coroutine.running() end}) collectgarbage() assert(co)\n"
        "pcall(coroutine.resume, co, 1) pcall(coroutine.close, co)\n"
        "local n = 0 setmetatable({}, {__gc = function() n = 1 end}) collectgarbage() assert(n == 1)");
    run("local where = {} for i = 1, 3 do setmetatable({}, {__gc = function() where[i] = coroutine.running() end}) "
        "end\n"
        "collectgarbage() assert(where[1] and where[1] == where[2] and where[2] == where[3])"); /* one serves them all
                                                                                                 */
    raises("setmetatable({}, 5)", "bad argument #2 to 'setmetatable' (nil or table expected, got number)");
    raises("setmetatable(setmetatable({}, {__metatable = 1}), {})", "cannot change a protected metatable");
    run("local t = setmetatable({}, {__metatable = 'x'}) assert(getmetatable(t) == 'x' and getmetatable({}) == nil)\n"
        "assert(getmetatable('').__index == string and getmetatable(5) == nil)");
}

/* Scripts do not reach what C trusts. */
static void test_debugging(void **state)
{
    (void)state;
    raises("debug.sethook()", "debug.sethook is not available to scripts");
    raises("debug.getregistry()", "debug.getregistry is not available to scripts");
    raises("debug.setuservalue(io.stdout, 1)", "debug.setuservalue is not available to scripts");
    raises("debug.setmetatable(io.stdout, {})", "the metatable of a userdata cannot be changed");
    exceeds("pcall(debug.sethook) while true do end");
    exceeds("pcall(debug.sethook, coroutine.running()) while true do end");
    run("getmetatable(regex.compile('x')).__gc = error debug.getmetatable(io.stdout).__gc = error\n"
        "assert(getmetatable(io.stdout) == getmetatable(io.stderr) and getmetatable(io.stdout).__index.read)\n"
        "regex.compile('y') collectgarbage()");
    run("assert(debug.getupvalue(('x'):gmatch('x'), 1) == nil and debug.setupvalue(('x'):gmatch('x'), 1, 2) == nil)");
    run("local t = {} assert(debug.setmetatable(t, {__len = function() return 7 end}) == t and #t == 7)\n"
        "assert(debug.setmetatable(t, nil) == t and #t == 0)");
    raises("debug.setlocal(1, 1)", "bad argument #3 to 'setlocal' (value expected)");
    raises("local co = coroutine.create(function(b) coroutine.yield() end) coroutine.resume(co, 8) debug.setlocal(co, "
           "1, 1)",
           "bad argument #4 to 'setlocal' (value expected)");
    run("local a = 5 local n, v = debug.getlocal(1, 1) assert(n == 'a' and v == 5)\n"
        "assert(debug.setlocal(1, 1, 6) == 'a' and a == 6 and debug.getlocal(function(x, y) end, 2) == 'y')\n"
        "assert(debug.getinfo(1, 'f').func and debug.getinfo(1, 'l').currentline == 3)\n"
        "local f = function() return a end assert(debug.getupvalue(f, 1) == 'a' and debug.setupvalue(f, 1, 7) == 'a')\n"
        "assert(f() == 7 and debug.getinfo(f, 'S').what == 'Lua' and debug.getinfo(print).func == print)\n"
        "table.sort({1, 2}, function() assert(debug.getlocal(2, 1) == nil and debug.setlocal(2, 1, 1) == nil)\n"
        "    assert(debug.getinfo(2, 'f').func == nil and debug.getinfo(2, 'n').name == 'sort') end)\n"
        "local co = coroutine.create(function(b) coroutine.yield() end) coroutine.resume(co, 8)\n"
        "local n, v = debug.getlocal(co, 1, 1) assert(n == 'b' and v == 8 and debug.getinfo(co, 0, 'f').func == nil)\n"
        "assert(debug.getinfo(99) == nil and debug.traceback('x'):find('^x\\nstack'))");
    raises("debug.getlocal(99, 1)", "level out of range");
}

/* A collector that a script has stopped runs again behind its entry. */
static void test_collector(void **state)
{
    (void)state;
    run("collectgarbage('stop') assert(not collectgarbage('isrunning'))");
    run("assert(collectgarbage('isrunning'))");
    install("return {resolve = function(a) collectgarbage('stop') return a end}");
    struct ask a;
    ask(&a, "a.b:1", 0);
    run("assert(collectgarbage('isrunning'))");
}

/* Those of our own do what Lua's do. */
static void test_coroutines(void **state)
{
    (void)state;
    run("local f = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) error('x' .. b, 0) end)\n"
        "assert(f(1) == 2) local ok, e = pcall(f, 'y') assert(not ok and e:find('xy$'), e)\n"
        "ok, e = pcall(f) assert(not ok and e:find('cannot resume dead coroutine'), e)");
    run("local log = '' local f = coroutine.wrap(function() local x <close> = setmetatable({}, {__close = function(_, "
        "e) \n"
        "    log = log .. tostring(e) end}) error({}) end) local ok, e = pcall(f)\n"
        "assert(not ok and type(e) == 'table' and log:find('^table'), log)");
    run("local f = coroutine.wrap(function() local x <close> = setmetatable({}, {__close = function(_, e) "
        "error('second', 0) "
        "end}) error('first') end) local ok, e = pcall(f) assert(not ok and e:find('second$'), e)");
    run("local closed local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() "
        "\n"
        "    closed = true end}) coroutine.yield() end) coroutine.resume(co) assert(coroutine.close(co) and closed)\n"
        "assert(coroutine.status(co) == 'dead' and coroutine.close(co))\n"
        "co = coroutine.create(error) coroutine.resume(co, 'x') local ok, e = coroutine.close(co)\n"
        "assert(not ok and e == 'x')");
    raises("coroutine.close(coroutine.running())", "cannot close a running coroutine");
    raises("coroutine.wrap(5)", "bad argument #1 to 'wrap' (function expected, got number)");
    run("local main = coroutine.running() coroutine.wrap(function() local ok, e = pcall(coroutine.close, main)\n"
        "    assert(not ok and e:find('cannot close a normal coroutine')) end)()");
}

/* Children: waited for as long as there is time. */
static void test_children(void **state)
{
    (void)state;
    exceeds("os.execute('sleep 100')");
    exceeds("os.execute('trap \"\" TERM INT; sleep 100 & sleep 100')");
    exceeds("io.popen('sleep 100'):close()");
    exceeds("while true do io.popen('sleep 100'):read() end");
    exceeds("local f = io.popen('sleep 100', 'w') while true do f:write(('x'):rep(1 << 20)) end");
    exceeds("local f <close> = io.popen('sleep 100')");
    exceeds("io.popen('sleep 100') collectgarbage() while true do end");
    exceeds("while true do pcall(os.execute, 'sleep 100') end");
    exceeds("while true do neosocksd.async(function() end, await.execute, 'sleep 1') end");
    exceeds("for l in io.lines('/dev/zero') do end");
}

static void test_children_same(void **state)
{
    (void)state;
    run("assert(os.execute()) local ok, what, code = os.execute('exit 3') assert(not ok and what == 'exit' and code == "
        "3)\n"
        "assert(os.execute('true') == true) ok, what, code = os.execute('kill -9 $$')\n"
        "assert(ok == nil and what == 'signal' and code == 9)");
    run("local f = io.popen('echo a; echo b; exit 4') assert(io.type(f) == 'file' and f:read('a') == 'a\\nb\\n')\n"
        "local ok, what, code = f:close() assert(ok == nil and what == 'exit' and code == 4 and io.type(f) == 'closed "
        "file')");
    run("local name = os.tmpname() local f = assert(io.popen('cat > ' .. name, 'w')) f:write('x', 1) "
        "assert(f:close())\n"
        "assert(io.open(name):read('a') == 'x1') os.remove(name)");
    run("for l in io.popen('printf 1'):lines() do assert(l == '1') end");
    raises("io.popen('true', 'rw')", "bad argument #2 to 'popen' (invalid mode)");
}

/* Bytecode does what it likes; a script makes it up with string.dump(). */
static void test_text_only(void **state)
{
    char folder[] = "/tmp/sluice-text-XXXXXX", back[4096];
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(folder), 0);
    run("local code = string.dump(function() return 1 end)\n"
        "local f, e = load(code) assert(not f and e:find('binary chunk'), e)\n"
        "for _, mode in ipairs{'b', 'bt', 't'} do assert(not load(code, 'x', mode)) end\n"
        "local given f, e = load(function() if not given then given = true return code end end)\n"
        "assert(not f and e:find('binary chunk'))\n"
        "local file = io.open('m.lua', 'wb') file:write(code) file:close()\n"
        "f, e = loadfile('m.lua') assert(not f and e:find('binary chunk')) assert(not loadfile('m.lua', 'b'))\n"
        "local ok, e = pcall(dofile, 'm.lua') assert(not ok and e:find('binary chunk'))\n"
        "ok, e = pcall(require, 'm') assert(not ok and e:find('binary chunk'), e)\n"
        "file = io.open('m.lua', 'w') file:write('#!x\\nreturn ..., 2') file:close()\n"
        "assert(dofile('m.lua') == nil and loadfile('m.lua')(5) == 5 and select(2, require('m')) == 'm.lua')\n"
        "assert(not loadfile('nothing.lua') and not pcall(dofile, 'nothing.lua'))\n"
        "os.remove('m.lua')");
    assert_int_equal(chdir(back), 0);
    rmdir(folder);
    run("assert(load('return 1')() == 1 and load('return x', 'n', 't', {x = 2})() == 2 and load('x', '=n') == nil)\n"
        "local f, e = load('x =', '=name') assert(not f and e:find('^name:1:'))\n"
        "f, e = load('x', 'n', 'b') assert(not f and e == \"attempt to load a text chunk (mode is 'b')\")\n"
        "local parts, i = {'return ', '1', ' + 2', '', 'x'}, 0\n"
        "assert(load(function() i = i + 1 return parts[i] end)() == 3)\n"
        "f, e = load(function() error('no', 0) end) assert(not f and e == 'no')\n"
        "f, e = load(function() return {} end) assert(not f and e:find('must return a string'))\n"
        "assert(load('return _ENV', 'n', nil, nil)() == nil and #load('return [[' .. ('x'):rep(100000) .. ']]')() == "
        "100000)");
    exceeds("local source = ('x = {1, 2, {3}} '):rep(1 << 21) while true do load(source) end");
    exceeds("while true do load(function() return ' ' end) end");
}

/* What unpacks, parses and searches: counted, or on a thread that is left to itself. */
static void test_formats(void **state)
{
    (void)state;
    exceeds("local s = marshal(('x'):rep(1 << 24)) while true do marshal(s) end");
    exceeds("local t = {} for i = 1, 1 << 14 do t[i] = i end while true do marshal(t) end");
    exceeds("local s = zlib.compress(('x'):rep(1 << 24)) while true do zlib.uncompress(s) end");
    exceeds("local t = {} for i = 1, 1 << 16 do t[i] = (i * 2654435761 % 4294967296) .. '' end local s = "
            "table.concat(t):rep(40) "
            "while true do zlib.gzip(s) end");
    exceeds(
        "local r, s = regex.compile('(a|b|c|ab|bc|ca)*(d|e)(a|b)*x'), ('abc'):rep(20000) while true do r:find(s) end");
    exceeds(
        "local r, s = regex.compile('(a*)(b|a)*(a|c)*d$'), ('a'):rep(1 << 20) r:find(s) while true do r:find(s) end");
}

/* The reader of a peer's answer. */
static int decode(lua_State *L)
{
    const char *text = lua_touserdata(L, 1);
    if (marshal_decode(L, text, strlen(text)) < 0) lua_error(L);
    return 0;
}

static void decode_exceeds(const char *unit, size_t count)
{
    struct engine_text error = {0};
    size_t size = strlen(unit);
    char *text = malloc(size * count + 3);
    assert_non_null(text);
    text[0] = '{';
    for (size_t i = 0; i < count; i++) memcpy(text + 1 + i * size, unit, size);
    memcpy(text + 1 + size * count, "}", 2);
    /* The watch is another thread: on a busy machine it may begin to run when all is decoded. */
    int result = engine_protect(engine, decode, text, &error);
    for (int i = 0; i < 20 && result == 0; i++) result = engine_protect(engine, decode, text, &error);
    if (result == 0) fail_msg("no error: %s", unit);
    if (!strstr(error.data, "time budget")) fail_msg("%s: %s", unit, error.data);
    engine_text_free(&error);
    free(text);
}

static void test_answers(void **state)
{
    (void)state;
    engine->limits.budget_ms = 10;
    decode_exceeds("1,", 1 << 23);
    decode_exceeds("{},", 1 << 22);
    decode_exceeds("x='y',", 1 << 22);
    decode_exceeds("'\\x41\\065aaaaaaaaaaaaaaaa',", 1 << 21);
    decode_exceeds("[[\n\n\n\n]],", 1 << 21);
}

/* With more moves than a few, a regex reads its subject another way: it finds the same. */
static void test_regex_same(void **state)
{
    (void)state;
    run("local seed = 1 local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return seed // 65536 "
        "% n + 1 end\n"
        "local patterns = {'a+b', '(a|b)*c', '^a.*b$', '\\\\<b', 'c\\\\>', '[^ab]+', 'a{2,4}', '(a)(b)?(c)', '$', "
        "'b\\\\b', '^$'}\n"
        "for _, p in ipairs(patterns) do local r = regex.compile(p) for i = 1, 20 do local t = {}\n"
        "    for j = 1, 200 do t[j] = ({'a', 'b', 'c', ' ', '\\n', '\\xe4'})[random(6)] end\n"
        "    local s = table.concat(t) local long = s .. ('~'):rep(300000)\n"
        "    local short = table.pack(r:find(s .. '~')) local other = table.pack(r:find(long))\n"
        "    if short[2] and short[2] <= #s and p ~= '$' and p ~= '^$' and p ~= '^a.*b$' and p ~= '[^ab]+' then\n"
        "        assert(short[1] == other[1] and short[2] == other[2], p)\n"
        "        local m, n = table.pack(r:match(s .. '~')), table.pack(r:match(long))\n"
        "        assert(m.n == n.n) for k = 1, m.n do assert(m[k] == n[k], p) end end end end\n"
        "assert(select(2, regex.compile('b$'):find(('a'):rep(300000) .. 'b')) == 300001)\n"
        "assert(regex.compile('^b'):find(('a'):rep(300000) .. '\\nb') == 300002)\n"
        "assert(not regex.compile('x'):find(('a'):rep(300000)))");
}

static void test_locale(void **state)
{
    (void)state;
    run("assert(os.setlocale() == 'C' and os.setlocale('C') == 'C' and os.setlocale(nil, 'numeric') == 'C')\n"
        "assert(os.setlocale('de_DE.UTF-8') == nil and os.setlocale('') == nil and os.setlocale('C.UTF-8', 'all') == "
        "nil)\n"
        "assert(tostring(0.5) == '0.5')");
    raises("os.setlocale('C', 'x')", "bad argument #2 to 'setlocale' (invalid option 'x')");
}

/* The loop has not begun: the status is noted for main. */
static void test_exit(void **state)
{
    (void)state;
    assert_int_equal(coordinator_exit_status(coordinator), -1);
    raises("pcall(os.exit, 3, true) _G.beyond = 1", "the script has ended the process");
    run("assert(_G.beyond == nil)");
    raises("coroutine.wrap(function() xpcall(os.exit, print, false) end)() _G.beyond = 1",
           "the script has ended the process");
    run("assert(_G.beyond == nil)");
    assert_int_equal(coordinator_exit_status(coordinator), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_patterns, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_waiting, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_children, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_children_same, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(test_text_only, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_formats, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_answers, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_regex_same, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(test_locale, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(test_exit, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(test_tables, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_tables_same, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_sort, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_finalizers, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_finalizers_same, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(test_debugging, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_collector, open_limited, close_engine),
        cmocka_unit_test_setup_teardown(test_coroutines, open_engine, close_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Linked into the programs of `make gcstress`: whatever allocates in a state of the engine runs a full collection, and
 * each collection a finalizer that does what C code is tempted to believe nobody does meanwhile. It opens, receives on
 * and closes a socket, resumes a coroutine, makes stack and tables grow and leaves garbage: all of its own, so that the
 * tests see what they always see. What finalizers do to the objects of a call itself is in tests/test_lua_hostile.c.
 *
 * The engine says that a state is open, and that an entry has ended, by lua_gc(), which the linker leads here; also
 * lua_newthread(), because an entry may start coroutines by the ten thousand, and luaL_openlibs() for the states that
 * tests make without an engine. These have a hook of ours, which ends it in the middle of what runs: in states of the
 * engine the time budget's is in its place. */
#include <lauxlib.h>
#include <lua.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

/* Of one state; then it goes on as it does in the product. A program has many states. */
#define COLLECTIONS_MAX 1000
/* Instructions between two looks of the hook. */
#define LOOK 1000

/* The names are those of the linker's --wrap. NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
int __real_lua_gc(lua_State *L, int what, ...);
int __wrap_lua_gc(lua_State *L, int what, ...);
lua_State *__real_lua_newthread(lua_State *L);
lua_State *__wrap_lua_newthread(lua_State *L);
void __real_luaL_openlibs(lua_State *L);
void __wrap_luaL_openlibs(lua_State *L);
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

static const char left_key, hostile_key;

static const char hostile[] =
    "local socket, setmetatable, create, resume, yield, pcall = socket, setmetatable, coroutine.create, "
    "coroutine.resume, coroutine.yield, pcall "
    "local function deep(n) if n > 0 then return 1 + deep(n - 1) end return 0 end "
    "local co = create(function() while true do yield(deep(50), {}, 'x') end end) local keys = {} "
    "return function() "
    "  if socket then local s = socket.new('inet', 'udp') s:bind('127.0.0.1') local ip, port = s:getsockname() "
    "  s:sendmsg({name = {addr = ip, port = port}}, {1, 2, 3, 4}) pcall(s.recv, s, 64, 'D') s:close() end "
    "  resume(co) deep(100) keys[#keys + 1] = {#keys} if #keys > 50 then keys = {} end end";

static lua_Integer left_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &left_key);
    lua_Integer left = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return left;
}

static int collected(lua_State *L);

/* Garbage with that finalizer; the next collection finds it. */
static void plant(lua_State *L)
{
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, collected);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

static int collected(lua_State *L)
{
    lua_Integer left = left_of(L);
    if (left <= 0) return 0;
    lua_pushinteger(L, left - 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &left_key);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hostile_key);
    lua_pcall(L, 0, 0, 0); /* at its end, and at the end of memory or descriptors, it cannot do all of it */
    plant(L);
    return 0;
}

/* A step is a whole cycle, and the next one is due at the next allocation. */
static void begin(lua_State *L)
{
    lua_pushinteger(L, COLLECTIONS_MAX);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &left_key);
    if (luaL_loadstring(L, hostile) != LUA_OK || lua_pcall(L, 0, 1, 0) != LUA_OK) lua_error(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hostile_key);
    plant(L);
    __real_lua_gc(L, LUA_GCINC, 0, 0, 63);
    __real_lua_gc(L, LUA_GCSETPAUSE, 0);
    __real_lua_gc(L, LUA_GCCOLLECT);
}

static void end(lua_State *L)
{
    __real_lua_gc(L, LUA_GCSETPAUSE, 200);
    __real_lua_gc(L, LUA_GCGEN, 0, 0);
    lua_pushinteger(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &left_key);
}

static bool is_over(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &left_key);
    bool over = lua_isinteger(L, -1) && lua_tointeger(L, -1) == 0;
    lua_pop(L, 1);
    return over;
}

int __wrap_lua_gc(lua_State *L, int what, ...)
{
    switch (what) {
    case LUA_GCGEN: begin(L); return LUA_GCINC;
    case LUA_GCISRUNNING:
        if (is_over(L)) end(L);
        return __real_lua_gc(L, what);
    default: return __real_lua_gc(L, what, 0, 0, 0);
    }
}

lua_State *__wrap_lua_newthread(lua_State *L)
{
    if (is_over(L)) end(L);
    return __real_lua_newthread(L);
}

static void look(lua_State *L, lua_Debug *where)
{
    (void)where;
    if (!is_over(L)) return;
    lua_sethook(L, NULL, 0, 0);
    end(L);
}

void __wrap_luaL_openlibs(lua_State *L)
{
    __real_luaL_openlibs(L);
    begin(L);
    lua_sethook(L, look, LUA_MASKCOUNT, LOOK);
}

/* A pattern and a subject, apart at the first line end: compiling and matching take bounded time and memory. Each
 * search of gmatch() is bounded by itself, their number by the script's budget: twenty do here. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdint.h>
#include <string.h>

#include "lua/modules/modules.h"

static const char code[] = "local pattern, subject, flags = ...\n"
                           "local r = regex.compile(pattern, flags)\n"
                           "local a, b = r:find(subject)\n"
                           "local m = r:match(subject)\n"
                           "local function must(holds) if not holds then error({}) end end\n"
                           "must((a ~= nil) == (m ~= nil))\n"
                           "if a then must(subject:sub(a, b) == m) end\n"
                           "local n = 0\n"
                           "for _ in r:gmatch(subject) do n = n + 1 if n == 20 then break end end\n"
                           "must(n <= #subject + 1)\n";

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    luaL_requiref(L, "regex", luaopen_regex, 1);
    return L;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    const uint8_t *end = size > 1 ? memchr(data + 1, '\n', size - 1) : NULL;
    if (!L) L = open_state();
    if (!end) return 0;
    lua_settop(L, 0);
    if (luaL_loadstring(L, code) != LUA_OK) __builtin_trap();
    lua_pushlstring(L, (const char *)data + 1, (size_t)(end - data - 1));
    lua_pushlstring(L, (const char *)end + 1, size - (size_t)(end + 1 - data));
    lua_pushinteger(L, data[0] & 15);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK && lua_istable(L, -1)) __builtin_trap();
    return 0;
}

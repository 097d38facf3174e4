/* Tags of rules, by number: a session is small, and outlives the ruleset that let it in. So none is ever forgotten, and
 * there is a bound to how many there are. Numbers begin at 1. */
#include <stdlib.h>
#include <string.h>

#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/ruleset.h"

#define TAGS_MAX     4096u
#define TAG_SIZE_MAX 64u

static bool tags_have_room(struct ruleset *r)
{
    if (!r->tags) r->tags = calloc(TAGS_MAX, sizeof(char *));
    return r->tags && r->tag_count < TAGS_MAX;
}

/* 0 without room for one more. */
static uint32_t tags_add(struct ruleset *r, const char *text, size_t size)
{
    char *copy = tags_have_room(r) ? malloc(size + 1) : NULL;
    if (!copy) return 0;
    memcpy(copy, text, size);
    copy[size] = '\0';
    uint32_t count = r->tag_count;
    r->tags[count] = copy;
    atomic_store_explicit(&r->tag_count, count + 1, memory_order_release);
    return count + 1;
}

uint32_t tags_number(lua_State *L, int index)
{
    struct ruleset *r = ruleset_of(engine_of(L));
    size_t size;
    const char *text = luaL_tolstring(L, index, &size);
    if (size > TAG_SIZE_MAX) size = TAG_SIZE_MAX;
    size = strnlen(text, size);
    lua_pushlstring(L, text, size);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "sluice.tags");
    lua_pushvalue(L, -2);
    lua_rawget(L, -2);
    uint32_t number = (uint32_t)lua_tointeger(L, -1);
    if (number == 0 && size > 0) {
        number = tags_add(r, text, size);
        lua_pushvalue(L, -3);
        lua_pushinteger(L, number);
        lua_rawset(L, -4);
    }
    lua_pop(L, 4);
    return number;
}

const char *engine_tag(const struct engine *e, uint32_t tag)
{
    const struct ruleset *r = e->ruleset;
    return tag > 0 && tag <= atomic_load_explicit(&r->tag_count, memory_order_acquire) ? r->tags[tag - 1] : NULL;
}

void tags_close(struct ruleset *r)
{
    while (r->tag_count > 0) free(r->tags[--r->tag_count]);
    free(r->tags);
}

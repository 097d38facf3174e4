/* Names in a table of core/io/name_table, in memory of the Lua state, so that its limit holds. */
#include "lua/modules/domains.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/io/name_table.h"
#include "lua/engine/class.h"
#include "lua/modules/entries.h"

static const struct class_key domains_class = {"sluice.domains"};

/* A name of a list, without its dots. */
static const char *domains_next(struct entries *e, size_t *size)
{
    const char *entry = entries_next(e, size);
    if (!entry) return NULL;
    size_t trimmed = *size;
    const char *name = name_trim(entry, &trimmed);
    if (trimmed == 0 || trimmed > NAME_TABLE_NAME_MAX) entries_refuse(e->L, "domain", entry, *size);
    *size = trimmed;
    return name;
}

static struct name_room domains_measure(lua_State *L)
{
    size_t size;
    struct name_room room = name_room_begin();
    struct entries e = entries_open(L);
    while (domains_next(&e, &size)) name_room_add(&room, size, 0);
    if (name_room_slots(&room) == SIZE_MAX) luaL_error(L, "too many domains");
    return room;
}

/* Pushes an empty table. */
static struct name_table *domains_push(lua_State *L, const struct name_room *room)
{
    struct name_table *table = lua_newuserdatauv(L, sizeof *table, 2);
    void *slots = lua_newuserdatauv(L, name_room_slots(room), 0);
    lua_setiuservalue(L, -2, 1);
    uint8_t *text = lua_newuserdatauv(L, room->text, 0);
    lua_setiuservalue(L, -2, 2);
    name_table_init(table, room, 0, slots, text);
    class_set(L, &domains_class);
    return table;
}

int domains_new(lua_State *L)
{
    size_t size;
    struct name_room room = domains_measure(L);
    lua_settop(L, 1);
    struct name_table *table = domains_push(L, &room);
    struct entries e = entries_open(L);
    for (const char *name; (name = domains_next(&e, &size));)
        if (!name_table_add(table, name, size)) return luaL_error(L, ENTRIES_CHANGED);
    return 1;
}

/* predicate(host) -> boolean                                                                        [-0, +1, e] */
static int domains_call(lua_State *L)
{
    const struct name_table *table = class_check(L, 1, &domains_class);
    size_t size;
    bool whole;
    const char *name = luaL_checklstring(L, 2, &size);
    if (size > 0 && name[size - 1] == '.') size--;
    struct name_walk walk = name_walk_begin(table, name, size);
    lua_pushboolean(L, name_walk_next(&walk, &whole) != NULL);
    return 1;
}

static int domains_length(lua_State *L)
{
    const struct name_table *table = class_check(L, 1, &domains_class);
    lua_pushinteger(L, table->count);
    return 1;
}

void domains_open(lua_State *L)
{
    static const luaL_Reg events[] = {{"__call", domains_call}, {"__len", domains_length}, {NULL, NULL}};
    class_open(L, &domains_class, events);
    lua_pop(L, 1);
}

/* data.*: buffers that scripts read and write by layouts (spec: luadata). The octets lie in the userdata of data.new();
 * a segment points into it and keeps it alive. */
#include "lua/socket/data.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/engine/class.h"
#include "lua/socket/socket.h"

#define WORD_BITS 64u

static const struct class_key data_class = {"data"}, layout_class = {"data.layout"};

struct data {
    uint8_t *octets;
    size_t size;
};
enum data_value { DATA_ROOT = 1, DATA_LAYOUT }; /* user values: who owns the octets (nil: itself), the layout */

struct field {
    bool is_text;
    bool little;     /* numbers: the first octet is the least significant */
    uint64_t offset; /* numbers: bits; texts: octets */
    uint64_t length;
};

/* Its user value is a table: name to index in `fields`. */
struct layout {
    size_t count;
    struct field fields[];
};

/* --- objects --- */

static struct data *check_data(lua_State *L, int index)
{
    return class_check(L, index, &data_class);
}

bool data_to_view(lua_State *L, int index, struct data_view *view)
{
    const struct data *d = class_test(L, index, &data_class);
    if (!d) return false;
    *view = (struct data_view){d->octets, d->size};
    return true;
}

/* Pushes an object with `size` octets of its own, zeroed. */
static struct data *push_data(lua_State *L, size_t size)
{
    struct data *d = lua_newuserdatauv(L, sizeof *d + size, 2);
    *d = (struct data){(uint8_t *)(d + 1), size};
    memset(d->octets, 0, size);
    class_set(L, &data_class);
    return d;
}

/* --- tables of octets --- */

void data_copy_table(lua_State *L, int index, int argument, uint8_t *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        int is_integer;
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        lua_Integer octet = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || octet < 0 || octet > 255) {
            const char *text = lua_pushfstring(L, "element %I is no octet", (LUAI_UACINT)i + 1);
            luaL_argerror(L, argument, text);
        }
        out[i] = (uint8_t)octet;
        lua_pop(L, 1);
    }
}

void data_fill_table(lua_State *L, const uint8_t *octets, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        lua_pushinteger(L, octets[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* --- numbers of any width at any bit --- */

/* The first bit is the most significant one. */
static uint64_t read_bits(const uint8_t *octets, uint64_t offset, unsigned length)
{
    uint64_t value = 0;
    for (unsigned take; length > 0; offset += take, length -= take) {
        unsigned left = 8 - (unsigned)(offset % 8);
        take = left < length ? left : length;
        value = value << take | (octets[offset / 8] >> (left - take) & ((1u << take) - 1));
    }
    return value;
}

static void write_bits(uint8_t *octets, uint64_t offset, unsigned length, uint64_t value)
{
    for (unsigned take; length > 0; offset += take, length -= take) {
        unsigned left = 8 - (unsigned)(offset % 8);
        take = left < length ? left : length;
        unsigned mask = ((1u << take) - 1) << (left - take);
        unsigned bits = (unsigned)(value >> (length - take)) << (left - take) & mask;
        octets[offset / 8] = (uint8_t)((octets[offset / 8] & ~mask) | bits);
    }
}

/* Eight bits at a time, the first are the least significant; what is left at the end is the most significant. */
static uint64_t read_little(const uint8_t *octets, uint64_t offset, unsigned length)
{
    uint64_t value = 0;
    for (unsigned done = 0; done < length; done += 8)
        value |= read_bits(octets, offset + done, length - done < 8 ? length - done : 8) << done;
    return value;
}

static void write_little(uint8_t *octets, uint64_t offset, unsigned length, uint64_t value)
{
    for (unsigned done = 0; done < length; done += 8)
        write_bits(octets, offset + done, length - done < 8 ? length - done : 8, value >> done);
}

/* --- fields --- */

static bool field_fits(const struct field *field, size_t size)
{
    uint64_t room = field->is_text ? size : (uint64_t)size * 8;
    if (!field->is_text && field->length > WORD_BITS) return false;
    return field->length <= room && field->offset <= room - field->length;
}

/* Whether the key at `key` names a field of the object at 1, and it fits: in *out, because the layout may be another
 * one when Lua has run. */
static bool find_field(lua_State *L, const struct data *d, int key, bool *named, struct field *out)
{
    int top = lua_gettop(L);
    *named = false;
    if (lua_getiuservalue(L, 1, DATA_LAYOUT) == LUA_TUSERDATA) {
        const struct layout *layout = lua_touserdata(L, -1);
        lua_getiuservalue(L, -1, 1);
        lua_pushvalue(L, key);
        *named = lua_rawget(L, -2) == LUA_TNUMBER;
        if (*named) *out = layout->fields[lua_tointeger(L, -1)];
    }
    lua_settop(L, top);
    return *named && field_fits(out, d->size);
}

static void push_field(lua_State *L, const struct data *d, const struct field *field)
{
    unsigned length = (unsigned)field->length;
    if (field->is_text)
        lua_pushlstring(L, (const char *)d->octets + field->offset, (size_t)field->length);
    else if (field->little)
        lua_pushinteger(L, (lua_Integer)read_little(d->octets, field->offset, length));
    else
        lua_pushinteger(L, (lua_Integer)read_bits(d->octets, field->offset, length));
}

/* The value at 3. A text that is shorter than the field changes only its own octets, a longer one is cut. */
static void assign_field(lua_State *L, struct data *d, const struct field *field)
{
    if (field->is_text) {
        size_t size;
        const char *text = luaL_checklstring(L, 3, &size);
        memcpy(d->octets + field->offset, text, size < field->length ? size : (size_t)field->length);
        return;
    }
    uint64_t value = (uint64_t)luaL_checkinteger(L, 3);
    (field->little ? write_little : write_bits)(d->octets, field->offset, (unsigned)field->length, value);
}

/* --- layouts --- */

/* Pushes the element at `index` of the description on the top, or the one that is called `name`. */
static int push_property(lua_State *L, int index, const char *name)
{
    int type = lua_rawgeti(L, -1, index);
    if (type != LUA_TNIL) return type;
    lua_pop(L, 1);
    lua_pushstring(L, name);
    return lua_rawget(L, -2);
}

static uint64_t read_size_property(lua_State *L, int index, const char *name, lua_Integer least)
{
    int is_integer;
    push_property(L, index, name);
    lua_Integer value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || value < least) luaL_error(L, "invalid layout: wrong or missing %s", name);
    lua_pop(L, 1);
    return (uint64_t)value;
}

/* The first letter of a text property; '\0': there is none. */
static char read_letter_property(lua_State *L, int index, const char *name)
{
    int type = push_property(L, index, name);
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(L, "invalid layout: %s must be a text", name);
    char letter = type == LUA_TSTRING ? lua_tostring(L, -1)[0] : '\0';
    if (type == LUA_TSTRING && letter == '\0') luaL_error(L, "invalid layout: %s is empty", name);
    lua_pop(L, 1);
    return letter;
}

static bool host_is_little(void)
{
    const uint16_t one = 1;
    return *(const uint8_t *)&one == 1;
}

static bool letter_is_little(lua_State *L, char letter)
{
    switch (letter) {
    case 'h': return host_is_little();
    case 'l': return true;
    case 'b':
    case 'n':
    case '\0': return false;
    default: return luaL_error(L, "invalid layout: unknown endian");
    }
}

/* The description on the top: {offset, length[, type[, endian]]}, or with names. */
static struct field read_field(lua_State *L)
{
    struct field field = {.offset = read_size_property(L, 1, "offset", 0),
                          .length = read_size_property(L, 2, "length", 1)};
    char type = read_letter_property(L, 3, "type"), endian = read_letter_property(L, 4, "endian");
    if (endian == '\0' && type != '\0' && strchr("hbl", type)) {
        endian = type; /* "net" needs no such care: numbers are in that order by themselves */
        type = 'n';
    }
    if (type != '\0' && type != 'n' && type != 's') luaL_error(L, "invalid layout: unknown type");
    field.is_text = type == 's';
    field.little = letter_is_little(L, endian);
    return field;
}

static size_t count_keys(lua_State *L, int index)
{
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) count++;
    return count;
}

/* Pushes a layout that is made of the table at `index`. Raw access throughout; but what is allocated may run a
 * finalizer, and that may change the table. */
static void push_layout(lua_State *L, int index)
{
    luaL_checkstack(L, 8, NULL);
    size_t count = count_keys(L, index);
    struct layout *layout = lua_newuserdatauv(L, sizeof *layout + count * sizeof layout->fields[0], 1);
    layout->count = 0;
    class_set(L, &layout_class);
    lua_newtable(L);
    int names = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (!lua_istable(L, -1)) luaL_error(L, "invalid layout: a field is described by a table");
        struct field field = read_field(L);
        if (layout->count == count) luaL_error(L, "invalid layout: the table has changed while it was read");
        layout->fields[layout->count] = field;
        lua_pushvalue(L, -2);
        lua_pushinteger(L, (lua_Integer)layout->count++);
        lua_rawset(L, names);
    }
    lua_setiuservalue(L, -2, 1);
}

/* data.layout{field = {offset, length[, type[, endian]]}} -> layout                                  [-0, +1, e] */
static int data_layout(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    push_layout(L, 1);
    return 1;
}

/* d:layout(layout or table) -> d                                                                     [-0, +1, e] */
static int data_apply_layout(lua_State *L)
{
    check_data(L, 1);
    lua_settop(L, 2);
    if (!class_test(L, 2, &layout_class)) {
        if (!lua_istable(L, 2)) return luaL_typeerror(L, 2, "layout or table");
        push_layout(L, 2);
    }
    lua_setiuservalue(L, 1, DATA_LAYOUT);
    lua_settop(L, 1);
    return 1;
}

/* --- making --- */

static int data_new_number(lua_State *L)
{
    lua_Integer size = luaL_checkinteger(L, 1);
    luaL_argcheck(L, size >= 0 && (lua_Unsigned)size <= DATA_SIZE_MAX, 1, "size out of range");
    if (size == 0) return 0;
    push_data(L, (size_t)size);
    return 1;
}

static int data_new_text(lua_State *L)
{
    size_t size;
    const char *text = lua_tolstring(L, 1, &size);
    luaL_argcheck(L, size <= DATA_SIZE_MAX, 1, "size out of range");
    if (size == 0) return 0;
    memcpy(push_data(L, size)->octets, text, size);
    return 1;
}

static int data_new_table(lua_State *L)
{
    size_t size = (size_t)lua_rawlen(L, 1);
    luaL_argcheck(L, size <= DATA_SIZE_MAX, 1, "size out of range");
    if (size == 0) return 0;
    struct data *d = push_data(L, size);
    data_copy_table(L, 1, 1, d->octets, size);
    return 1;
}

/* data.new(n | {octets} | text) -> data | nothing, if it were empty                                  [-0, +1, e] */
static int data_new(lua_State *L)
{
    switch (lua_type(L, 1)) {
    case LUA_TNONE:
    case LUA_TNIL: return 0;
    case LUA_TNUMBER: return data_new_number(L);
    case LUA_TSTRING: return data_new_text(L);
    case LUA_TTABLE: return data_new_table(L);
    default: return luaL_typeerror(L, 1, "size, table of octets or text");
    }
}

/* Reads offset and length at 2 and 3. False: not within the object. */
static bool read_range(lua_State *L, const struct data *d, size_t *offset, size_t *length)
{
    lua_Integer from = luaL_optinteger(L, 2, 0);
    if (from < 0 || (lua_Unsigned)from > d->size) return false;
    lua_Integer rest = (lua_Integer)(d->size - (size_t)from), count = luaL_optinteger(L, 3, rest);
    if (count < 0 || count > rest) return false;
    *offset = (size_t)from;
    *length = (size_t)count;
    return true;
}

/* d:segment([offset[, length]]) -> data on the same memory | nothing, if it lies outside             [-0, +1, e] */
static int data_segment(lua_State *L)
{
    const struct data *d = check_data(L, 1);
    size_t offset, length;
    if (!read_range(L, d, &offset, &length)) return 0;
    struct data *segment = lua_newuserdatauv(L, sizeof *segment, 2);
    *segment = (struct data){d->octets + offset, length};
    if (lua_getiuservalue(L, 1, DATA_ROOT) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_pushvalue(L, 1);
    }
    lua_setiuservalue(L, -2, DATA_ROOT);
    class_set(L, &data_class);
    return 1;
}

/* d:string([offset[, length]]) -> a copy as text | nothing, if it lies outside; tostring(d)          [-0, +1, e] */
static int data_string(lua_State *L)
{
    const struct data *d = check_data(L, 1);
    size_t offset, length;
    if (!read_range(L, d, &offset, &length)) return 0;
    lua_pushlstring(L, (const char *)d->octets + offset, length);
    return 1;
}

static int data_tostring(lua_State *L)
{
    lua_settop(L, 1);
    return data_string(L);
}

static int data_length(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_data(L, 1)->size);
    return 1;
}

/* --- d.field, d[i] --- */

/* The octet that the number at 2 names; NULL: outside. */
static uint8_t *find_octet(lua_State *L, const struct data *d)
{
    int is_integer;
    lua_Integer index = lua_tointegerx(L, 2, &is_integer);
    if (lua_type(L, 2) != LUA_TNUMBER || !is_integer) return NULL;
    return index >= 0 && (lua_Unsigned)index < d->size ? d->octets + index : NULL;
}

/* Upvalues: methods that no field hides, methods that a field may hide. */
static int data_index(lua_State *L)
{
    const struct data *d = check_data(L, 1);
    bool named;
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    struct field field;
    bool found = find_field(L, d, 2, &named, &field);
    const uint8_t *octet = named ? NULL : find_octet(L, d);
    if (found)
        push_field(L, d, &field);
    else if (octet)
        lua_pushinteger(L, *octet);
    else if (named)
        lua_pushnil(L);
    else {
        lua_pushvalue(L, 2);
        lua_rawget(L, lua_upvalueindex(2));
    }
    return 1;
}

/* What names nothing is ignored. */
static int data_newindex(lua_State *L)
{
    struct data *d = check_data(L, 1);
    bool named;
    struct field field;
    bool found = find_field(L, d, 2, &named, &field);
    uint8_t *octet = named ? NULL : find_octet(L, d);
    if (found) assign_field(L, d, &field);
    if (!octet) return 0;
    lua_Integer value = luaL_checkinteger(L, 3);
    luaL_argcheck(L, value >= 0 && value <= 255, 3, "an octet is 0...255");
    *octet = (uint8_t)value;
    return 0;
}

int luaopen_data(lua_State *L)
{
    static const luaL_Reg functions[] = {{"new", data_new}, {"layout", data_layout}, {NULL, NULL}};
    static const luaL_Reg fixed[] = {{"layout", data_apply_layout}, {"segment", data_segment}, {NULL, NULL}};
    static const luaL_Reg hidden[] = {{"string", data_string}, {NULL, NULL}};
    static const luaL_Reg events[] = {
        {"__len", data_length}, {"__tostring", data_tostring}, {"__newindex", data_newindex}, {NULL, NULL}};
    class_open_hidden(L, &layout_class, &events[3]);
    class_open_hidden(L, &data_class, events);
    luaL_newlib(L, fixed);
    luaL_newlib(L, hidden);
    lua_pushcclosure(L, data_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}

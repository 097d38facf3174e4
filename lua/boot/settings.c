/* The table of settings that a -c file returns (contract section 1.4), and the one that neosocksd.config() answers: the
 * fields of both are the keys of core/process/option_table. Whatever is wrong is told with its file, line, key and
 * range, before anything is changed. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/process/kept_text.h"
#include "core/process/list_options.h"
#include "core/process/option_table.h"
#include "core/process/option_values.h"
#include "core/process/options.h"
#include "lua/boot/boot.h"
#include "lua/boot/nearest.h"
#include "lua/engine/entry.h"
#include "lua/modules/ruleset.h"

/* --- kinds --- */

/* What a field of that kind must be, in words; NULL: any type may do, see judge_ruleset(). */
static const char *kind_text(enum option_kind kind)
{
    switch (kind) {
    case OPTION_FLAG:
    case OPTION_CLASS: return "a boolean";
    case OPTION_NUMBER:
    case OPTION_FAMILY: return "an integer";
    case OPTION_SECONDS: return "a number";
    case OPTION_TEXT:
    case OPTION_WORD:
    case OPTION_LISTEN:
    case OPTION_HTTP_LISTEN:
    case OPTION_FORWARD:
    case OPTION_LIMITS:
    case OPTION_UPSTREAMS:
    case OPTION_LISTS:
    case OPTION_SCRIPTS: return "a string";
    case OPTION_ACTION:
    case OPTION_RULESET: break;
    }
    return NULL;
}

static bool has_kind(lua_State *L, enum option_kind kind)
{
    switch (kind) {
    case OPTION_FLAG:
    case OPTION_CLASS: return lua_isboolean(L, -1);
    case OPTION_NUMBER:
    case OPTION_FAMILY: return lua_isinteger(L, -1);
    case OPTION_SECONDS: return lua_type(L, -1) == LUA_TNUMBER;
    default: return lua_type(L, -1) == LUA_TSTRING;
    }
}

/* --- where a field stands --- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Whether an assignment to `key` stands at `at`, which holds the word: key =, ["key"] =, t.key =; not in a comment. */
static bool is_assigned(const char *start, const char *at, size_t size)
{
    const char *line = at;
    if ((at > start && is_word(at[-1])) || is_word(at[size])) return false;
    at += size + strspn(at + size, "\"'] \t");
    if (*at != '=' || at[1] == '=') return false;
    while (line > start && line[-1] != '\n') line--;
    for (; line + 1 < at; line++)
        if (line[0] == '-' && line[1] == '-') return false;
    return true;
}

/* The line of the last assignment to that key, as far as the text tells; 0: none is seen. */
static unsigned find_line(const struct engine_text *text, const char *key)
{
    unsigned line = 1, found = 0;
    size_t size = strlen(key);
    for (const char *at = text->data; at && *at; at++) {
        if (*at == '\n') line++;
        if (*at == *key && strncmp(at, key, size) == 0 && is_assigned(text->data, at, size)) found = line;
    }
    return found;
}

/* Pushes `file:line: `, without the line if it is not seen. */
static const char *push_place(lua_State *L, const struct boot_file *file, const char *key)
{
    unsigned line = find_line(file->text, key);
    const char *path = strcmp(file->path, "-") == 0 ? "standard input" : file->path;
    return line > 0 ? lua_pushfstring(L, "%s:%d: ", path, (int)line) : lua_pushfstring(L, "%s: ", path);
}

/* --- judging --- */

static void judge_family(lua_State *L, const struct boot_file *file, const char *key)
{
    lua_Integer value = lua_tointeger(L, -1);
    if (value != AF_UNSPEC && value != AF_INET && value != AF_INET6)
        luaL_error(L, "%sboot: field `%s' is out of range, give 0, 2 or 10", push_place(L, file, key), key);
}

static void judge_range(lua_State *L, const struct boot_file *file, const struct option_row *row)
{
    lua_Number value = lua_tonumber(L, -1);
    if (row->negative_is_none && value < 0) return;
    if (!(value >= row->least && value <= row->most))
        luaL_error(L, "%sboot: field `%s' is out of range, give %I to %I", push_place(L, file, row->key), row->key,
                   (LUAI_UACINT)row->least, (LUAI_UACINT)row->most);
}

/* A path, or a table, which is the ruleset itself. */
static void judge_ruleset(lua_State *L, const struct boot_file *file)
{
    int type = lua_type(L, -1);
    bool path = type == LUA_TSTRING && lua_rawlen(L, -1) > 0 && strlen(lua_tostring(L, -1)) == lua_rawlen(L, -1);
    if (type == LUA_TSTRING && !path)
        luaL_error(L, "%sboot: field `ruleset' is no path of a script", push_place(L, file, "ruleset"));
    if (type != LUA_TTABLE && !path)
        luaL_error(L, "config: `ruleset' must be a table; it is a %s", lua_typename(L, type));
}

/* The field's value stands on top. Raises what is wrong with it. */
static void judge_field(lua_State *L, const struct boot_file *file, const struct option_row *row)
{
    if (row->kind == OPTION_RULESET) {
        judge_ruleset(L, file);
        return;
    }
    if (!has_kind(L, row->kind))
        luaL_error(L, "%sboot: field `%s' must be %s", push_place(L, file, row->key), row->key, kind_text(row->kind));
    if (lua_type(L, -1) == LUA_TSTRING && strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
        luaL_error(L, "%sboot: field `%s' holds a zero octet", push_place(L, file, row->key), row->key);
    if (row->kind == OPTION_FAMILY) judge_family(L, file, row->key);
    if (row->kind == OPTION_NUMBER || row->kind == OPTION_SECONDS) judge_range(L, file, row);
}

/* What options of the command line are called there. */
static const char *const other_names[][2] = {{"api", "restapi"},
                                             {"http", "http_listen"},
                                             {"user", "user_name"},
                                             {"tproxy", "transparent"},
                                             {"fastopen", "tcp_fastopen"},
                                             {"block_outbound", "block_loopback"},
                                             {"max_startups", "startup_limit_full"}};

/* The field that a key was meant to be, or NULL: it is like none. */
static const char *find_nearest(const char *key)
{
    unsigned best = nearest_slips(strlen(key)) + 1;
    const char *found = NULL;
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++)
        if (nearest_distance(key, other_names[i][0]) == 0) return other_names[i][1];
    for (size_t i = 0; i < option_row_count; i++) {
        const char *name = option_rows[i].key;
        unsigned distance = name ? nearest_distance(key, name) : best;
        if (distance < best) best = distance, found = name;
    }
    return found;
}

/* The contract ignores keys that it does not know; but one that looks like a slip would leave a limit unset. */
static void judge_keys(lua_State *L, const struct boot_file *file, int table)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (!key || option_find_key(key)) continue;
        const char *nearest = find_nearest(key), *place = push_place(L, file, key);
        if (nearest) luaL_error(L, "%sboot: there is no field `%s'; is `%s' meant?", place, key, nearest);
        LOGW("config: %sthere is no field `%s', it is ignored", place, key);
        lua_pop(L, 1);
    }
}

/* A table of the fields alone, on top: whatever metamethods answer is asked for once. */
static void copy_fields(lua_State *L, int table)
{
    lua_createtable(L, 0, (int)option_row_count);
    for (size_t i = 0; i < option_row_count; i++) {
        if (!option_rows[i].key) continue;
        lua_getfield(L, table, option_rows[i].key);
        lua_setfield(L, -2, option_rows[i].key);
    }
}

/* The table stands at `table`. */
static void judge_table(lua_State *L, const struct boot_file *file, int table)
{
    for (size_t i = 0; i < option_row_count; i++) {
        if (!option_rows[i].key) continue;
        if (lua_getfield(L, table, option_rows[i].key) != LUA_TNIL) judge_field(L, file, &option_rows[i]);
        lua_pop(L, 1);
    }
}

/* --- applying: to a copy, so that a failure leaves nothing behind --- */

/* The value stands on top. Texts are apply_texts()'s and apply_ruleset()'s. */
static void apply_value(lua_State *L, const struct option_row *row, struct config *c)
{
    switch (row->kind) {
    case OPTION_FLAG:
    case OPTION_CLASS: option_put_flag(row, c, lua_toboolean(L, -1)); return;
    case OPTION_NUMBER:
    case OPTION_FAMILY:
        option_put_number(row, c, lua_tointeger(L, -1) < 0 ? 0 : (uint32_t)lua_tointeger(L, -1));
        return;
    case OPTION_SECONDS: option_put_seconds(row, c, lua_tonumber(L, -1)); return;
    default: return;
    }
}

static void apply_values(lua_State *L, struct config *c, int table)
{
    for (size_t i = 0; i < option_row_count; i++) {
        if (!option_rows[i].key) continue;
        if (lua_getfield(L, table, option_rows[i].key) != LUA_TNIL) apply_value(L, &option_rows[i], c);
        lua_pop(L, 1);
    }
}

/* Words as the command line would have them; their texts are kept. */
struct words {
    int count;
    char *all[2 * CONFIG_LIMITS_MAX + 4 * CONFIG_LISTENERS_MAX + 32];
};

static void add_word(lua_State *L, struct words *words, const char *text, size_t size)
{
    const char *kept = kept_text(text, size);
    if (!kept) luaL_error(L, "not enough memory");
    if ((size_t)words->count == sizeof words->all / sizeof *words->all)
        luaL_error(L, "there are too many listeners, scripts or limits");
    words->all[words->count++] = (char *)(uintptr_t)kept;
}

/* --name and its operand. */
static void add_option(lua_State *L, struct words *words, const char *name, const char *text, size_t size)
{
    char option[64];
    int option_size = snprintf(option, sizeof option, "--%s", name);
    assert(option_size > 0 && (size_t)option_size < sizeof option);
    add_word(L, words, option, (size_t)option_size);
    add_word(L, words, text, size);
}

/* The text of a field, or NULL: it is not there. It stays on the stack. */
static const char *field_text(lua_State *L, int table, const char *name)
{
    return lua_getfield(L, table, name) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

/* The next member of a list, which *list is moved behind; NULL: there is none. An empty text is a list of none, and an
 * empty member one of its own. */
static const char *next_member(const char **list, char separator, size_t *size)
{
    const char *member = *list;
    if (!member) return NULL;
    *size = strcspn(member, (char[]){separator, '\0'});
    *list = member[*size] ? member + *size + 1 : NULL;
    return member;
}

static const char *list_of(const char *text)
{
    return text && *text ? text : NULL;
}

/* The next listener of a list: its address, with the options of its own that stand behind it. */
static const char *next_listener(const char **list, size_t *size)
{
    const char *listener = next_member(list, ',', size);
    size_t more = 0;
    while (*list && value_is_assignment(*list)) {
        const char *option = next_member(list, ',', &more);
        *size = (size_t)(option - listener) + more;
    }
    return listener;
}

/* Listeners of the table replace those of the command line. Several are separated by commas, and what they forward to
 * is in the same order, empty where one does not. */
static void add_listeners(lua_State *L, const struct boot_file *file, int table, struct words *words)
{
    const char *listen = list_of(field_text(L, table, "listen")), *forward = list_of(field_text(L, table, "forward"));
    const char *address, *target;
    size_t size;
    while ((address = next_listener(&listen, &size))) {
        add_option(L, words, "listen", address, size);
        target = next_member(&forward, ',', &size);
        if (target && size > 0) add_option(L, words, "forward", target, size);
    }
    if (forward)
        luaL_error(L, "config: failed to load fields: %sfield `forward' has more targets than `listen' has addresses",
                   push_place(L, file, "forward"));
}

/* A list that takes the place of the command line's: an option for each member. */
static void add_list(lua_State *L, int table, const char *field, const char *option, char separator,
                     struct words *words)
{
    const char *list = list_of(field_text(L, table, field)), *member;
    size_t size;
    while ((member = next_member(&list, separator, &size))) add_option(L, words, option, member, size);
}

static void add_http_listeners(lua_State *L, int table, struct words *words)
{
    const char *list = list_of(field_text(L, table, "http_listen")), *listener;
    size_t size;
    while ((listener = next_listener(&list, &size))) add_option(L, words, "http", listener, size);
}

static void read_words(lua_State *L, const struct boot_file *file, const char *field, struct words *words)
{
    char why[256] = "";
    if (config_read(file->config, words->count, words->all, why, sizeof why) == 0) return;
    const char *rest = strstr(why, ": ");
    if (strncmp(why, "--forward: ", 11) == 0) field = "forward"; /* it is read together with `listen' */
    luaL_error(L, "config: failed to load fields: %sfield `%s': %s", push_place(L, file, field), field,
               rest ? rest + 2 : why);
}

static void drop_listeners(struct config *c)
{
    for (unsigned i = 0; i < c->listener_count; i++) list_options_clear(c, LIST_KINDS, i);
    c->listener_count = 0;
}

static void apply_texts(lua_State *L, const struct boot_file *file, int table)
{
    struct words words = {.count = 0};
    int top = lua_gettop(L);
    add_word(L, &words, "sluice", 6);
    if (field_text(L, table, "listen") || field_text(L, table, "forward") || field_text(L, table, "http_listen"))
        drop_listeners(file->config);
    add_listeners(L, file, table, &words);
    read_words(L, file, "listen", &words);
    words.count = 1;
    add_http_listeners(L, table, &words);
    read_words(L, file, "http_listen", &words);
    words.count = 1;
    if (field_text(L, table, "scripts")) file->config->script_count = 0;
    add_list(L, table, "scripts", "script", ',', &words);
    read_words(L, file, "scripts", &words);
    words.count = 1;
    if (field_text(L, table, "limit")) file->config->limit_count = 0;
    add_list(L, table, "limit", "limit", ';', &words);
    read_words(L, file, "limit", &words);
    words.count = 1;
    if (field_text(L, table, "upstream")) file->config->upstream_count = 0;
    add_list(L, table, "upstream", "upstream", ';', &words);
    read_words(L, file, "upstream", &words);
    for (size_t i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        bool lists = row->kind == OPTION_LISTS;
        if (!row->key || (row->kind != OPTION_TEXT && row->kind != OPTION_WORD && !lists)) continue;
        const char *text = field_text(L, table, row->key);
        lua_settop(L, top);
        if (text && row->repeated) option_put_text(row, file->config, NULL);
        if (text && lists) list_options_clear(file->config, (enum list_kind)row->list, LIST_SCOPE_PROCESS);
        if (!text || !*text) continue; /* it is the table's: the stack need not hold it */
        words.count = 1;
        add_option(L, &words, row->long_name, text, strlen(text));
        read_words(L, file, row->key, &words);
    }
    lua_settop(L, top);
}

/* A table is the ruleset itself, a text the path of its script, as of -r. */
static void apply_ruleset(lua_State *L, const struct boot_file *file, int table)
{
    const char *path = field_text(L, table, "ruleset");
    if (lua_type(L, -1) == LUA_TTABLE) file->config->ruleset = NULL;
    if (path) file->config->ruleset = kept_text(path, strlen(path));
    if (path && !file->config->ruleset) luaL_error(L, "not enough memory");
    lua_pop(L, 1);
}

static void apply_table(lua_State *L, const struct boot_file *file, int table)
{
    apply_values(L, file->config, table);
    apply_texts(L, file, table);
    apply_ruleset(L, file, table);
}

/* The table on top of the stack: what it says is judged and written into file->config; a copy of its own fields takes
 * its place. */
void settings_take(lua_State *L, const struct boot_file *file)
{
    judge_keys(L, file, lua_gettop(L));
    copy_fields(L, lua_gettop(L));
    judge_table(L, file, lua_gettop(L));
    apply_table(L, file, lua_gettop(L));
}

/* --- neosocksd.config() --- */

static void push_listeners(lua_State *L, const struct config *c, bool http)
{
    luaL_Buffer b;
    bool any = false;
    luaL_buffinit(L, &b);
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if ((c->listeners[i].kind == LISTENER_HTTP) != http) continue;
        if (any) luaL_addchar(&b, ',');
        luaL_addstring(&b, c->listeners[i].text);
        if (c->listeners[i].options) luaL_addchar(&b, ',');
        if (c->listeners[i].options) luaL_addstring(&b, c->listeners[i].options);
        any = true;
    }
    luaL_pushresult(&b);
    if (any) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

/* What has commas of its own. */
static void push_texts(lua_State *L, const char *const *texts, uint32_t count)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) luaL_addstring(&b, "; ");
        luaL_addstring(&b, texts[i]);
    }
    luaL_pushresult(&b);
    if (count > 0) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

static void push_lists(lua_State *L, const struct config *c, const struct option_row *row)
{
    luaL_Buffer b;
    bool any = false;
    luaL_buffinit(L, &b);
    for (uint32_t i = 0; i < c->list_count; i++) {
        if (c->lists_given[i].kind != row->list || c->lists_given[i].scope != LIST_SCOPE_PROCESS) continue;
        if (any) luaL_addchar(&b, ',');
        luaL_addstring(&b, c->lists_given[i].text);
        any = true;
    }
    luaL_pushresult(&b);
    if (any) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

static void push_forward(lua_State *L, const struct config *c)
{
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if (c->listeners[i].kind != LISTENER_FORWARD) continue;
        lua_pushstring(L, c->listeners[i].forward_text);
        return;
    }
    lua_pushnil(L);
}

static void push_scripts(lua_State *L, const struct config *c)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (uint32_t i = 0; i < c->script_count; i++) {
        if (i > 0) luaL_addchar(&b, ',');
        luaL_addstring(&b, c->scripts[i]);
    }
    luaL_pushresult(&b);
    if (c->script_count > 0) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

static void push_field(lua_State *L, const struct config *c, const struct option_row *row)
{
    switch (row->kind) {
    case OPTION_ACTION: abort(); /* has no key */
    case OPTION_FLAG:
    case OPTION_CLASS: lua_pushboolean(L, option_flag(row, c)); return;
    case OPTION_NUMBER:
    case OPTION_FAMILY: lua_pushinteger(L, option_number(row, c)); return;
    case OPTION_SECONDS: lua_pushnumber(L, option_number(row, c) / 1000.0); return;
    case OPTION_TEXT:
    case OPTION_WORD:
    case OPTION_RULESET: lua_pushstring(L, option_text(row, c)); return;
    case OPTION_LISTEN: push_listeners(L, c, false); return;
    case OPTION_HTTP_LISTEN: push_listeners(L, c, true); return;
    case OPTION_FORWARD: push_forward(L, c); return;
    case OPTION_SCRIPTS: push_scripts(L, c); return;
    case OPTION_LISTS: push_lists(L, c, row); return;
    case OPTION_LIMITS: push_texts(L, c->limits, c->limit_count); return;
    case OPTION_UPSTREAMS: push_texts(L, c->upstreams, c->upstream_count); return;
    }
}

/* The setting as it is in force: a ruleset may demand credentials, too. */
static void push_setting(lua_State *L, const struct config *c, const struct option_row *row)
{
    if (strcmp(row->key, "auth_required") == 0)
        lua_pushboolean(L, c->auth_required || ruleset_of(engine_of(L))->auth);
    else
        push_field(L, c, row);
}

#define OLD_API_KEY "api" /* the name that restapi had */

/* neosocksd.config() -> table                                                                        [-0, +1, m] */
int settings_push_all(lua_State *L)
{
    const struct config *c = coordinator_config(engine_of(L)->c);
    lua_createtable(L, 0, (int)option_row_count);
    for (size_t i = 0; i < option_row_count; i++) {
        if (!option_rows[i].key) continue;
        push_setting(L, c, &option_rows[i]);
        lua_setfield(L, -2, option_rows[i].key);
    }
    lua_pushstring(L, c->api_text);
    lua_setfield(L, -2, OLD_API_KEY);
    return 1;
}

/* neosocksd.setting(name) -> one value of config(), without the table                                [-0, +1, e] */
int settings_push_one(lua_State *L)
{
    const struct config *c = coordinator_config(engine_of(L)->c);
    const char *name = luaL_checkstring(L, 1);
    const struct option_row *row = option_find_key(strcmp(name, OLD_API_KEY) == 0 ? "restapi" : name);
    if (row)
        push_setting(L, c, row);
    else
        lua_pushnil(L);
    return 1;
}

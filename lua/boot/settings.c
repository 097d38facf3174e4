/* The table of settings that a -c file returns (contract section 1.4), and the one that neosocksd.config() answers: one
 * list of fields for both. Whatever is wrong is told with its file, line, key and range, before anything is changed. */
#include <assert.h>
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/process/options.h"
#include "core/session/policy.h"
#include "lua/boot/boot.h"
#include "lua/boot/nearest.h"
#include "lua/engine/entry.h"
#include "lua/modules/ruleset.h"

/* --- fields of the table --- */

enum field_kind { FIELD_STRING, FIELD_BOOLEAN, FIELD_INTEGER, FIELD_NUMBER };

struct field {
    const char *name;
    enum field_kind kind;
    double least, most; /* numbers */
    const char *option; /* texts that the command line's own reader takes; NULL: see boot_apply() */
};

/* In the order of the dump. */
static const struct field fields[] = {
    {"listen", FIELD_STRING, 0, 0, NULL},
    {"forward", FIELD_STRING, 0, 0, NULL},
    {"proxy", FIELD_STRING, 0, 0, "--proxy"},
    {"restapi", FIELD_STRING, 0, 0, "--api"},
    {"http_listen", FIELD_STRING, 0, 0, NULL},
    {"user_name", FIELD_STRING, 0, 0, "--user"},
    {"nameserver", FIELD_STRING, 0, 0, "--nameserver"},
    {"netdev", FIELD_STRING, 0, 0, "--netdev"},
    {"loglevel", FIELD_INTEGER, 0, 8, NULL},
    {"resolve_pf", FIELD_INTEGER, 0, 10, NULL},
    {"timeout", FIELD_NUMBER, 5, 86400, NULL},
    {"memlimit", FIELD_INTEGER, 0, 2097151, NULL},
    {"auth_required", FIELD_BOOLEAN, 0, 0, NULL},
    {"pipe", FIELD_BOOLEAN, 0, 0, NULL},
    {"reuseport", FIELD_BOOLEAN, 0, 0, NULL},
    {"tcp_fastopen", FIELD_BOOLEAN, 0, 0, NULL},
    {"tcp_fastopen_connect", FIELD_BOOLEAN, 0, 0, NULL},
    {"tcp_nodelay", FIELD_BOOLEAN, 0, 0, NULL},
    {"tcp_keepalive", FIELD_BOOLEAN, 0, 0, NULL},
    {"transparent", FIELD_BOOLEAN, 0, 0, NULL},
    {"traceback", FIELD_BOOLEAN, 0, 0, NULL},
    {"socks5_bind", FIELD_BOOLEAN, 0, 0, NULL},
    {"socks5_udp", FIELD_BOOLEAN, 0, 0, NULL},
    {"daemonize", FIELD_BOOLEAN, 0, 0, NULL},
    {"block_loopback", FIELD_BOOLEAN, 0, 0, NULL},
    {"block_multicast", FIELD_BOOLEAN, 0, 0, NULL},
    {"block_local", FIELD_BOOLEAN, 0, 0, NULL},
    {"block_global", FIELD_BOOLEAN, 0, 0, NULL},
    {"tcp_sndbuf", FIELD_INTEGER, 0, INT_MAX, NULL},
    {"tcp_rcvbuf", FIELD_INTEGER, 0, INT_MAX, NULL},
    {"max_sessions", FIELD_INTEGER, 0, 100000000, NULL},
    {"startup_limit_start", FIELD_INTEGER, 0, INT_MAX, NULL},
    {"startup_limit_rate", FIELD_INTEGER, 0, 100, NULL},
    {"startup_limit_full", FIELD_INTEGER, 0, INT_MAX, NULL},
    {"workers", FIELD_INTEGER, 0, CONFIG_WORKERS_MAX, NULL},
    {"relay", FIELD_STRING, 0, 0, "--relay"},
    {"idle_timeout", FIELD_NUMBER, 0, 2592000, NULL},
    {"half_close_timeout", FIELD_NUMBER, 0, 2592000, NULL},
    {"drain", FIELD_NUMBER, 0, 86400, NULL},
    {"lua_budget", FIELD_INTEGER, 10, 60000, NULL},
    {"allow_self", FIELD_BOOLEAN, 0, 0, NULL},
    {"api_token_file", FIELD_STRING, 0, 0, "--api-token-file"},
};
#define FIELD_COUNT (sizeof fields / sizeof *fields)

/* Where a number or a switch stands in the settings. */
static bool *boolean_of(struct config *c, const char *name)
{
    const struct {
        const char *name;
        bool *place;
    } places[] = {{"auth_required", &c->auth_required},
                  {"pipe", &c->pipe},
                  {"reuseport", &c->reuseport},
                  {"tcp_fastopen", &c->fastopen},
                  {"tcp_fastopen_connect", &c->fastopen_connect},
                  {"tcp_nodelay", &c->tcp_nodelay},
                  {"tcp_keepalive", &c->tcp_keepalive},
                  {"transparent", &c->tproxy},
                  {"traceback", &c->traceback},
                  {"socks5_bind", &c->socks5_bind},
                  {"socks5_udp", &c->socks5_udp},
                  {"daemonize", &c->daemonize},
                  {"allow_self", &c->allow_self}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(places[i].name, name) == 0) return places[i].place;
    return NULL;
}

static uint32_t *count_of(struct config *c, const char *name)
{
    const struct {
        const char *name;
        uint32_t *place;
    } places[] = {{"memlimit", &c->memlimit_mib},
                  {"max_sessions", &c->max_sessions},
                  {"startup_limit_start", &c->startup_start},
                  {"startup_limit_rate", &c->startup_rate},
                  {"startup_limit_full", &c->startup_full},
                  {"workers", &c->workers},
                  {"lua_budget", &c->lua_budget_ms},
                  {"timeout", &c->timeout_ms},
                  {"idle_timeout", &c->idle_timeout_ms},
                  {"half_close_timeout", &c->half_close_timeout_ms},
                  {"drain", &c->drain_ms}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(places[i].name, name) == 0) return places[i].place;
    return NULL;
}

static uint32_t block_of(const char *name)
{
    static const struct {
        const char *name;
        uint32_t class;
    } classes[] = {{"block_loopback", POLICY_LOOPBACK},
                   {"block_multicast", POLICY_MULTICAST},
                   {"block_local", POLICY_LOCAL},
                   {"block_global", POLICY_GLOBAL}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].name, name) == 0) return classes[i].class;
    return 0;
}

/* --- texts that settings point to --- */

struct text_list {
    struct text_list *next;
    char text[];
};

/* Old settings may still be in use somewhere, so that none is freed before the end; but each is kept once, however
 * often a file is read again. */
static const char *keep_text(struct engine *e, const char *text, size_t size)
{
    for (const struct text_list *old = e->boot->texts; old; old = old->next)
        if (strlen(old->text) == size && memcmp(old->text, text, size) == 0) return old->text;
    struct text_list *kept = malloc(sizeof *kept + size + 1);
    if (!kept) return NULL;
    memcpy(kept->text, text, size);
    kept->text[size] = '\0';
    kept->next = e->boot->texts;
    e->boot->texts = kept;
    return kept->text;
}

void settings_close(struct boot *boot)
{
    while (boot->texts) {
        struct text_list *next = boot->texts->next;
        free(boot->texts);
        boot->texts = next;
    }
}

/* --- kinds --- */

static const char *kind_text(enum field_kind kind)
{
    static const char *const texts[] = {"a string", "a boolean", "an integer", "a number"};
    return texts[kind];
}

static bool has_kind(lua_State *L, enum field_kind kind)
{
    switch (kind) {
    case FIELD_STRING: return lua_type(L, -1) == LUA_TSTRING;
    case FIELD_BOOLEAN: return lua_isboolean(L, -1);
    case FIELD_INTEGER: return lua_isinteger(L, -1);
    case FIELD_NUMBER: return lua_type(L, -1) == LUA_TNUMBER;
    }
    return false;
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

static void judge_range(lua_State *L, const struct boot_file *file, const struct field *field)
{
    lua_Number value = lua_tonumber(L, -1);
    bool negative_limit = strcmp(field->name, "memlimit") == 0 && value < 0; /* means none */
    if (strcmp(field->name, "resolve_pf") == 0) {
        if (value == AF_UNSPEC || value == AF_INET || value == AF_INET6) return;
        luaL_error(L, "%sboot: field `%s' is out of range, give 0, 2 or 10", push_place(L, file, field->name),
                   field->name);
    }
    if (!negative_limit && !(value >= field->least && value <= field->most))
        luaL_error(L, "%sboot: field `%s' is out of range, give %I to %I", push_place(L, file, field->name),
                   field->name, (LUAI_UACINT)field->least, (LUAI_UACINT)field->most);
}

/* The field's value stands on top. Raises what is wrong with it. */
static void judge_field(lua_State *L, const struct boot_file *file, const struct field *field)
{
    if (!has_kind(L, field->kind))
        luaL_error(L, "%sboot: field `%s' must be %s", push_place(L, file, field->name), field->name,
                   kind_text(field->kind));
    if (field->kind == FIELD_STRING && strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
        luaL_error(L, "%sboot: field `%s' holds a zero octet", push_place(L, file, field->name), field->name);
    if (field->kind >= FIELD_INTEGER) judge_range(L, file, field);
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
    for (size_t i = 0; i <= FIELD_COUNT; i++) {
        const char *name = i < FIELD_COUNT ? fields[i].name : "ruleset";
        unsigned distance = nearest_distance(key, name);
        if (distance < best) best = distance, found = name;
    }
    return found;
}

static bool is_field(const char *key)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (strcmp(fields[i].name, key) == 0) return true;
    return strcmp(key, "ruleset") == 0;
}

/* The contract ignores keys that it does not know; but one that looks like a slip would leave a limit unset. */
static void judge_keys(lua_State *L, const struct boot_file *file, int table)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (!key || is_field(key)) continue;
        const char *nearest = find_nearest(key), *place = push_place(L, file, key);
        if (nearest) luaL_error(L, "%sboot: there is no field `%s'; is `%s' meant?", place, key, nearest);
        LOGW("config: %sthere is no field `%s', it is ignored", place, key);
        lua_pop(L, 1);
    }
}

/* A table of the fields alone, on top: whatever metamethods answer is asked for once. */
static void copy_fields(lua_State *L, int table)
{
    lua_createtable(L, 0, (int)FIELD_COUNT + 1);
    for (size_t i = 0; i <= FIELD_COUNT; i++) {
        const char *name = i < FIELD_COUNT ? fields[i].name : "ruleset";
        lua_getfield(L, table, name);
        lua_setfield(L, -2, name);
    }
}

/* The table stands at `table`. */
static void judge_table(lua_State *L, const struct boot_file *file, int table)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (lua_getfield(L, table, fields[i].name) != LUA_TNIL) judge_field(L, file, &fields[i]);
        lua_pop(L, 1);
    }
    int type = lua_getfield(L, table, "ruleset");
    bool path = type == LUA_TSTRING && lua_rawlen(L, -1) > 0 && strlen(lua_tostring(L, -1)) == lua_rawlen(L, -1);
    if (type == LUA_TSTRING && !path)
        luaL_error(L, "%sboot: field `ruleset' is no path of a script", push_place(L, file, "ruleset"));
    if (type != LUA_TNIL && type != LUA_TTABLE && !path)
        luaL_error(L, "config: `ruleset' must be a table; it is a %s", lua_typename(L, type));
    lua_pop(L, 1);
}

/* --- applying: to a copy, so that a failure leaves nothing behind --- */

static void apply_number(struct config *c, const struct field *field, lua_Number value)
{
    uint32_t *count = count_of(c, field->name);
    if (count && field->kind == FIELD_NUMBER)
        *count = (uint32_t)(value * 1000 + 0.999);
    else if (count)
        *count = value < 0 ? 0 : (uint32_t)value;
    else if (strcmp(field->name, "loglevel") == 0)
        c->log_level = (int)value;
    else if (strcmp(field->name, "resolve_pf") == 0)
        c->family = (int)value;
    else if (strcmp(field->name, "tcp_sndbuf") == 0)
        c->tcp_sndbuf = (int)value;
    else if (strcmp(field->name, "tcp_rcvbuf") == 0)
        c->tcp_rcvbuf = (int)value;
}

static void apply_boolean(struct config *c, const struct field *field, bool value)
{
    bool *place = boolean_of(c, field->name);
    uint32_t class = block_of(field->name);
    if (place) *place = value;
    if (class) c->blocked = value ? c->blocked | class : c->blocked & ~class;
    if (class && value != (class == POLICY_MULTICAST)) c->blocked_given = true; /* a dump gives the defaults, too */
}

/* Words as the command line would have them; their texts are kept. */
struct words {
    int count;
    char *all[4 * CONFIG_LISTENERS_MAX + 32];
};

static void add_word(lua_State *L, struct words *words, const char *text, size_t size)
{
    const char *kept = keep_text(engine_of(L), text, size);
    if (!kept) luaL_error(L, "not enough memory");
    if ((size_t)words->count == sizeof words->all / sizeof *words->all) luaL_error(L, "there are too many listeners");
    words->all[words->count++] = (char *)(uintptr_t)kept;
}

static void add_option(lua_State *L, struct words *words, const char *option, const char *text, size_t size)
{
    add_word(L, words, option, strlen(option));
    add_word(L, words, text, size);
}

/* The text of a field, or NULL: it is not there. It stays on the stack. */
static const char *field_text(lua_State *L, int table, const char *name)
{
    return lua_getfield(L, table, name) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

/* Listeners of the table replace those of the command line. Several are separated by commas, and what they forward to
 * is in the same order, empty where one does not. */
static void add_listeners(lua_State *L, int table, struct words *words)
{
    const char *listen = field_text(L, table, "listen"), *forward = field_text(L, table, "forward");
    for (const char *at = listen; at && *at; at += strspn(at, ",")) {
        size_t size = strcspn(at, ",");
        add_option(L, words, "--listen", at, size);
        at += size;
        size_t target = forward ? strcspn(forward, ",") : 0;
        if (target > 0) add_option(L, words, "--forward", forward, target);
        if (forward) forward += target + (forward[target] == ',');
    }
}

static void add_http_listeners(lua_State *L, int table, struct words *words)
{
    const char *http = field_text(L, table, "http_listen");
    for (const char *at = http; at && *at; at += strspn(at, ",")) {
        size_t size = strcspn(at, ",");
        add_word(L, words, "--http", 6);
        add_word(L, words, at, size);
        at += size;
    }
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

static void apply_texts(lua_State *L, const struct boot_file *file, int table)
{
    struct words words = {.count = 0};
    int top = lua_gettop(L);
    add_word(L, &words, "sluice", 6);
    if (field_text(L, table, "listen") || field_text(L, table, "forward") || field_text(L, table, "http_listen"))
        file->config->listener_count = 0;
    add_listeners(L, table, &words);
    read_words(L, file, "listen", &words);
    words.count = 1;
    add_http_listeners(L, table, &words);
    read_words(L, file, "http_listen", &words);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *text = fields[i].option ? field_text(L, table, fields[i].name) : NULL;
        lua_settop(L, top);
        if (!text || !*text) continue; /* it is the table's: the stack need not hold it */
        words.count = 1;
        add_option(L, &words, fields[i].option, text, strlen(text));
        read_words(L, file, fields[i].name, &words);
    }
    lua_settop(L, top);
}

/* A table is the ruleset itself, a text the path of its script, as of -r. */
static void apply_ruleset(lua_State *L, const struct boot_file *file, int table)
{
    const char *path = field_text(L, table, "ruleset");
    if (lua_type(L, -1) == LUA_TTABLE) file->config->ruleset = NULL;
    if (path) file->config->ruleset = keep_text(engine_of(L), path, strlen(path));
    if (path && !file->config->ruleset) luaL_error(L, "not enough memory");
    lua_pop(L, 1);
}

static void apply_table(lua_State *L, const struct boot_file *file, int table)
{
    struct config *c = file->config;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (lua_getfield(L, table, fields[i].name) != LUA_TNIL) {
            if (fields[i].kind == FIELD_BOOLEAN)
                apply_boolean(c, &fields[i], lua_toboolean(L, -1));
            else if (fields[i].kind != FIELD_STRING)
                apply_number(c, &fields[i], lua_tonumber(L, -1));
        }
        lua_pop(L, 1);
    }
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

static void push_text(lua_State *L, const struct config *c, const char *name)
{
    static const char *const relays[] = {[RELAY_AUTO] = "auto", [RELAY_SPLICE] = "splice", [RELAY_COPY] = "copy"};
    if (strcmp(name, "listen") == 0)
        push_listeners(L, c, false);
    else if (strcmp(name, "http_listen") == 0)
        push_listeners(L, c, true);
    else if (strcmp(name, "forward") == 0)
        push_forward(L, c);
    else if (strcmp(name, "proxy") == 0)
        lua_pushstring(L, c->proxy_text);
    else if (strcmp(name, "restapi") == 0)
        lua_pushstring(L, c->api_text);
    else if (strcmp(name, "user_name") == 0)
        lua_pushstring(L, c->user);
    else if (strcmp(name, "nameserver") == 0)
        lua_pushstring(L, c->nameservers);
    else if (strcmp(name, "netdev") == 0)
        lua_pushstring(L, c->netdev);
    else if (strcmp(name, "relay") == 0)
        lua_pushstring(L, relays[c->relay]);
    else
        lua_pushstring(L, c->api_token_file);
}

static void push_number(lua_State *L, const struct config *c, const struct field *field)
{
    assert(c);
    const uint32_t *count = count_of((struct config *)(uintptr_t)c, field->name);
    if (count && field->kind == FIELD_NUMBER)
        lua_pushnumber(L, *count / 1000.0);
    else if (count)
        lua_pushinteger(L, *count);
    else if (strcmp(field->name, "loglevel") == 0)
        lua_pushinteger(L, c->log_level);
    else if (strcmp(field->name, "resolve_pf") == 0)
        lua_pushinteger(L, c->family);
    else
        lua_pushinteger(L, strcmp(field->name, "tcp_sndbuf") == 0 ? c->tcp_sndbuf : c->tcp_rcvbuf);
}

static void push_field(lua_State *L, const struct config *c, const struct field *field)
{
    assert(c);
    if (field->kind == FIELD_STRING) {
        push_text(L, c, field->name);
    } else if (field->kind == FIELD_BOOLEAN) {
        const bool *place = boolean_of((struct config *)(uintptr_t)c, field->name);
        bool on = place ? *place : (c->blocked & block_of(field->name)) != 0;
        if (place == &c->auth_required) on |= ruleset_of(engine_of(L))->auth; /* what is in force */
        lua_pushboolean(L, on);
    } else {
        push_number(L, c, field);
    }
}

/* What is not a field of the table: the script's own path, and the name that restapi had. */
static bool push_other(lua_State *L, const struct config *c, const char *name)
{
    if (strcmp(name, "ruleset") == 0)
        lua_pushstring(L, c->ruleset);
    else if (strcmp(name, "api") == 0)
        lua_pushstring(L, c->api_text);
    else
        return false;
    return true;
}

/* neosocksd.config() -> table                                                                        [-0, +1, m] */
int settings_push_all(lua_State *L)
{
    const struct config *c = coordinator_config(engine_of(L)->c);
    lua_createtable(L, 0, (int)FIELD_COUNT + 2);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        push_field(L, c, &fields[i]);
        lua_setfield(L, -2, fields[i].name);
    }
    push_other(L, c, "ruleset");
    lua_setfield(L, -2, "ruleset");
    push_other(L, c, "api");
    lua_setfield(L, -2, "api");
    return 1;
}

/* neosocksd.setting(name) -> one value of config(), without the table                                [-0, +1, e] */
int settings_push_one(lua_State *L)
{
    const struct config *c = coordinator_config(engine_of(L)->c);
    const char *name = luaL_checkstring(L, 1);
    if (push_other(L, c, name)) return 1;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(fields[i].name, name) != 0) continue;
        push_field(L, c, &fields[i]);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

/* Scripts that run by themselves (--script, POST /scripts), each in a coroutine of a Lua state of its own.
 *
 * A state of its own costs about 100 KiB, and nothing else is robust: globals, loaded modules and metatables of one
 * script are not those of another, an update of the ruleset cannot touch them, what a script holds is what its
 * allocator has given out, and its end leaves nothing behind.
 *
 *   LOADED --script_start--> RUNNING --script_settle--> (the next turn of the loop) --script_end--> FINISHED, FAILED
 *
 * The state is closed in a turn of its own, because the one who notices the end still stands on the state's stack. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/list.h"
#include "core/io/log.h"
#include "lua/boot/boot.h"
#include "lua/boot/script.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/instance.h"
#include "lua/engine/load.h"
#include "lua/engine/task.h"
#include "lua/engine/text.h"
#include "lua/socket/socket.h"

#define TRACEBACK_LINES_MAX 32

struct script {
    struct script *next;
    struct engine *root;
    struct engine *engine; /* NULL: it has ended */
    char name[ENGINE_SCRIPT_NAME_MAX + 1];
    enum engine_script_state state;
    bool body_ended, settled;
    uint64_t started_ms;
    struct waiter waiter;
    char *error; /* NULL: none */
};

/* Key of the registry: the compiled chunk. */
static const char chunk_key;

/* --- names --- */

static const char name_octets[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

static bool is_name(const char *name)
{
    size_t size = strspn(name, name_octets);
    return size > 0 && size <= ENGINE_SCRIPT_NAME_MAX && name[size] == '\0' && name[0] != '.';
}

/* A file's name without folder and ".lua"; other octets than those of names become "_". */
static void name_of_path(const char *path, char *name)
{
    const char *base = strrchr(path, '/');
    base = strcmp(path, "-") == 0 ? "stdin" : base ? base + 1 : path;
    size_t size = strlen(base);
    if (size > 4 && strcmp(base + size - 4, ".lua") == 0) size -= 4;
    if (size > ENGINE_SCRIPT_NAME_MAX) size = ENGINE_SCRIPT_NAME_MAX;
    memcpy(name, base, size);
    name[size] = '\0';
    if (name[0] == '.') name[0] = '_';
    for (size_t used; (used = strspn(name, name_octets)) < size;) name[used] = '_';
}

static struct script **script_find(struct engine *root, const char *name)
{
    struct script **place = &root->boot->scripts;
    while (*place && strcmp((*place)->name, name) != 0) place = &(*place)->next;
    return place;
}

static unsigned script_count(const struct engine *root)
{
    unsigned count = 0;
    for (const struct script *s = root->boot->scripts; s; s = s->next) count++;
    return count;
}

/* --- errors --- */

/* The line of the script that has called what raised, where the error object has none: those of sockets. */
static void push_where(lua_State *L)
{
    lua_Debug where;
    for (int level = 1; lua_getstack(L, level, &where); level++) {
        if (!lua_getinfo(L, "Sl", &where) || where.currentline <= 0) continue;
        lua_pushfstring(L, "%s:%d: ", where.short_src, where.currentline);
        return;
    }
    lua_pushliteral(L, "");
}

/* A message handler: every error becomes a text that says where it was raised. */
static int script_message(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TSTRING) {
        push_where(L);
        lua_pushstring(L, engine_error_text(L, 1));
        lua_concat(L, 2);
        lua_replace(L, 1);
    }
    return engine_message(L);
}

/* One line each: a message with a traceback is longer than a line of the log may be. */
static void log_error(const char *name, const char *text)
{
    const char *prefix = "failed: ";
    for (int i = 0; *text && i < TRACEBACK_LINES_MAX; i++, prefix = "  ") {
        text += *text == '\t';
        size_t size = strcspn(text, "\n");
        LOGE("script %s: %s%.*s", name, prefix, (int)size, text);
        text += size + (text[size] != '\0');
    }
}

static void script_keep_error(struct script *s, const char *text)
{
    free(s->error);
    s->error = strdup(text);
}

static void script_fail(struct script *s, const char *why)
{
    s->body_ended = true;
    s->state = ENGINE_SCRIPT_FAILED;
    script_keep_error(s, why);
    engine_note_error(s->root, why);
    log_error(s->name, why);
}

/* --- its end --- */

/* Everything of it: what its coroutines have to close, what they wait for, its sockets, its memory. */
static void script_release(struct script *s)
{
    struct engine *e = s->engine;
    if (!e) return;
    if (!s->error && e->last_error[0]) script_keep_error(s, e->last_error);
    s->settled = true;
    coroutine_close_all(e);
    coordinator_detach(e->c, &s->waiter);
    s->engine = NULL;
    engine_free(e);
}

static void script_free(struct script *s)
{
    script_release(s);
    free(s->error);
    free(s);
}

static void script_on_time(struct waiter *waiter)
{
    struct script *s = link_owner(waiter, struct script, waiter);
    if (s->state == ENGINE_SCRIPT_RUNNING) {
        s->state = ENGINE_SCRIPT_FINISHED;
        LOGN("script %s: finished", s->name);
    }
    script_release(s);
}

static void script_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "a script has no operations of its own");
}

void script_settle(struct script *s)
{
    struct engine *e = s->engine;
    if (s->settled || s->state == ENGINE_SCRIPT_LOADED) return;
    if (s->state != ENGINE_SCRIPT_FAILED && e->coroutines.parked_count > 0) return;
    s->settled = true;
    if (!s->body_ended) script_fail(s, "it yielded by itself, so that nothing will resume it");
    coordinator_set_deadline(e->c, &s->waiter, coordinator_now_ms(e->c));
}

/* --- its beginning --- */

static void script_deliver(struct task *t, lua_State *L, bool ok, int first)
{
    struct script *s = t->owner;
    if (ok)
        s->body_ended = true;
    else
        script_fail(s, engine_error_text(L, first));
}

/* Cancelled with the others at the end, or broken. */
static void script_lost(struct task *t, const char *why)
{
    struct script *s = t->owner;
    if (!s->settled) script_fail(s, why);
}

static const struct task_class script_class = {
    .deliver = script_deliver, .lost = script_lost, .message = script_message};

/* The chunk's argument is the script's name. */
static int script_begin(lua_State *L)
{
    struct script *s = lua_touserdata(L, 1);
    lua_pushnil(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &chunk_key);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &chunk_key);
    lua_pushstring(L, s->name);
    task_start(L, &script_class, s, 1, NULL);
    return 0;
}

static void script_start(struct script *s)
{
    struct engine_text error = {0};
    s->state = ENGINE_SCRIPT_RUNNING;
    s->started_ms = coordinator_now_ms(s->root->c);
    LOGN("script %s: started", s->name);
    engine_enter(s->engine); /* it settles when all is said */
    if (engine_protect(s->engine, script_begin, s, &error) < 0)
        script_fail(s, error.data ? error.data : "not enough memory");
    engine_leave(s->engine);
    engine_text_free(&error);
}

struct load {
    const char *source, *chunkname;
    size_t size;
};

static int compile(lua_State *L)
{
    const struct load *load = lua_touserdata(L, 1);
    if (load_chunk(L, load->source, load->size, load->chunkname) != LUA_OK) return lua_error(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &chunk_key);
    return 0;
}

/* NULL: no memory, or too much waits already. */
static struct script *script_new(struct engine *root, const char *name)
{
    char who[HEARTBEAT_TEXT_SIZE];
    struct script *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->root = root;
    snprintf(s->name, sizeof s->name, "%s", name);
    s->waiter = (struct waiter){.on_completion = script_on_completion, .on_time = script_on_time};
    if (coordinator_attach(root->c, &s->waiter)) {
        snprintf(who, sizeof who, "script %s", s->name);
        s->engine = engine_new(root->c, root, root->rooms, who);
        if (s->engine) {
            s->engine->script = s;
            return s;
        }
        coordinator_detach(root->c, &s->waiter);
    }
    free(s);
    return NULL;
}

/* Appends the script; one of that name that has ended goes. */
static void script_install(struct script *s)
{
    struct script **place = script_find(s->root, s->name);
    struct script *old = *place;
    if (old) {
        *place = old->next;
        script_free(old);
    }
    while (*place) place = &(*place)->next;
    *place = s;
}

static enum engine_script_result complain(struct engine_text *error, enum engine_script_result result, const char *text)
{
    engine_text_set(error, text, strlen(text));
    return result;
}

/* Installed, but not started. */
static enum engine_script_result script_load(struct engine *root, const char *name, struct load *load,
                                             struct engine_text *error, struct script **out)
{
    const struct script *old;
    if (!is_name(name))
        return complain(error, ENGINE_SCRIPT_NO_NAME,
                        "name: give 1 to 64 letters, digits, \".\", \"_\" and \"-\", not beginning with \".\"");
    old = *script_find(root, name);
    if (old && old->engine && !old->settled)
        return complain(error, ENGINE_SCRIPT_TAKEN, "a script of that name is running: choose another, or delete it");
    if (!old && script_count(root) >= ENGINE_SCRIPTS_MAX)
        return complain(error, ENGINE_SCRIPT_FULL, "there are 64 scripts already: delete one");
    struct script *s = script_new(root, name);
    if (!s) return complain(error, ENGINE_SCRIPT_NO_ROOM, "not enough memory for another script");
    s->engine->traceback = false; /* of what does not compile it says nothing */
    int compiled = engine_protect(s->engine, compile, load, error);
    s->engine->traceback = root->traceback;
    if (compiled < 0) {
        script_free(s);
        return ENGINE_SCRIPT_WRONG;
    }
    script_install(s);
    *out = s;
    return ENGINE_SCRIPT_OK;
}

/* --- what engine.h promises --- */

/* 0, or -1 after one log line. */
static int load_file(struct engine *root, const char *path)
{
    char reason[512], chunkname[512], name[ENGINE_SCRIPT_NAME_MAX + 1];
    struct engine_text text;
    struct engine_text error = {0};
    struct script *s;
    const char *wrong = load_read(path, &text, reason, sizeof reason);
    if (wrong) {
        LOGF("--script %s: %s", path, wrong);
        return -1;
    }
    name_of_path(path, name);
    snprintf(chunkname, sizeof chunkname, "@%s", strcmp(path, "-") == 0 ? "stdin" : path);
    struct load load = {text.data, chunkname, text.size};
    enum engine_script_result result = script_load(root, name, &load, &error, &s);
    if (result == ENGINE_SCRIPT_TAKEN)
        LOGF("--script %s: there is a script named %s already, rename the file", path, name);
    else if (result != ENGINE_SCRIPT_OK)
        LOGF("--script %s: %s", path, error.data ? error.data : "not enough memory");
    engine_text_free(&error);
    engine_text_free(&text);
    return result == ENGINE_SCRIPT_OK ? 0 : -1;
}

int engine_load_scripts(struct engine *e, const struct config *config)
{
    for (uint32_t i = 0; i < config->script_count; i++)
        if (load_file(e, config->scripts[i]) < 0) return -1;
    return 0;
}

void engine_start_scripts(struct engine *e)
{
    for (struct script *s = e ? e->boot->scripts : NULL; s; s = s->next)
        if (s->state == ENGINE_SCRIPT_LOADED) script_start(s);
}

enum engine_script_result engine_add_script(struct engine *e, const char *name, const char *source, size_t size,
                                            struct engine_text *error)
{
    char chunkname[ENGINE_SCRIPT_NAME_MAX + 2];
    struct script *s;
    snprintf(chunkname, sizeof chunkname, "=%s", name);
    struct load load = {source, chunkname, size};
    enum engine_script_result result = script_load(e, name, &load, error, &s);
    if (result != ENGINE_SCRIPT_OK) return result;
    script_start(s);
    if (s->state != ENGINE_SCRIPT_FAILED) return ENGINE_SCRIPT_OK;
    return complain(error, ENGINE_SCRIPT_RAISED, s->error ? s->error : "not enough memory");
}

bool engine_remove_script(struct engine *e, const char *name)
{
    struct script **place = script_find(e, name), *s = *place;
    if (!s) return false;
    *place = s->next;
    LOGN("script %s: %s", s->name, s->engine ? "ended" : "forgotten");
    script_free(s);
    return true;
}

bool engine_get_script(struct engine *e, unsigned i, struct engine_script *out)
{
    const struct script *s = e->boot->scripts;
    while (s && i-- > 0) s = s->next;
    if (!s) return false;
    const struct engine *own = s->engine;
    *out = (struct engine_script){.name = s->name,
                                  .state = s->state,
                                  .age_ms = coordinator_now_ms(e->c) - s->started_ms,
                                  .memory = own ? own->limits.bytes : 0,
                                  .sockets = own ? socket_count(own) : 0,
                                  .coroutines = own ? own->coroutines.parked_count : 0,
                                  .error = s->error};
    if (!out->error && own && own->last_error[0]) out->error = own->last_error;
    return true;
}

void script_obey_all(struct engine *root, const struct config *config)
{
    for (struct script *s = root->boot->scripts; s; s = s->next)
        if (s->engine) engine_obey(s->engine, config);
}

void script_tend_all(struct engine *root)
{
    for (struct script *s = root->boot->scripts; s; s = s->next)
        if (s->engine) task_tend_all(s->engine);
}

void script_close_all(struct engine *root)
{
    while (root->boot->scripts) {
        struct script *s = root->boot->scripts;
        root->boot->scripts = s->next;
        script_free(s);
    }
}

/* Scripts that are named on the command line: -r, and -c, whose table becomes settings (settings.c). SIGHUP reads them
 * again (reload.c). */
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/boot/boot.h"
#include "lua/engine/entry.h"
#include "lua/engine/instance.h"
#include "lua/engine/load.h"
#include "lua/engine/text.h"
#include "lua/modules/auth.h"
#include "lua/modules/ruleset.h"

void engine_set_judge(struct engine *e, bool (*judge)(void *context, const struct config *fresh), void *context)
{
    e->boot->judge = judge;
    e->boot->judge_context = context;
}

/* --- -c --- */

int boot_run(lua_State *L)
{
    struct boot_file *file = lua_touserdata(L, 1);
    if (load_chunk(L, file->text->data, file->text->size, "=config") != LUA_OK) return lua_error(L);
    lua_pushliteral(L, "config");
    lua_call(L, 1, 1);
    if (!lua_istable(L, -1)) return luaL_error(L, "config: expected table, got %s", luaL_typename(L, -1));
    settings_take(L, file);
    int table = lua_gettop(L);
    if (file->config->ruleset) return 0; /* the file of one is read next */
    if (lua_getfield(L, table, "ruleset") != LUA_TTABLE) lua_getglobal(L, "ruleset");
    auth_judge(L, -1, file->config,
               coordinator_config(engine_of(L)->c)->auth_required || ruleset_of(engine_of(L))->auth);
    if (lua_getfield(L, table, "ruleset") == LUA_TTABLE) lua_setglobal(L, "ruleset");
    return 0;
}

int boot_run_ruleset(lua_State *L)
{
    const struct boot_file *file = lua_touserdata(L, 1);
    struct ruleset_source source = {.code = file->text->data, .size = file->text->size};
    ruleset_run(L, &source, file->config);
    return 0;
}

int boot_has_ruleset(lua_State *L)
{
    bool *there = lua_touserdata(L, 1);
    lua_getglobal(L, "ruleset");
    *there = lua_istable(L, -1);
    return 0;
}

/* Reads and runs a file. 0, and its hash is the engine's; or -1 and the reason. */
int boot_run_file(struct engine *e, const char *path, lua_CFunction function, struct config *config,
                  struct engine_text *error)
{
    char reason[512];
    struct engine_text text;
    const char *wrong = load_read(path, &text, reason, sizeof reason);
    if (wrong) {
        engine_text_set(error, wrong, strlen(wrong));
        return -1;
    }
    struct boot_file file = {path, &text, config};
    int result = engine_protect(e, function, &file, error);
    if (result == 0) digest_sha256(text.data ? text.data : "", text.size, e->ruleset->source_hash);
    engine_text_free(&text);
    return result;
}

const char *boot_error_text(const struct engine_text *error)
{
    return error->data ? error->data : "not enough memory";
}

static int boot_config(struct engine *e, struct config *config)
{
    struct engine_text error = {0};
    struct config fresh = *config;
    bool there = false;
    int result = boot_run_file(e, config->boot, boot_run, &fresh, &error);
    if (result < 0) LOG_LINES(LOG_LEVEL_ERROR, "config load: %s", boot_error_text(&error));
    if (result < 0) LOGF("unable to load config: %s", config->boot);
    engine_text_free(&error);
    if (result < 0) return -1;
    if (fresh.daemonize && !config->daemonize) LOGW("config: daemonize has no effect here, give -d");
    if (!config->dump_only) fresh.daemonize = config->daemonize;
    *config = fresh;
    log_open((enum log_target)config->log_target, config->log_level);
    engine_protect(e, boot_has_ruleset, &there, NULL);
    config->boot_rules = there;
    if (there) ruleset_revise(e->ruleset, true);
    return 0;
}

static int boot_ruleset(struct engine *e, struct config *config)
{
    const char *path = config->ruleset;
    struct engine_text error = {0};
    int result = boot_run_file(e, path, boot_run_ruleset, config, &error);
    if (result < 0) LOG_LINES(LOG_LEVEL_ERROR, "ruleset load: %s", boot_error_text(&error));
    if (result < 0) LOGF("unable to load ruleset: %s", path);
    if (result == 0) ruleset_revise(e->ruleset, true);
    engine_text_free(&error);
    return result;
}

int engine_boot(struct engine *e, struct config *config)
{
    int result = 0;
    if (config->boot) result = boot_config(e, config);
    if (result == 0) result = engine_obey(e, config);
    if (result == 0 && config->ruleset) result = boot_ruleset(e, config);
    return result;
}

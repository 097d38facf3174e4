/* SIGHUP: the scripts of -c or -r are read again. Everything is judged first, what fails changes nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/control/config_change.h"
#include "core/control/list_load.h"
#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/session/config.h"
#include "lua/boot/boot.h"
#include "lua/boot/script.h"
#include "lua/engine/entry.h"
#include "lua/engine/instance.h"
#include "lua/engine/text.h"
#include "lua/modules/ruleset.h"

/* --- SIGHUP --- */

/* What has happened to the state while a script ran cannot be undone; but the settings, and the ruleset's table, are as
 * before unless all of it is good. */
static int keep_ruleset(lua_State *L)
{
    lua_getglobal(L, "ruleset");
    lua_setfield(L, LUA_REGISTRYINDEX, "sluice.ruleset");
    return 0;
}

static int restore_ruleset(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "sluice.ruleset");
    lua_setglobal(L, "ruleset");
    return 0;
}

static int forget_ruleset(lua_State *L)
{
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "sluice.ruleset");
    return 0;
}

static void log_reload_error(const char *what, const char *error, const char *outcome)
{
    LOG_LINES(LOG_LEVEL_WARNING, "reload: %s error: %s%s%s", what, error, strchr(error, '\n') ? "\n" : "; ", outcome);
}

/* Whether a running process may take these settings over, which then have what the check makes of them; else `why` says
 * what stands in the way. */
static bool may_take(struct engine *e, struct config *fresh, char *why, size_t size)
{
    const struct config *now = coordinator_config(e->c);
    struct config judged = *fresh; /* the sizes that the check derives are not for a process that runs */
    bool there = false;
    engine_protect(e, boot_has_ruleset, &there, NULL);
    snprintf(why, size, "see above");
    judged.boot_rules = there;
    memcpy(judged.listeners, now->listeners, sizeof judged.listeners);
    judged.listener_count = now->listener_count;
    for (uint32_t i = 0; i < now->listener_count && i < fresh->listener_count; i++)
        judged.listeners[i].egress = fresh->listeners[i].egress;
    if (config_check(&judged) < 0) return false;
    fresh->egress = judged.egress;
    if (!config_can_change(now, fresh, judged.sessions, why, size)) return false;
    return !e->boot->judge || e->boot->judge(e->boot->judge_context, fresh);
}

/* The workers obey, then we. Takes over `fresh`. */
static bool take(struct engine *e, struct config *fresh, char *why, size_t size)
{
    bool there = false;
    engine_protect(e, boot_has_ruleset, &there, NULL);
    fresh->boot_rules = there;
    int error = coordinator_configure(e->c, fresh);
    if (error < 0) {
        snprintf(why, size, "%s", error == -EAGAIN ? "the workers are busy, try again" : "not enough memory");
        return false;
    }
    engine_obey(e, fresh);
    script_obey_all(e, fresh);
    log_open((enum log_target)fresh->log_target, fresh->log_level);
    if (coordinator_set_way(e->c, &fresh->egress, RESOLVER_AS_BEFORE) < 0)
        LOGE("reload: the way to name servers stays as it was");
    if (coordinator_set_nameservers(e->c, fresh->nameservers) < 0) LOGE("reload: the name servers stay as they were");
    ruleset_revise(e->ruleset, there);
    return true;
}

static bool is_readable_again(const char *path)
{
    return path && strcmp(path, "-") != 0;
}

/* The -c script, and the -r script that it names. */
static bool run_both(struct engine *e, const char *path, struct config *fresh, struct engine_text *error)
{
    if (boot_run_file(e, path, boot_run, fresh, error) < 0) return false;
    return !is_readable_again(fresh->ruleset) || boot_run_file(e, fresh->ruleset, boot_run_ruleset, fresh, error) == 0;
}

/* True: the settings are in force, and `fresh` is the coordinator's. False: the log says why not. */
static bool run_and_take(struct engine *e, const char *path, struct config *fresh)
{
    struct engine_text error = {0};
    char why[LIST_WHY_SIZE] = "";
    bool ran = run_both(e, path, fresh, &error);
    struct lists *lists = NULL;
    bool good = ran && may_take(e, fresh, why, sizeof why) && list_load(fresh, &lists, why, sizeof why) == 0;
    fresh->lists = lists;
    bool taken = good && take(e, fresh, why, sizeof why);
    if (!taken) lists_release(lists);
    if (taken)
        LOGN("reload: config successfully reloaded");
    else
        log_reload_error("config", ran ? why : boot_error_text(&error), "everything stays as it was");
    engine_text_free(&error);
    return taken;
}

static void reload_config(struct engine *e, const char *path)
{
    char old_hash[DIGEST_TEXT_SIZE];
    struct config *fresh = malloc(sizeof *fresh);
    if (!fresh) return;
    *fresh = *coordinator_config(e->c);
    memcpy(old_hash, e->ruleset->source_hash, sizeof old_hash);
    engine_protect(e, keep_ruleset, NULL, NULL);
    if (!run_and_take(e, path, fresh)) {
        engine_protect(e, restore_ruleset, NULL, NULL);
        memcpy(e->ruleset->source_hash, old_hash, sizeof old_hash);
        free(fresh);
    }
    engine_protect(e, forget_ruleset, NULL, NULL);
}

static void reload_ruleset(struct engine *e, const char *path)
{
    struct engine_text error = {0};
    struct config now = *coordinator_config(e->c);
    if (boot_run_file(e, path, boot_run_ruleset, &now, &error) == 0) {
        ruleset_revise(e->ruleset, true);
        LOGN("reload: ruleset successfully reloaded");
    } else {
        log_reload_error("ruleset", boot_error_text(&error), "the old one stays");
    }
    engine_text_free(&error);
}

void boot_reload(struct engine *e)
{
    char why[LIST_WHY_SIZE];
    const struct config *config = coordinator_config(e->c);
    const char *path = config->boot ? config->boot : config->ruleset;
    if (is_readable_again(config->boot)) {
        reload_config(e, path);
        return;
    }
    (void)coordinator_reload_lists(e->c, why, sizeof why);
    if (!config->boot && is_readable_again(config->ruleset))
        reload_ruleset(e, path);
    else if (path)
        LOGN("reload: the script came from standard input, which cannot be read again; all stays as it was");
    else
        LOGD("SIGHUP: there is no script to reload");
}

#include "api/scripts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/parts.h"

/* What scripts raise may hold any octets. */
static json_t *error_json(const char *text)
{
    if (!text) return json_null();
    json_t *string = json_string(text);
    char *clean = string ? NULL : strdup(text);
    if (!clean) return string;
    for (char *octet = clean; *octet; octet++)
        if ((unsigned char)*octet >= 0x80) *octet = '?';
    string = json_string(clean);
    free(clean);
    return string;
}

static json_t *script_json(const struct engine_script *s)
{
    static const char *const states[] = {[ENGINE_SCRIPT_LOADED] = "loaded",
                                         [ENGINE_SCRIPT_RUNNING] = "running",
                                         [ENGINE_SCRIPT_FINISHED] = "finished",
                                         [ENGINE_SCRIPT_FAILED] = "failed"};
    return json_pack("{s:s, s:s, s:f, s:i, s:i, s:I, s:o}", "name", s->name, "state", states[s->state], "age",
                     (double)s->age_ms / 1000.0, "sockets", (int)s->sockets, "coroutines", (int)s->coroutines, "memory",
                     (json_int_t)s->memory, "last_error", error_json(s->error));
}

void scripts_list(struct call *call)
{
    struct text text = {0};
    struct engine_script script;
    json_t *rows = json_array();
    for (unsigned i = 0; engine_get_script(call->parts->engine, i, &script); i++)
        json_array_append_new(rows, script_json(&script));
    json_t *all = json_pack("{s:o}", "scripts", rows);
    char *dump = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (dump) {
        text_add(&text, dump, strlen(dump));
        call_reply(call, 200, CALL_JSON, &text);
    } else {
        call_reply_text(call, 500, "not enough memory");
    }
    free(dump);
    json_decref(all);
}

static unsigned status_of(enum engine_script_result result)
{
    switch (result) {
    case ENGINE_SCRIPT_OK: return 201;
    case ENGINE_SCRIPT_NO_NAME:
    case ENGINE_SCRIPT_WRONG: return 400;
    case ENGINE_SCRIPT_TAKEN: return 409;
    case ENGINE_SCRIPT_RAISED: return 500;
    case ENGINE_SCRIPT_FULL:
    case ENGINE_SCRIPT_NO_ROOM: break;
    }
    return 503;
}

/* Who has started or ended which one. */
static void log_change(struct call *call, const char *verb, const char *name)
{
    char what[128];
    snprintf(what, sizeof what, "%s %s", verb, name);
    call_log_change(call, what);
}

void scripts_start(struct call *call)
{
    struct engine_text error = {0};
    const char *name = call_query(call, "name");
    if (!name) {
        call_reply_text(call, 400, "name: give the script one, /scripts?name=N");
        return;
    }
    log_change(call, "start", name);
    enum engine_script_result result =
        engine_add_script(call->parts->engine, name, call->body.data, call->body.size, &error);
    if (result == ENGINE_SCRIPT_OK)
        call_reply_octets(call, 201, CALL_TEXT, "", 0);
    else
        call_reply_text(call, status_of(result), error.data ? error.data : "not enough memory");
    engine_text_free(&error);
}

void scripts_end(struct call *call)
{
    log_change(call, "end", call->path_rest);
    if (engine_remove_script(call->parts->engine, call->path_rest))
        call_reply_octets(call, 204, CALL_TEXT, "", 0);
    else
        call_reply_text(call, 404, "there is no such script");
}

/* --- metrics --- */

static uint64_t is_running(const struct engine_script *s)
{
    return s->state == ENGINE_SCRIPT_RUNNING;
}

static uint64_t is_failed(const struct engine_script *s)
{
    return s->state == ENGINE_SCRIPT_FAILED;
}

static uint64_t memory_of(const struct engine_script *s)
{
    return s->memory;
}

static uint64_t sockets_of(const struct engine_script *s)
{
    return s->sockets;
}

/* Names of scripts need no quoting. */
static const struct {
    const char *name, *help;
    uint64_t (*value)(const struct engine_script *s);
} families[] = {
    {"sluice_script_running", "1 while the script runs.", is_running},
    {"sluice_script_failed", "1 when an error has ended it.", is_failed},
    {"sluice_script_memory_bytes", "What its Lua state holds.", memory_of},
    {"sluice_script_sockets", "Sockets that it has open.", sockets_of},
};

void scripts_write_metrics(struct text *out, struct engine *e)
{
    struct engine_script s;
    for (size_t i = 0; i < sizeof families / sizeof *families && engine_get_script(e, 0, &s); i++) {
        text_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", families[i].name, families[i].help, families[i].name);
        for (unsigned j = 0; engine_get_script(e, j, &s); j++)
            text_printf(out, "%s{script=\"%s\"} %llu\n", families[i].name, s.name,
                        (unsigned long long)families[i].value(&s));
    }
}

#include "api/endpoints.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exposition.h"
#include "api/fields.h"
#include "api/health.h"
#include "api/history.h"
#include "api/limits.h"
#include "api/limits_list.h"
#include "api/lists.h"
#include "api/metrics.h"
#include "api/parts.h"
#include "api/scripts.h"
#include "api/sessions.h"
#include "api/stats_text.h"
#include "api/top.h"
#include "api/upstreams.h"
#include "api/usage.h"
#include "api/users.h"
#include "core/io/log.h"
#include "core/process/option_values.h"
#include "lua/engine/embedded.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define RPC_TYPE     "application/x-neosocksd-rpc; version=1"

static void take_snapshot(struct call *call, struct snapshot *out)
{
    struct api_parts *parts = call->parts;
    snapshot_take(out, parts->coordinator, parts->engine, &parts->counters, parts->started);
}

static void add_engine_text(struct text *out, struct engine_text *from)
{
    if (from->data) text_add(out, from->data, from->size);
    engine_text_free(from);
}

/* An error of a script, or of what surrounds it. */
static void reply_error(struct call *call, struct engine_text *error)
{
    struct text text = {0};
    if (error->data)
        add_engine_text(&text, error);
    else
        text_printf(&text, "not enough memory");
    call_reply(call, 500, CALL_TEXT, &text);
}

/* --- health, statistics, metrics --- */

static void handle_healthy(struct call *call)
{
    struct engine_text complaint = {0};
    struct text text = {0};
    if (engine_healthy(call->parts->engine, &complaint)) {
        engine_text_free(&complaint);
        call_reply_octets(call, 200, CALL_TEXT, "", 0);
        return;
    }
    add_engine_text(&text, &complaint);
    call_reply(call, 503, CALL_TEXT, &text);
}

/* What POST adds, and what it remembers for the next one. The clock restarts at every POST, the counters' baseline with
 * it, so that rates stay right when only some of them show the server's part. */
static void write_stateful(struct call *call, struct text *text, const struct snapshot *now, bool server)
{
    struct api_parts *parts = call->parts;
    struct stats_previous *previous = &parts->previous;
    struct engine_text part = {0};
    double monotonic = snapshot_monotonic(), dt = monotonic - (previous->any ? previous->dt_time : parts->started);
    if (server) stats_write_rates(text, now, previous, dt);
    engine_stats(parts->engine, dt, call_query(call, "q"), &part);
    add_engine_text(text, &part);
    *previous = (struct stats_previous){.any = true, .snapshot = *now, .dt_time = monotonic};
}

static void handle_stats(struct call *call)
{
    static struct snapshot now; /* large, and the thread is one */
    struct stats_query query = {call_query_flag(call, "nobanner", false), call_query_flag(call, "server", true),
                                call_query_flag(call, "runtime", false)};
    const char *format = call_query(call, "format");
    struct text text = {0};
    take_snapshot(call, &now);
    if (format && strcmp(format, "json") == 0) {
        snapshot_count_descriptors(&now);
        stats_write_json(&text, &now, call->parts->coordinator, call->parts->history);
        call_reply(call, 200, CALL_JSON, &text);
        return;
    }
    if (format && strcmp(format, "text") != 0) {
        call_reply_text(call, 400, "format: give text or json");
        return;
    }
    if (!query.nobanner) stats_write_banner(&text);
    if (query.server) stats_write(&text, &now, &query);
    if (call->method == CALL_POST) write_stateful(call, &text, &now, query.server);
    call_reply(call, 200, CALL_TEXT, &text);
}

/* What of the ruleset's text is sound, behind a count of the lines that are not. These are spoken of once for each
 * ruleset. */
static void add_metrics(struct api_parts *parts, struct text *out, const struct engine_text *part, uint32_t revision)
{
    const char *data = part->data ? part->data : "";
    struct text trial = {0}; /* the count stands in front of what it counts */
    text_add(&trial, out->data, out->size);
    metrics_write_dropped(&trial, 0);
    size_t wrong = exposition_add(&trial, data, part->size);
    text_free(&trial);
    parts->lines_dropped += wrong;
    metrics_write_dropped(out, parts->lines_dropped);
    exposition_add(out, data, part->size);
    if (wrong == 0 || parts->lines_dropped_revision == revision) return;
    parts->lines_dropped_revision = revision;
    LOGW("ruleset.metrics: %zu lines are left out: not in the text format of Prometheus, or of a family that is there "
         "already",
         wrong);
}

static void handle_metrics(struct call *call)
{
    static struct snapshot now;
    struct engine_text part = {0};
    struct text text = {0};
    take_snapshot(call, &now);
    snapshot_count_descriptors(&now);
    metrics_write(&text, &now, call->parts->coordinator);
    upstreams_write_metrics(&text, call->parts->coordinator);
    scripts_write_metrics(&text, call->parts->engine);
    /* An error is logged by the engine; a scrape must not fail for it. */
    if (!engine_metrics(call->parts->engine, &part)) engine_text_free(&part);
    add_metrics(call->parts, &text, &part, now.revision);
    engine_text_free(&part);
    call_reply(call, 200, METRICS_TYPE, &text);
}

static void handle_history(struct call *call)
{
    static struct snapshot now;
    struct text text = {0};
    take_snapshot(call, &now);
    history_write_json(call->parts->history, &now, &text);
    call_reply(call, 200, CALL_JSON, &text);
}

/* --- the ruleset --- */

static void handle_invoke(struct call *call)
{
    struct engine_text error = {0};
    call_log_change(call, "invoke");
    if (engine_invoke(call->parts->engine, call->body.data, call->body.size, &error) < 0)
        reply_error(call, &error);
    else
        call_reply_octets(call, 200, CALL_TEXT, "", 0);
}

static void handle_update(struct call *call)
{
    struct engine_text error = {0};
    char took[STATS_TEXT_SIZE];
    struct text text = {0};
    const char *module, *chunkname;
    double begin = snapshot_monotonic();
    if (!call_query_given(call, "module", &module) || !call_query_given(call, "chunkname", &chunkname)) {
        call_reply_text(call, 400, "module, chunkname: give a name, or leave it out");
        return;
    }
    call_log_change(call, module ? module : "ruleset");
    if (module && strcmp(module, "ruleset") == 0) module = NULL;
    int result = engine_update(call->parts->engine, module, chunkname, call->body.data, call->body.size, &error);
    if (result < 0) {
        reply_error(call, &error);
        return;
    }
    text_printf(&text, "%-20s: %s\n", "Time Cost", stats_text_duration(took, snapshot_monotonic() - begin));
    call_reply(call, 200, CALL_TEXT, &text);
}

static void rpcall_finished(void *context, bool ok, const char *body, size_t size)
{
    struct call *call = context;
    call->pending = NULL;
    call_reply_octets(call, ok ? 200 : 500, ok ? RPC_TYPE : CALL_TEXT, body, size);
}

static void handle_rpcall(struct call *call)
{
    if (!fields_is_rpc(call_header(call, "Content-Type"))) {
        call_reply_text(call, 400, "the content type must be " RPC_TYPE);
        return;
    }
    call_log_change(call, "rpcall"); /* only the code knows whether it is a change */
    struct engine_job *pending =
        engine_rpcall(call->parts->engine, call->body.data, call->body.size, rpcall_finished, call);
    if (!call->answered) call->pending = pending;
}

static void handle_collect(struct call *call)
{
    struct engine *e = call->parts->engine;
    struct engine_memory before, after;
    char bytes[STATS_TEXT_SIZE], objects[STATS_TEXT_SIZE], took[STATS_TEXT_SIZE];
    struct text text = {0};
    double begin = snapshot_monotonic();
    call_log_change(call, "gc");
    engine_get_memory(e, &before);
    engine_collect(e);
    engine_get_memory(e, &after);
    text_printf(&text, "%-20s: %s (%s objects)\n", "Difference",
                stats_text_bytes(bytes, (double)after.bytes - (double)before.bytes),
                stats_text_count(objects, (double)after.objects - (double)before.objects));
    stats_write_memory(&text, &after);
    text_printf(&text, "%-20s: %s\n", "Time Cost", stats_text_duration(took, snapshot_monotonic() - begin));
    call_reply(call, 200, CALL_TEXT, &text);
}

/* --- where scripts spend their time --- */

/* NAN: no number that stands alone. */
static double read_seconds(const char *text)
{
    double seconds;
    return text && value_seconds(text, &seconds) ? seconds : NAN;
}

static void profile_finished(void *context, bool ok, const char *body, size_t size)
{
    struct call *call = context;
    call->pending = NULL;
    call_reply_octets(call, ok ? 200 : 500, CALL_TEXT, body, size);
}

static void handle_profile(struct call *call)
{
    struct engine *e = call->parts->engine;
    double seconds = read_seconds(call_query(call, "seconds"));
    if (!(seconds >= 1 && seconds <= ENGINE_PROFILE_SECONDS_MAX)) {
        call_reply_text(call, 400, "seconds: give 1 to 60");
        return;
    }
    if (engine_is_profiling(e)) {
        call_reply_text(call, 409, "a profile is being taken already: ask again when it is done");
        return;
    }
    call_log_change(call, "profile");
    call->patience_ms = (uint32_t)(seconds * 1000);
    struct engine_job *pending = engine_profile(e, seconds, profile_finished, call);
    if (!call->answered) call->pending = pending;
}

/* --- for people --- */

static void handle_dashboard(struct call *call)
{
    const struct embedded_file *page = embedded_find("dashboard.html");
    if (!page) {
        call_reply_text(call, 404, "this build has no dashboard");
        return;
    }
    call->page = true;
    call_reply_octets(call, 200, "text/html; charset=utf-8", page->data, page->size);
}

/* --- the table --- */

#define READ (CALL_GET | CALL_HEAD)

static const struct endpoint endpoints[] = {
    {.path = "/", .methods = READ, .scope = ACCESS_NONE, .outside = handle_dashboard},
    {.path = "/healthy",
     .methods = CALL_ANY,
     .scope = ACCESS_NONE,
     .limit_ms = HEALTH_LIMIT_MS,
     .outside = health_live,
     .handle = handle_healthy},
    {.path = "/ready", .methods = READ, .scope = ACCESS_NONE, .outside = health_ready},
    {.path = "/stats", .methods = READ, .scope = ACCESS_READ, .handle = handle_stats},
    {.path = "/stats",
     .methods = CALL_POST, /* runs ruleset.stats(), and begins the rates anew */
     .scope = ACCESS_ADMIN,
     .parameters = "format nobanner server runtime q",
     .handle = handle_stats},
    {.path = "/metrics", .methods = READ, .scope = ACCESS_READ, .handle = handle_metrics},
    {.path = "/history", .methods = READ, .scope = ACCESS_READ, .handle = handle_history},
    {.path = "/sessions", .methods = READ, .scope = ACCESS_READ, .handle = sessions_list},
    {.path = "/sessions",
     .methods = CALL_DELETE,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .parameters = "",
     .handle = sessions_end},
    {.path = "/top", .methods = READ, .scope = ACCESS_READ, .handle = top_list},
    {.path = "/sessions/judge",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .parameters = "",
     .handle = sessions_judge},
    {.path = "/limits", .methods = READ, .scope = ACCESS_READ, .handle = limits_list},
    {.path = "/limits",
     .methods = READ,
     .scope = ACCESS_READ,
     .takes_id = true,
     .takes_path = true,
     .handle = limits_show},
    {.path = "/limits",
     .methods = CALL_PUT,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .takes_path = true,
     .needs_length = true,
     .parameters = "",
     .handle = limits_put},
    {.path = "/limits",
     .methods = CALL_DELETE,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .takes_path = true,
     .parameters = "",
     .handle = limits_remove},
    {.path = "/lists", .methods = READ, .scope = ACCESS_READ, .handle = lists_show_all},
    {.path = "/lists", .methods = READ, .scope = ACCESS_READ, .takes_id = true, .handle = lists_ask},
    {.path = "/lists/reload", .methods = CALL_POST, .scope = ACCESS_ADMIN, .parameters = "", .handle = lists_reload},
    {.path = "/upstreams", .methods = READ, .scope = ACCESS_READ, .handle = upstreams_list},
    {.path = "/upstreams",
     .methods = CALL_PUT,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .takes_path = true,
     .needs_length = true,
     .parameters = "",
     .handle = upstreams_put},
    {.path = "/usage", .methods = READ, .scope = ACCESS_READ, .handle = usage_list},
    {.path = "/users", .methods = READ, .scope = ACCESS_READ, .handle = users_list_all},
    {.path = "/users",
     .methods = READ,
     .scope = ACCESS_READ,
     .takes_id = true,
     .takes_path = true,
     .handle = users_show},
    {.path = "/users",
     .methods = CALL_PUT,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .takes_path = true,
     .needs_length = true,
     .parameters = "file persist",
     .handle = users_set},
    {.path = "/users",
     .methods = CALL_DELETE,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .takes_path = true,
     .parameters = "file persist",
     .handle = users_drop},
    {.path = "/scripts", .methods = READ, .scope = ACCESS_READ, .handle = scripts_list},
    {.path = "/scripts",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .needs_length = true,
     .parameters = "name",
     .handle = scripts_start},
    {.path = "/scripts",
     .methods = CALL_DELETE,
     .scope = ACCESS_ADMIN,
     .takes_id = true,
     .parameters = "",
     .handle = scripts_end},
    {.path = "/ruleset/invoke",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .needs_length = true,
     .parameters = "",
     .handle = handle_invoke},
    {.path = "/ruleset/rpcall",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .needs_length = true,
     .parameters = "",
     .waits = true,
     .handle = handle_rpcall},
    {.path = "/ruleset/update",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .needs_length = true,
     .parameters = "module chunkname",
     .handle = handle_update},
    {.path = "/profile",
     .methods = CALL_POST,
     .scope = ACCESS_ADMIN,
     .parameters = "seconds",
     .waits = true,
     .handle = handle_profile},
    {.path = "/ruleset/gc", .methods = CALL_POST, .scope = ACCESS_ADMIN, .parameters = "", .handle = handle_collect},
};
#define ENDPOINT_COUNT (sizeof endpoints / sizeof *endpoints)

const struct endpoint *endpoint_at(size_t i)
{
    return i < ENDPOINT_COUNT ? &endpoints[i] : NULL;
}

/* What stands behind the row's path, "" for most; NULL: it is another path. */
static const char *match(const struct endpoint *row, const char *path)
{
    size_t size = strlen(row->path);
    if (strncmp(path, row->path, size) != 0) return NULL;
    if (!row->takes_id) return path[size] == '\0' ? path + size : NULL;
    bool whole = row->takes_path || !strchr(path + size + (path[size] != '\0'), '/');
    return path[size] == '/' && path[size + 1] && whole ? path + size + 1 : NULL;
}

/* A row of that very path: it comes before those that take anything for an id. */
static bool is_listed(const char *path)
{
    for (size_t i = 0; i < ENDPOINT_COUNT; i++)
        if (strcmp(endpoints[i].path, path) == 0) return true;
    return false;
}

const struct endpoint *endpoint_find(const char *path, unsigned method, const char **rest)
{
    const struct endpoint *other = NULL;
    bool listed = is_listed(path);
    *rest = "";
    for (size_t i = 0; i < ENDPOINT_COUNT; i++) {
        const char *behind = match(&endpoints[i], path);
        if (!behind || (listed && endpoints[i].takes_id)) continue;
        *rest = behind;
        if (endpoints[i].methods & method) return &endpoints[i];
        if (!other) other = &endpoints[i];
    }
    return other;
}

unsigned endpoint_methods(const struct endpoint *endpoint)
{
    unsigned methods = 0;
    for (size_t i = 0; i < ENDPOINT_COUNT; i++)
        if (strcmp(endpoints[i].path, endpoint->path) == 0 && endpoints[i].takes_id == endpoint->takes_id)
            methods |= endpoints[i].methods;
    return methods;
}

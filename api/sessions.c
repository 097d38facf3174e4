#include "api/sessions.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/parts.h"
#include "core/session/session.h"
#include "core/session/worker.h"

#define ROWS_MAX      64u /* asked of a worker at a time */
#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u

static const char *protocol_name(uint8_t protocol)
{
    static const char *const names[] = {
        [PROTOCOL_UNKNOWN] = "unknown",   [PROTOCOL_SOCKS4] = "socks4",
        [PROTOCOL_SOCKS5] = "socks5",     [PROTOCOL_HTTP_CONNECT] = "http-connect",
        [PROTOCOL_HTTP_PLAIN] = "http",   [PROTOCOL_FORWARD] = "forward",
        [PROTOCOL_TPROXY] = "tproxy",     [PROTOCOL_SCRIPT] = "script",
        [PROTOCOL_INTERNAL] = "internal", [PROTOCOL_CHAIN] = "chain",
    };
    return protocol < sizeof names / sizeof *names ? names[protocol] : "unknown";
}

/* --- listing: one worker after the other, a piece at a time --- */

struct listing {
    struct list_errand errand;
    struct call *call;
    uint32_t worker, left;
    json_t *rows;
    struct session_row buffer[ROWS_MAX];
};

/* The proxies in front of the target, in the order of travel. */
static json_t *chain_json(const char *chain)
{
    json_t *all = json_array();
    while (*chain) {
        char hop[SESSION_TEXT_SIZE + 16];
        size_t size = strcspn(chain, " ");
        snprintf(hop, sizeof hop, "%.*s", (int)size, chain);
        json_array_append_new(all, text_json(hop));
        chain += size + (chain[size] == ' ');
    }
    return all;
}

static json_t *row_json(const struct engine *e, const struct session_row *row, uint32_t worker)
{
    const char *rule = engine_tag(e, row->rule);
    char id[40];
    snprintf(id, sizeof id, "%x-%x-%x", worker, row->slot, row->generation);
    return json_pack("{s:s, s:i, s:f, s:o, s:o, s:o, s:o, s:i, s:o, s:{s:I, s:I}, s:{s:s, s:s}, s:s, s:s}", "id", id,
                     "worker", (int)worker, "age", (double)row->age_ms / 1000.0, "user", text_json(row->user), "client",
                     text_json(row->client), "target", text_json(row->target), "rule",
                     rule ? text_json(rule) : json_null(), "hops", (int)row->hops, "chain", chain_json(row->chain),
                     "bytes", "up", (json_int_t)row->bytes[0], "down", (json_int_t)row->bytes[1], "path", "up",
                     row->splice[0] ? "splice" : "copy", "down", row->splice[1] ? "splice" : "copy", "state",
                     session_state_name((enum session_state)row->state), "protocol", protocol_name(row->protocol));
}

/* cursor: `worker-slot` where the next page begins; NULL: this was the last. */
static void listing_finish(struct listing *l, const char *cursor)
{
    struct text text = {0};
    json_t *all = json_pack("{s:O, s:s?}", "sessions", l->rows, "next", cursor);
    char *dump = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (dump) {
        text_add(&text, dump, strlen(dump));
        call_reply(l->call, 200, CALL_JSON, &text);
    } else {
        call_reply_text(l->call, 500, "not enough memory");
    }
    free(dump);
    json_decref(all);
    json_decref(l->rows);
    free(l);
}

static void listing_go_on(struct listing *l)
{
    struct coordinator *c = l->call->parts->coordinator;
    char cursor[32];
    snprintf(cursor, sizeof cursor, "%x-%x", l->worker, l->errand.first);
    if (l->worker >= coordinator_worker_count(c)) {
        listing_finish(l, NULL);
        return;
    }
    if (l->left == 0) {
        listing_finish(l, cursor);
        return;
    }
    l->errand.room = l->left < ROWS_MAX ? l->left : ROWS_MAX;
    if (coordinator_send(c, l->worker, &l->errand.errand)) return;
    call_reply_text(l->call, 503, "the worker is busy, try again");
    json_decref(l->rows);
    free(l);
}

static void listing_done(struct errand *self, int32_t result)
{
    struct listing *l = (struct listing *)self;
    if (result < 0) l->errand.count = 0, l->errand.next = UINT32_MAX;
    for (uint32_t i = 0; i < l->errand.count; i++)
        json_array_append_new(l->rows, row_json(l->call->parts->engine, &l->errand.rows[i], l->worker));
    l->left -= l->errand.count;
    l->errand.first = l->errand.next;
    if (l->errand.next == UINT32_MAX) {
        l->worker++;
        l->errand.first = 0;
    }
    listing_go_on(l);
}

/* One to eight digits. */
static bool read_hex(const char **at, uint32_t *value)
{
    static const char digits[] = "0123456789abcdef";
    const char *start = *at;
    *value = 0;
    for (const char *digit; **at && (digit = strchr(digits, **at)) && *at - start < 8; (*at)++)
        *value = *value << 4 | (uint32_t)(digit - digits);
    return *at > start && (!**at || !strchr(digits, **at));
}

static bool read_cursor(const char *text, uint32_t *worker, uint32_t *slot)
{
    return !text || (read_hex(&text, worker) && *text++ == '-' && read_hex(&text, slot) && *text == '\0');
}

static bool read_limit(const char *text, uint32_t *limit)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : LIMIT_DEFAULT;
    if (text && (*text < '0' || *text > '9' || *end || value < 1 || value > LIMIT_MAX)) return false;
    *limit = (uint32_t)value;
    return true;
}

void sessions_list(struct call *call)
{
    uint32_t limit;
    struct listing *l = calloc(1, sizeof *l);
    json_t *rows = json_array();
    const char *asked_limit, *cursor;
    bool given = call_query_given(call, "limit", &asked_limit) && call_query_given(call, "cursor", &cursor);
    if (!l || !rows) {
        call_reply_text(call, 500, "not enough memory");
    } else if (!given) {
        call_reply_text(call, 400, "limit, cursor: give a value, or leave it out");
    } else if (!read_limit(asked_limit, &limit)) {
        call_reply_text(call, 400, "limit: give a number of 1 to 1000");
    } else if (!read_cursor(cursor, &l->worker, &l->errand.first)) {
        call_reply_text(call, 400, "cursor: give what `next` of the page before says");
    } else {
        l->errand.errand = (struct errand){.run = errand_list, .done = listing_done};
        l->errand.rows = l->buffer;
        l->call = call;
        l->left = limit;
        l->rows = rows;
        listing_go_on(l);
        return;
    }
    json_decref(rows);
    free(l);
}

/* --- judging all of them by the lists of now: one worker after the other, a piece at a time --- */

struct judging {
    struct judge_errand errand;
    struct call *call;
    uint32_t worker;
};

static void judging_go_on(struct judging *j)
{
    struct coordinator *c = j->call->parts->coordinator;
    if (j->worker >= coordinator_worker_count(c)) {
        call_reply_json(
            j->call, 200,
            json_pack("{s:I, s:I}", "judged", (json_int_t)j->errand.judged, "reset", (json_int_t)j->errand.reset));
    } else if (coordinator_send(c, j->worker, &j->errand.errand)) {
        return;
    } else {
        call_reply_text(j->call, 503, "the worker is busy, try again");
    }
    free(j);
}

static void judging_done(struct errand *self, int32_t result)
{
    struct judging *j = (struct judging *)self;
    if (result < 0) j->errand.next = UINT32_MAX; /* that worker has ended */
    j->errand.first = j->errand.next;
    if (j->errand.next == UINT32_MAX) {
        j->worker++;
        j->errand.first = 0;
    }
    judging_go_on(j);
}

void sessions_judge(struct call *call)
{
    struct judging *j = calloc(1, sizeof *j);
    if (!j) {
        call_reply_text(call, 500, "not enough memory");
        return;
    }
    call_log_change(call, "clients");
    j->call = call;
    j->errand.errand = (struct errand){.run = errand_judge, .done = judging_done};
    judging_go_on(j);
}

/* --- ending one --- */

struct ending {
    struct kill_errand errand;
    struct call *call;
};

static void ending_done(struct errand *self, int32_t result)
{
    struct ending *e = (struct ending *)self;
    if (result == 0)
        call_reply_octets(e->call, 204, CALL_TEXT, "", 0);
    else
        call_reply_text(e->call, 404, "there is no such session");
    free(e);
}

bool sessions_parse_id(const char *text, uint32_t *worker, uint32_t *slot, uint32_t *generation)
{
    if (!read_hex(&text, worker) || *text++ != '-' || !read_hex(&text, slot) || *text++ != '-') return false;
    return read_hex(&text, generation) && *text == '\0';
}

void sessions_end(struct call *call)
{
    uint32_t worker;
    struct ending *e = calloc(1, sizeof *e);
    struct coordinator *c = call->parts->coordinator;
    if (!e) {
        call_reply_text(call, 500, "not enough memory");
        return;
    }
    e->call = call;
    e->errand.errand = (struct errand){.run = errand_kill, .done = ending_done};
    bool known = sessions_parse_id(call->path_rest, &worker, &e->errand.slot, &e->errand.generation);
    if (known && worker < coordinator_worker_count(c)) {
        call_log_change(call, call->path_rest);
        if (coordinator_send(c, worker, &e->errand.errand)) return;
        call_reply_text(call, 503, "the worker is busy, try again");
    } else {
        call_reply_text(call, 404, "there is no such session");
    }
    free(e);
}

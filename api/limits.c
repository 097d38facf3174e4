#include "api/limits.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/limit_row.h"
#include "api/parts.h"
#include "core/control/coordinator.h"

#define BODY_MAX 65536u /* of a PUT: twelve short terms */

static uint64_t now_us(struct call *call)
{
    return ring_now_us(coordinator_ring(call->parts->coordinator));
}

/* --- one key --- */

/* False: the call is answered. */
static bool read_key(struct call *call, struct limit_key *key)
{
    const char *wrong = limit_key_parse(call->path_rest, strlen(call->path_rest), key);
    if (wrong) call_reply_text(call, 400, wrong);
    return !wrong;
}

static void reply_row(struct call *call, const struct limit_key *key)
{
    struct keys_row row;
    if (!keys_find(coordinator_keys(call->parts->coordinator), key, now_us(call), &row)) {
        call_reply_text(call, 404, "there is no such limit");
        return;
    }
    struct rate rate = limit_row_rate(call->parts, &row);
    call_reply_json(call, 200, limit_row_json(&row, &rate));
}

void limits_show(struct call *call)
{
    struct limit_key key;
    if (read_key(call, &key)) reply_row(call, &key);
}

/* Static text, or NULL. */
static const char *read_term(const char *name, const json_t *value, struct limit_terms *terms)
{
    char number[32];
    const char *text = json_string_value(value);
    if (json_is_integer(value)) {
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        text = number;
    }
    if (!text) return "a term is neither a whole number nor a string";
    return limit_terms_set(terms, name, strlen(name), text, strlen(text));
}

static const char *read_terms(const struct text *body, struct limit_terms *terms)
{
    const char *name, *wrong = NULL;
    json_t *value, *all = body->size > BODY_MAX
                              ? NULL
                              : json_loadb(body->data ? body->data : "", body->size, JSON_REJECT_DUPLICATES, NULL);
    limit_terms_init(terms);
    if (!json_is_object(all)) wrong = "the body is no JSON object of terms, such as {\"connections\": 10}";
    json_object_foreach(all, name, value) if ((wrong = read_term(name, value, terms)) != NULL) break;
    json_decref(all);
    return wrong ? wrong : limit_terms_check(terms);
}

void limits_put(struct call *call)
{
    struct limit_key key;
    struct limit_terms terms;
    if (!read_key(call, &key)) return;
    const char *wrong = read_terms(&call->body, &terms);
    if (!wrong) wrong = limit_check(&key, &terms);
    if (wrong) {
        call_reply_text(call, 400, wrong);
        return;
    }
    call_log_change(call, call->path_rest);
    switch (coordinator_put_limit(call->parts->coordinator, &key, &terms)) {
    case KEYS_TOO_MANY: call_reply_text(call, 409, "sessions are under four kinds of limits already"); return;
    case KEYS_NO_ROOM: call_reply_text(call, 503, "the table of keys is full, give more --limit-keys"); return;
    case KEYS_CHANGED:
    case KEYS_SAME: reply_row(call, &key); return;
    }
}

void limits_remove(struct call *call)
{
    struct limit_key key;
    if (!read_key(call, &key)) return;
    call_log_change(call, call->path_rest);
    if (coordinator_remove_limit(call->parts->coordinator, &key))
        call_reply_octets(call, 204, CALL_TEXT, "", 0);
    else
        call_reply_text(call, 404, "there is no such limit");
}

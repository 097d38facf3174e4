#include "api/limits.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/parts.h"
#include "core/control/coordinator.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define BODY_MAX      65536u /* of a PUT: twelve short terms */

static uint64_t now_us(struct call *call)
{
    return ring_now_us(coordinator_ring(call->parts->coordinator));
}

/* --- a key as JSON --- */

/* The terms as --limit has them, one member each; numbers without a unit as numbers. */
static json_t *terms_json(const struct limit_terms *terms)
{
    char text[LIMIT_TERMS_TEXT_SIZE], *rest = text;
    json_t *all = json_object();
    limit_terms_format(terms, text, sizeof text);
    for (char *word; all && (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(word, '='), *end;
        *value++ = '\0';
        long long number = strtoll(value, &end, 10);
        json_object_set_new(all, word, *end ? json_string(value) : json_integer(number));
    }
    return all;
}

static json_t *used_json(const struct keys_row *row)
{
    static const char *const names[] = {"quota-up", "quota-down", "quota"};
    json_t *all = json_object();
    for (unsigned d = 0; all && d < LIMIT_DIRECTIONS; d++)
        if (row->terms.quota[d] != LIMIT_QUOTA_NONE)
            json_object_set_new(all, names[d], json_integer((json_int_t)row->used[d]));
    return all;
}

static json_t *row_json(const struct keys_row *row)
{
    char key[LIMIT_KEY_TEXT_SIZE];
    limit_key_format(&row->key, key, sizeof key);
    return json_pack("{s:s, s:b, s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I}, s:o}", "key", key, "each",
                     (int)row->key.every, "put", (int)row->put, "terms", terms_json(&row->terms), "connections",
                     (json_int_t)row->connections, "half_open", (json_int_t)row->half_open, "resolving",
                     (json_int_t)row->resolving, "waiting", (json_int_t)row->waiting, "admitted",
                     (json_int_t)row->admitted, "refused", (json_int_t)row->refused, "bytes", "up",
                     (json_int_t)row->octets[0], "down", (json_int_t)row->octets[1], "used", used_json(row));
}

/* --- listing --- */

/* A page: what `at` is behind it is where the next one begins. */
static json_t *page_json(struct call *call, uint32_t at, uint32_t limit)
{
    struct keys *keys = coordinator_keys(call->parts->coordinator);
    struct keys_row row;
    json_t *rows = json_array();
    char cursor[16];
    bool more = true;
    while (limit-- > 0 && (more = keys_next(keys, &at, now_us(call), &row)))
        json_array_append_new(rows, row_json(&row));
    snprintf(cursor, sizeof cursor, "%u", at);
    return json_pack("{s:o, s:s?}", "limits", rows, "next", more ? cursor : NULL);
}

void limits_list(struct call *call)
{
    const char *asked_limit, *asked_cursor;
    uint32_t limit, at;
    if (!call_query_given(call, "limit", &asked_limit) || !call_query_given(call, "cursor", &asked_cursor))
        call_reply_text(call, 400, "limit, cursor: give a value, or leave it out");
    else if (!fields_read_number(asked_limit, LIMIT_DEFAULT, LIMIT_MAX, &limit) || limit == 0)
        call_reply_text(call, 400, "limit: give a number of 1 to 1000");
    else if (!fields_read_number(asked_cursor, 0, INT32_MAX, &at))
        call_reply_text(call, 400, "cursor: give what `next` of the page before says");
    else
        call_reply_json(call, 200, page_json(call, at, limit));
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
    if (keys_find(coordinator_keys(call->parts->coordinator), key, now_us(call), &row))
        call_reply_json(call, 200, row_json(&row));
    else
        call_reply_text(call, 404, "there is no such limit");
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

#include "api/users.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/parts.h"
#include "core/control/account_change.h"
#include "core/control/accounts.h"
#include "core/control/coordinator.h"
#include "core/control/users.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define BODY_MAX      65536u /* of a PUT: a hash, groups, terms of a limit */

/* The store that ?file= names, without it the first one. NULL: the call is answered. */
static struct users *find_store(struct call *call)
{
    struct coordinator *c = call->parts->coordinator;
    uint32_t count = coordinator_user_stores(c);
    const char *file;
    if (!call_query_given(call, "file", &file)) {
        call_reply_text(call, 400, "file: give a value, or leave it out");
        return NULL;
    }
    for (uint32_t i = 1; i <= count; i++)
        if (!file || strcmp(file, users_path(coordinator_users(c, i))) == 0) return coordinator_users(c, i);
    call_reply_text(call, 404, file ? "no listener has the users of that file" : "there are no users, give --users");
    return NULL;
}

/* --- a user as JSON --- */

static json_t *groups_json(const char *groups)
{
    json_t *all = json_array();
    while (*groups) {
        size_t size = strcspn(groups, ",");
        char group[USERS_GROUP_MAX + 1];
        snprintf(group, sizeof group, "%.*s", (int)size, groups);
        json_array_append_new(all, text_json(group));
        groups += size + (groups[size] != '\0');
    }
    return all;
}

static json_t *row_json(const struct users_row *row)
{
    char limit[LIMIT_TERMS_TEXT_SIZE];
    if (row->has_limit) limit_terms_format(&row->limit, limit, sizeof limit);
    return json_pack("{s:o, s:o, s:b, s:s?}", "name", text_json(row->name), "groups", groups_json(row->groups),
                     "locked", (int)row->locked, "limit", row->has_limit ? limit : NULL);
}

static void reply_row(struct call *call, struct users *users)
{
    struct users_row row = {.locked = false};
    if (users_find(users, call->path_rest, &row))
        call_reply_json(call, 200, row_json(&row));
    else
        call_reply_text(call, 404, "there is no such user");
}

/* --- listing --- */

#define CURSOR_SIZE (2 * USERS_NAME_MAX + 1u)

/* The last name of a page, in hexadecimal digits: a name may be no UTF-8. */
static void write_cursor(const char *name, char cursor[CURSOR_SIZE])
{
    for (; *name; name++, cursor += 2) snprintf(cursor, 3, "%02x", (unsigned char)*name);
}

static bool read_cursor(const char *cursor, char name[USERS_NAME_MAX + 1])
{
    size_t size = strlen(cursor);
    if (size == 0 || size % 2 > 0 || size >= CURSOR_SIZE || strspn(cursor, "0123456789abcdef") != size) return false;
    for (size_t i = 0; i < size / 2; i++) {
        const char digits[3] = {cursor[2 * i], cursor[2 * i + 1], '\0'};
        name[i] = (char)strtoul(digits, NULL, 16);
    }
    name[size / 2] = '\0';
    return true;
}

static json_t *page_json(struct users *users, const char *after, uint32_t limit)
{
    struct users_row row = {.locked = false};
    json_t *rows = json_array();
    char name[USERS_NAME_MAX + 1], cursor[CURSOR_SIZE];
    while (limit-- > 0 && users_next(users, after, &row)) {
        json_array_append_new(rows, row_json(&row));
        memcpy(name, row.name, sizeof name);
        after = name;
    }
    bool more = after && users_next(users, after, &row);
    if (more) write_cursor(after, cursor);
    return json_pack("{s:o, s:s?}", "users", rows, "next", more ? cursor : NULL);
}

void users_list_all(struct call *call)
{
    const char *asked_limit, *cursor;
    char after[USERS_NAME_MAX + 1];
    uint32_t limit;
    if (!call_query_given(call, "limit", &asked_limit) || !call_query_given(call, "cursor", &cursor)) {
        call_reply_text(call, 400, "limit, cursor: give a value, or leave it out");
        return;
    }
    if (!fields_read_number(asked_limit, LIMIT_DEFAULT, LIMIT_MAX, &limit) || limit == 0) {
        call_reply_text(call, 400, "limit: give a number of 1 to 1000");
        return;
    }
    if (cursor && !read_cursor(cursor, after)) {
        call_reply_text(call, 400, "cursor: give what `next` of the page before says");
        return;
    }
    struct users *users = find_store(call);
    if (users) call_reply_json(call, 200, page_json(users, cursor ? after : NULL, limit));
}

/* --- changes that take time: a password is hashed, the file is written --- */

struct changing {
    struct account_change change; /* first */
    struct call *call;
};

static void changing_done(struct account_change *self, const char *wrong)
{
    struct changing *c = (struct changing *)self;
    const struct checkers_order *order = &self->order;
    bool failed = *order->job.why && !order->job.refused;
    if (wrong)
        call_reply_text(c->call, order->stopped ? 503 : failed ? 500 : 400, wrong);
    else if (order->job.removes)
        call_reply_octets(c->call, 204, CALL_TEXT, "", 0);
    else
        reply_row(c->call, self->users);
    explicit_bzero(c, sizeof *c);
    free(c);
}

/* NULL: the call is answered. */
static struct changing *changing_new(struct call *call, struct users *users)
{
    struct changing *c = calloc(1, sizeof *c);
    if (!c) {
        call_reply_text(call, 500, "not enough memory");
        return NULL;
    }
    c->call = call;
    c->change.users = users;
    c->change.done = changing_done;
    if (call_query_flag(call, "persist", false)) c->change.order.job.path = users_path(users);
    snprintf(c->change.order.job.name, sizeof c->change.order.job.name, "%s", call->path_rest);
    return c;
}

static void changing_begin(struct changing *c)
{
    call_log_change(c->call, c->call->path_rest);
    coordinator_change_user(c->call->parts->coordinator, &c->change);
}

/* --- one user --- */

void users_show(struct call *call)
{
    struct users *users = find_store(call);
    if (users) reply_row(call, users);
}

/* "a,b" of ["a", "b"]. False: it is no list of names, or too long. */
static bool read_groups(const json_t *list, char out[USERS_GROUPS_SIZE])
{
    size_t at = 0, index;
    const json_t *one;
    out[0] = '\0';
    if (!json_is_array(list) || json_array_size(list) > USERS_GROUPS_MAX) return false;
    json_array_foreach(list, index, one)
    {
        const char *name = json_string_value(one);
        size_t size = name ? strlen(name) : 0;
        if (size == 0 || size > USERS_GROUP_MAX || strchr(name, ',')) return false;
        if (at > 0) out[at++] = ',';
        memcpy(out + at, name, size + 1);
        at += size;
    }
    return true;
}

/* Static text, or NULL. What `change` and `password` point to lives as long as `all` and `groups`. */
static const char *read_change(const json_t *all, struct users_change *change, const char **password,
                               char groups[USERS_GROUPS_SIZE])
{
    const char *name;
    const json_t *value;
    if (!json_is_object(all)) return "the body is no JSON object such as {\"hash\": \"$y$...\", \"groups\": []}";
    json_object_foreach((json_t *)(uintptr_t)all, name, value)
    {
        if (strcmp(name, "groups") == 0) {
            if (!read_groups(value, groups)) return "groups: give a list of at most 16 names of 1 to 63 octets";
            change->groups = groups;
        } else if (strcmp(name, "hash") == 0) {
            if (!(change->hash = json_string_value(value))) return "hash: give what sluice --hash-password prints";
        } else if (strcmp(name, "password") == 0) {
            if (!(*password = json_string_value(value))) return "password: give a text of 1 to 255 octets";
        } else if (strcmp(name, "limit") == 0) {
            if (!(change->limit = json_string_value(value)))
                return "limit: give terms as --limit has them, \"\" for none";
        } else {
            return "a user has hash or password, groups and limit";
        }
    }
    return change->hash && *password ? "give a hash, or a password that is made one here" : NULL;
}

static void forget_password(json_t *all)
{
    json_t *password = json_object_get(all, "password");
    if (json_is_string(password))
        explicit_bzero((char *)(uintptr_t)json_string_value(password), json_string_length(password));
}

/* The hash is made, and the line is written, elsewhere. */
static const char *set_slowly(struct call *call, struct users *users, const struct users_change *change,
                              const char *password)
{
    struct changing *c = changing_new(call, users);
    if (!c) return NULL;
    struct users_job *job = &c->change.order.job;
    const char *wrong = users_judge_change(users, call->path_rest, change, password != NULL, &job->texts);
    if (wrong) {
        free(c);
        return wrong;
    }
    c->change.has_groups = change->groups != NULL;
    c->change.has_limit = change->limit != NULL;
    job->hashes = password != NULL;
    if (password) snprintf(job->password, sizeof job->password, "%s", password);
    changing_begin(c);
    return NULL;
}

static const char *set_at_once(struct call *call, struct users *users, const struct users_change *change)
{
    const char *wrong = users_put(users, call->path_rest, change);
    if (wrong) return wrong;
    call_log_change(call, call->path_rest);
    reply_row(call, users);
    return NULL;
}

void users_set(struct call *call)
{
    char groups[USERS_GROUPS_SIZE];
    struct users_change change = {.hash = NULL};
    struct users *users = find_store(call);
    if (!users) return;
    const struct text *body = &call->body;
    json_t *all = body->size > BODY_MAX
                      ? NULL
                      : json_loadb(body->data ? body->data : "", body->size, JSON_REJECT_DUPLICATES, NULL);
    const char *password = NULL, *wrong = read_change(all, &change, &password, groups);
    bool slow = password || call_query_flag(call, "persist", false);
    if (password) { /* not for the log either, which has a digest of each body */
        if (call->body.data) explicit_bzero(call->body.data, call->body.size);
        call->body.size = 0;
    }
    if (!wrong && slow)
        wrong = set_slowly(call, users, &change, password);
    else if (!wrong)
        wrong = set_at_once(call, users, &change);
    forget_password(all);
    json_decref(all);
    if (wrong) call_reply_text(call, 400, wrong);
}

void users_drop(struct call *call)
{
    struct users *users = find_store(call);
    if (!users) return;
    struct users_row row = {.locked = false};
    bool known = users_find(users, call->path_rest, &row);
    struct changing *c = known && call_query_flag(call, "persist", false) ? changing_new(call, users) : NULL;
    if (call->answered) return;
    if (c) {
        c->change.order.job.removes = true;
        changing_begin(c);
        return;
    }
    call_log_change(call, call->path_rest);
    if (users_remove(users, call->path_rest))
        call_reply_octets(call, 204, CALL_TEXT, "", 0);
    else
        call_reply_text(call, 404, "there is no such user");
}

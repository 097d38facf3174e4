#include "api/upstreams.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/fields.h"
#include "api/parts.h"
#include "core/control/coordinator.h"
#include "core/session/failure.h"

#define BODY_MAX      1024u
#define LIMIT_DEFAULT 16u /* groups: one may have 64 members */
#define LIMIT_MAX     64u

static const char *const orders[] = {[MEMBER_UP] = "up", [MEMBER_DRAIN] = "drain", [MEMBER_DOWN] = "down"};

static uint64_t now_ms(struct call *call)
{
    return coordinator_now_ms(call->parts->coordinator);
}

/* --- one member --- */

static const char *checked_name(const struct upstream_group *group, const struct member_view *view)
{
    static const char *const names[] = {
        [MEMBER_CHECKED_UNKNOWN] = "unknown", [MEMBER_CHECKED_UP] = "up", [MEMBER_CHECKED_DOWN] = "down"};
    return group->check == GROUP_CHECK_NONE ? "none" : names[view->checked];
}

/* Without user and password. */
static json_t *url_json(const struct group_member *member)
{
    char text[PROXY_URI_TEXT_SIZE];
    if (member->target) return json_null();
    proxy_uri_format(&member->uri, text, sizeof text);
    return json_string(text);
}

static json_t *member_json(const struct upstream_group *group, const struct seat *seat, uint64_t now)
{
    static const char *const passive[] = {[MEMBER_IN] = "in", [MEMBER_OUT] = "out", [MEMBER_TRIAL] = "trial"};
    struct member_view view;
    seat_look(seat, now, &view);
    json_t *last =
        view.last_failure == FAIL_NONE ? json_null() : json_string(failure_row((enum failure)view.last_failure)->label);
    return json_pack("{s:s, s:o, s:i, s:b, s:I, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
                     "member", seat->member->text, "url", url_json(seat->member), "weight", (int)seat->weight, "backup",
                     (int)seat->backup, "max", (json_int_t)seat->most, "state", member_state_name(view.state), "order",
                     orders[view.order], "checked", checked_name(group, &view), "passive", passive[view.passive],
                     "out_seconds", (double)view.out_ms / 1000.0, "sessions", (json_int_t)view.sessions, "chosen",
                     (json_int_t)view.chosen, "connected", (json_int_t)view.connected, "failed",
                     (json_int_t)view.failed, "ejected", (json_int_t)view.ejected, "checks_passed",
                     (json_int_t)view.checks_passed, "checks_failed", (json_int_t)view.checks_failed, "last_failure",
                     last);
}

static json_t *group_json(const struct upstream_group *group, uint64_t now)
{
    json_t *members = json_array();
    for (unsigned i = 0; i < group->count; i++)
        json_array_append_new(members, member_json(group, &group->seats[i], now));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "name", group->name, "kind",
                     group->targets ? "targets" : "proxies", "defined_by", group->scripted ? "script" : "settings",
                     "policy", group_policy_name((enum group_policy)group->policy), "check",
                     group_check_name((enum group_check)group->check), "members", members);
}

/* --- GET /upstreams --- */

static json_t *page_json(const struct upstream_groups *groups, uint32_t first, uint32_t limit, uint64_t now)
{
    char next[16];
    json_t *all = json_array();
    uint32_t count = groups ? groups->count : 0, at = first;
    for (; at < count && at - first < limit; at++) json_array_append_new(all, group_json(groups->all[at], now));
    snprintf(next, sizeof next, "%u", at);
    return json_pack("{s:o, s:o}", "upstreams", all, "next", at < count ? json_string(next) : json_null());
}

void upstreams_list(struct call *call)
{
    const struct upstream_groups *groups = coordinator_groups(call->parts->coordinator);
    const char *name, *limit_text, *cursor_text;
    uint32_t limit, first;
    if (!call_query_given(call, "name", &name) || !call_query_given(call, "limit", &limit_text) ||
        !call_query_given(call, "cursor", &cursor_text)) {
        call_reply_text(call, 400, "name, limit, cursor: give a value, or leave it out");
        return;
    }
    if (!fields_read_number(limit_text, LIMIT_DEFAULT, LIMIT_MAX, &limit) || limit == 0) {
        call_reply_text(call, 400, "limit: give a number of 1 to 64");
        return;
    }
    if (!fields_read_number(cursor_text, 0, INT32_MAX, &first)) {
        call_reply_text(call, 400, "cursor: give what `next` of the page before says");
        return;
    }
    if (!name) {
        call_reply_json(call, 200, page_json(groups, first, limit, now_ms(call)));
        return;
    }
    const struct upstream_group *group = groups_find(groups, name);
    if (!group)
        call_reply_text(call, 404, "there is no such group");
    else
        call_reply_json(call, 200, json_pack("{s:[o], s:n}", "upstreams", group_json(group, now_ms(call)), "next"));
}

/* --- PUT /upstreams/NAME/MEMBER --- */

/* False: it is none. */
static bool read_order(const struct text *body, enum member_order *order)
{
    json_t *all = body->size > BODY_MAX
                      ? NULL
                      : json_loadb(body->data ? body->data : "", body->size, JSON_REJECT_DUPLICATES, NULL);
    const char *state = json_string_value(json_object_get(all, "state"));
    bool good = false;
    for (unsigned i = 0; state && json_object_size(all) == 1 && i < sizeof orders / sizeof *orders; i++) {
        if (strcmp(state, orders[i]) != 0) continue;
        *order = (enum member_order)i;
        good = true;
    }
    json_decref(all);
    return good;
}

static const struct seat *find_seat(const struct upstream_group *group, const char *member)
{
    for (unsigned i = 0; group && i < group->count; i++)
        if (strcmp(group->seats[i].member->text, member) == 0) return &group->seats[i];
    return NULL;
}

void upstreams_put(struct call *call)
{
    struct coordinator *c = call->parts->coordinator;
    char name[GROUP_NAME_MAX + 1] = "";
    const char *slash = strchr(call->path_rest, '/');
    size_t size = slash ? (size_t)(slash - call->path_rest) : 0;
    enum member_order order = MEMBER_UP;
    if (size > 0 && size < sizeof name) memcpy(name, call->path_rest, size);
    const struct upstream_group *group = groups_find(coordinator_groups(c), name);
    const struct seat *seat = slash ? find_seat(group, slash + 1) : NULL;
    if (!seat) {
        call_reply_text(call, 404, group ? "the group has no such member" : "there is no such group");
        return;
    }
    if (!read_order(&call->body, &order)) {
        call_reply_text(call, 400, "the body is no JSON object {\"state\": \"up\"}, or drain, or down");
        return;
    }
    call_log_change(call, call->path_rest);
    coordinator_order_member(c, name, slash + 1, order);
    call_reply_json(call, 200, member_json(group, seat, now_ms(call)));
}

/* --- metrics --- */

/* One family, a sample for each member. */
struct figure {
    const char *name, *type, *help;
    uint64_t (*read)(const struct member_view *view);
};

static uint64_t read_sessions(const struct member_view *view)
{
    return view->sessions;
}

static uint64_t read_chosen(const struct member_view *view)
{
    return view->chosen;
}

static uint64_t read_connected(const struct member_view *view)
{
    return view->connected;
}

static uint64_t read_failed(const struct member_view *view)
{
    return view->failed;
}

static uint64_t read_ejected(const struct member_view *view)
{
    return view->ejected;
}

static const struct figure figures[] = {
    {"sluice_group_sessions", "gauge", "Sessions that use the member.", read_sessions},
    {"sluice_group_chosen_total", "counter", "How often the member was chosen.", read_chosen},
    {"sluice_group_connected_total", "counter", "Connections made to the member, or through it.", read_connected},
    {"sluice_group_failures_total", "counter", "Failures of sessions that the member is to blame for.", read_failed},
    {"sluice_group_ejected_total", "counter", "How often such failures have taken the member out.", read_ejected},
};

static void write_head(struct text *out, const char *name, const char *type, const char *help)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Names and addresses need no escapes. */
static void write_figure(struct text *out, const struct figure *f, const struct upstream_groups *groups, uint64_t now)
{
    struct member_view view;
    write_head(out, f->name, f->type, f->help);
    for (uint32_t i = 0; i < groups->count; i++) {
        const struct upstream_group *group = groups->all[i];
        for (unsigned j = 0; j < group->count; j++) {
            seat_look(&group->seats[j], now, &view);
            text_printf(out, "%s{group=\"%s\",member=\"%s\"} %llu\n", f->name, group->name,
                        group->seats[j].member->text, (unsigned long long)f->read(&view));
        }
    }
}

static void write_states(struct text *out, const struct upstream_groups *groups, uint64_t now)
{
    struct member_view view;
    write_head(out, "sluice_group_state", "gauge", "Always 1; what the member is at present is a label.");
    for (uint32_t i = 0; i < groups->count; i++) {
        const struct upstream_group *group = groups->all[i];
        for (unsigned j = 0; j < group->count; j++) {
            seat_look(&group->seats[j], now, &view);
            text_printf(out, "sluice_group_state{group=\"%s\",member=\"%s\",state=\"%s\"} 1\n", group->name,
                        group->seats[j].member->text, member_state_name(view.state));
        }
    }
}

static void write_checks(struct text *out, const struct upstream_groups *groups, uint64_t now)
{
    struct member_view view;
    write_head(out, "sluice_group_checks_total", "counter", "Checks of the member, by outcome.");
    for (uint32_t i = 0; i < groups->count; i++) {
        const struct upstream_group *group = groups->all[i];
        for (unsigned j = 0; j < group->count; j++) {
            const char *member = group->seats[j].member->text;
            seat_look(&group->seats[j], now, &view);
            text_printf(out, "sluice_group_checks_total{group=\"%s\",member=\"%s\",outcome=\"passed\"} %llu\n",
                        group->name, member, (unsigned long long)view.checks_passed);
            text_printf(out, "sluice_group_checks_total{group=\"%s\",member=\"%s\",outcome=\"failed\"} %llu\n",
                        group->name, member, (unsigned long long)view.checks_failed);
        }
    }
}

void upstreams_write_metrics(struct text *out, const struct coordinator *c)
{
    const struct upstream_groups *groups = coordinator_groups(c);
    uint64_t now = coordinator_now_ms(c);
    if (!groups || groups->count == 0) return;
    write_states(out, groups, now);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) write_figure(out, &figures[i], groups, now);
    write_checks(out, groups, now);
}

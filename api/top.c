#include "api/top.h"

#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/limit_row.h"
#include "api/listing.h"
#include "api/parts.h"
#include "api/ranking.h"
#include "core/control/coordinator.h"
#include "core/session/tally.h"
#include "lua/engine/engine.h"

#define LIMIT_DEFAULT 10u
#define LIMIT_MAX     1000u

enum phase { LOOKING, RANKING, WRITING }; /* as in limits_list.c */

struct top_listing {
    struct listing listing; /* first */
    struct rates *rates;
    struct ranking ranking;
    enum phase phase;
    bool rules;           /* else users */
    uint32_t at, written; /* written: those of the ranking that were tried */
    struct text text;
};

static struct coordinator *coordinator_of(const struct top_listing *t)
{
    return t->listing.call->parts->coordinator;
}

static uint64_t now_us(const struct top_listing *t)
{
    return ring_now_us(coordinator_ring(coordinator_of(t)));
}

/* --- looking --- */

static enum listing_next end_pass(struct top_listing *t)
{
    t->at = 0;
    if (t->phase == LOOKING) {
        t->phase = RANKING;
        return LISTING_RESTS;
    }
    rates_end_pass(t->rates, coordinator_after_us(0));
    ranking_sort(&t->ranking);
    t->phase = WRITING;
    return LISTING_GOES_ON;
}

static void look(struct top_listing *t, uint32_t index, uint64_t handle, const struct tally_sum *sum)
{
    struct ranked one = {.connections = sum->connections, .handle = handle};
    one.rate = rates_look(t->rates, index, handle, sum->octets, coordinator_after_us(0));
    bool moves = one.rate.known && one.rate.per_second[0] + one.rate.per_second[1] > 0;
    if (t->phase == RANKING && (moves || one.connections > 0)) ranking_offer(&t->ranking, &one);
}

static enum listing_next look_at_user(struct top_listing *t)
{
    struct keys_row row;
    struct tally_sum sum;
    enum keys_place place = keys_look(coordinator_tally_users(coordinator_of(t)), &t->at, now_us(t), &row);
    if (place == KEYS_END) return end_pass(t);
    if (place == KEYS_GAP || row.key.every) return LISTING_GOES_ON;
    coordinator_tally_user(coordinator_of(t), (uint32_t)row.handle, &sum);
    look(t, (uint32_t)row.handle, row.handle, &sum);
    return LISTING_GOES_ON;
}

/* Tags have numbers without gaps, and none is ever another rule's. */
static enum listing_next look_at_rule(struct top_listing *t)
{
    struct tally_sum sum;
    uint32_t tag = ++t->at;
    if (tag > TALLY_RULES || !engine_tag(t->listing.call->parts->engine, tag)) return end_pass(t);
    coordinator_tally_rule(coordinator_of(t), tag, &sum);
    look(t, tag, tag, &sum);
    return LISTING_GOES_ON;
}

/* --- writing --- */

/* False: the user has gone meanwhile. */
static bool key_of(const struct top_listing *t, uint64_t handle, struct limit_key *key)
{
    struct keys_row row;
    if (t->rules) {
        const char *tag = engine_tag(t->listing.call->parts->engine, (uint32_t)handle);
        limit_key_text(LIMIT_RULE, tag, strlen(tag), key);
        return true;
    }
    if (!keys_show(coordinator_tally_users(coordinator_of(t)), handle, now_us(t), &row)) return false;
    *key = row.key;
    return true;
}

/* Of the table of limits; null: it has none. */
static json_t *limit_json(const struct top_listing *t, const struct limit_key *key)
{
    struct keys_row row;
    if (!keys_find(coordinator_keys(coordinator_of(t)), key, now_us(t), &row)) return json_null();
    struct rate rate = limit_row_rate(t->listing.call->parts, &row);
    return limit_row_json(&row, &rate);
}

static enum listing_next write_step(struct top_listing *t)
{
    struct limit_key key;
    char name[LIMIT_NAME_MAX + 1], text[LIMIT_KEY_TEXT_SIZE];
    if (t->written == t->ranking.count) return LISTING_IS_DONE;
    const struct ranked *one = &t->ranking.all[t->written++];
    if (!key_of(t, one->handle, &key)) return LISTING_GOES_ON;
    memcpy(name, key.name, key.size);
    name[key.size] = '\0';
    limit_key_format(&key, text, sizeof text);
    if (t->text.size > 0) text_add(&t->text, ",", 1);
    text_add_json(&t->text,
                  json_pack("{s:o, s:s, s:o, s:I, s:o}", "name", text_json(name), "key", text, "rate",
                            limit_row_rate_json(&one->rate), "connections", (json_int_t)one->connections, "limit",
                            limit_json(t, &key)),
                  17);
    return LISTING_GOES_ON;
}

/* --- the listing --- */

static enum listing_next top_step(struct listing *listing)
{
    struct top_listing *t = (struct top_listing *)listing;
    if (t->phase == WRITING) return write_step(t);
    return t->rules ? look_at_rule(t) : look_at_user(t);
}

static void top_end(struct listing *listing, bool over)
{
    struct top_listing *t = (struct top_listing *)listing;
    struct text text = {.failed = t->text.failed};
    if (over) {
        text_printf(&text, "{\"top\":[");
        if (t->text.size > 0) text_add(&text, t->text.data, t->text.size);
        text_printf(&text, "],\"missed\":%llu}",
                    t->rules ? 0ULL : (unsigned long long)coordinator_tally_missed(coordinator_of(t)));
        call_reply(t->listing.call, 200, CALL_JSON, &text);
    }
    text_free(&t->text);
    ranking_close(&t->ranking);
    free(t);
}

/* NULL, or what is wrong with the query. */
static const char *read_query(struct call *call, bool *rules, uint32_t *limit)
{
    const char *by, *asked_limit;
    if (!call_query_given(call, "by", &by) || !call_query_given(call, "limit", &asked_limit))
        return "by, limit: give a value, or leave it out";
    *rules = by && strcmp(by, "rule") == 0;
    if (by && !*rules && strcmp(by, "user") != 0) return "by: give user or rule";
    if (!fields_read_number(asked_limit, LIMIT_DEFAULT, LIMIT_MAX, limit) || *limit == 0)
        return "limit: give a number of 1 to 1000";
    return NULL;
}

static bool top_begin(struct call *call, bool rules, uint32_t limit)
{
    struct listings *all = call->parts->listings;
    struct top_listing *t = calloc(1, sizeof *t);
    if (!t) return false;
    t->listing = (struct listing){.call = call, .step = top_step, .end = top_end};
    t->rules = rules;
    t->rates = rules ? listings_rates(&all->rules, TALLY_RULES + 1) : listings_rates(&all->users, TALLY_USERS);
    if (!t->rates || !ranking_open(&t->ranking, limit)) {
        top_end(&t->listing, false);
        return false;
    }
    t->phase = rates_are_fresh(t->rates, coordinator_after_us(0)) ? RANKING : LOOKING;
    listings_begin(all, &t->listing);
    return true;
}

void top_list(struct call *call)
{
    bool rules;
    uint32_t limit;
    const char *wrong = read_query(call, &rules, &limit);
    if (wrong)
        call_reply_text(call, 400, wrong);
    else if (!top_begin(call, rules, limit))
        call_reply_text(call, 503, "there is no memory for an answer");
}

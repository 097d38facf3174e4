#include "api/limits_list.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/limit_row.h"
#include "api/listing.h"
#include "api/parts.h"
#include "api/ranking.h"
#include "core/control/coordinator.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define PLACES_MAX    1000000u /* of the table that a page looks at: one that finds little there is short */

enum phase {
    PAGING,  /* writes what it finds */
    LOOKING, /* for the first time: nobody knows a rate yet */
    RANKING, /* the fastest */
    WRITING  /* these */
};

struct limits_listing {
    struct listing listing; /* first */
    struct keys *keys;
    struct ranking ranking;
    enum phase phase;
    uint32_t at, places, limit, written; /* places: looked at; written: rows, or those of the ranking that were tried */
    bool more;
    struct text text;
    size_t prefix_size;
    char prefix[LIMIT_KEY_TEXT_SIZE];
};

static void write_row(struct limits_listing *l, const struct keys_row *row, const struct rate *rate)
{
    if (l->text.size > 0) text_add(&l->text, ",", 1);
    text_add_json(&l->text, limit_row_json(row, rate), 17);
}

static bool is_asked_for(const struct limits_listing *l, const struct keys_row *row)
{
    char key[LIMIT_KEY_TEXT_SIZE];
    if (l->prefix_size == 0) return true;
    limit_key_format(&row->key, key, sizeof key);
    return strncmp(key, l->prefix, l->prefix_size) == 0;
}

static uint64_t now_us(const struct limits_listing *l)
{
    return ring_now_us(coordinator_ring(l->listing.call->parts->coordinator));
}

static enum listing_next page_step(struct limits_listing *l)
{
    struct keys_row row;
    enum keys_place place = keys_look(l->keys, &l->at, now_us(l), &row);
    if (place == KEYS_END) return LISTING_IS_DONE;
    if (place == KEYS_ROW && is_asked_for(l, &row)) {
        struct rate rate = limit_row_rate(l->listing.call->parts, &row);
        write_row(l, &row, &rate);
        l->written++;
    }
    l->more = l->written == l->limit || ++l->places == PLACES_MAX;
    return l->more ? LISTING_IS_DONE : LISTING_GOES_ON;
}

/* --- the fastest --- */

static enum listing_next end_pass(struct limits_listing *l)
{
    l->at = 0;
    if (l->phase == LOOKING) {
        l->phase = RANKING;
        return LISTING_RESTS;
    }
    rates_end_pass(&l->listing.call->parts->listings->keys, coordinator_after_us(0));
    ranking_sort(&l->ranking);
    l->phase = WRITING;
    return LISTING_GOES_ON;
}

/* The limit of each key of a kind is nobody's, and has no rate. */
static enum listing_next rank_step(struct limits_listing *l)
{
    struct keys_row row;
    enum keys_place place = keys_look(l->keys, &l->at, now_us(l), &row);
    if (place == KEYS_END) return end_pass(l);
    if (place == KEYS_GAP || row.key.every) return LISTING_GOES_ON;
    struct ranked one = {.connections = row.connections, .handle = row.handle};
    one.rate = limit_row_rate(l->listing.call->parts, &row);
    if (l->phase == RANKING && is_asked_for(l, &row)) ranking_offer(&l->ranking, &one);
    return LISTING_GOES_ON;
}

static enum listing_next write_step(struct limits_listing *l)
{
    struct keys_row row;
    if (l->written == l->ranking.count) return LISTING_IS_DONE;
    const struct ranked *one = &l->ranking.all[l->written++];
    if (keys_show(l->keys, one->handle, now_us(l), &row)) write_row(l, &row, &one->rate);
    return LISTING_GOES_ON;
}

/* --- the listing --- */

static enum listing_next limits_step(struct listing *listing)
{
    struct limits_listing *l = (struct limits_listing *)listing;
    switch (l->phase) {
    case PAGING: return page_step(l);
    case LOOKING:
    case RANKING: return rank_step(l);
    case WRITING: return write_step(l);
    }
    abort();
}

static void limits_end(struct listing *listing, bool over)
{
    struct limits_listing *l = (struct limits_listing *)listing;
    struct text text = {.failed = l->text.failed};
    if (over) {
        text_printf(&text, "{\"limits\":[");
        if (l->text.size > 0) text_add(&text, l->text.data, l->text.size);
        text_printf(&text, l->more ? "],\"next\":\"%u\"}" : "],\"next\":null}", l->at);
        call_reply(l->listing.call, 200, CALL_JSON, &text);
    }
    text_free(&l->text);
    ranking_close(&l->ranking);
    free(l);
}

/* --- what was asked --- */

/* NULL, or what is wrong. */
static const char *read_query(struct call *call, struct limits_listing *l, bool *ranked)
{
    static const char *const names[] = {"limit", "cursor", "prefix", "sort"};
    const char *given[sizeof names / sizeof *names];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!call_query_given(call, names[i], &given[i]))
            return "limit, cursor, prefix, sort: give a value, or leave it out";
    if (!fields_read_number(given[0], LIMIT_DEFAULT, LIMIT_MAX, &l->limit) || l->limit == 0)
        return "limit: give a number of 1 to 1000";
    if (!fields_read_number(given[1], 0, INT32_MAX, &l->at)) return "cursor: give what `next` of the page before says";
    *ranked = given[3] != NULL;
    if (given[3] && strcmp(given[3], "rate") != 0) return "sort: give rate, or leave it out";
    if (given[3] && given[1])
        return "sort: the fastest have no further pages, their order changes: give no cursor, but a greater limit";
    l->prefix_size = given[2] ? strlen(given[2]) : 0;
    if (l->prefix_size >= sizeof l->prefix) return "prefix: no key is that long";
    if (given[2]) memcpy(l->prefix, given[2], l->prefix_size);
    return NULL;
}

/* NULL, or what is wrong. */
static const char *begin_ranking(struct call *call, struct limits_listing *l)
{
    struct rates *rates = listings_rates(&call->parts->listings->keys, keys_room(l->keys));
    if (!rates || !ranking_open(&l->ranking, l->limit)) return "there is no memory for an answer";
    l->phase = rates_are_fresh(rates, coordinator_after_us(0)) ? RANKING : LOOKING;
    return NULL;
}

void limits_list(struct call *call)
{
    struct limits_listing *l = calloc(1, sizeof *l);
    bool ranked = false;
    unsigned status = l ? 400 : 503;
    const char *wrong = l ? read_query(call, l, &ranked) : "there is no memory for an answer";
    if (!wrong) {
        l->listing = (struct listing){.call = call, .step = limits_step, .end = limits_end};
        l->keys = coordinator_keys(call->parts->coordinator);
        if (ranked) wrong = begin_ranking(call, l), status = 503;
    }
    if (wrong) {
        call_reply_text(call, status, wrong);
        if (l) limits_end(&l->listing, false);
    } else {
        listings_begin(call->parts->listings, &l->listing);
    }
}

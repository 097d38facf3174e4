#include "api/limit_row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/listing.h"
#include "core/control/coordinator.h"

struct rate limit_row_rate(const struct api_parts *parts, const struct keys_row *row)
{
    struct listings *all = parts->listings;
    struct rates *rates = listings_rates(&all->keys, keys_room(coordinator_keys(parts->coordinator)));
    if (!rates || row->key.every) return (struct rate){.known = false};
    return rates_look(rates, (uint32_t)row->handle, row->handle, row->octets, coordinator_after_us(0));
}

json_t *limit_row_rate_json(const struct rate *rate)
{
    if (!rate->known) return json_null();
    return json_pack("{s:I, s:I}", "up", (json_int_t)llround(rate->per_second[0]), "down",
                     (json_int_t)llround(rate->per_second[1]));
}

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

json_t *limit_row_json(const struct keys_row *row, const struct rate *rate)
{
    char key[LIMIT_KEY_TEXT_SIZE];
    limit_key_format(&row->key, key, sizeof key);
    return json_pack("{s:s, s:b, s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I}, s:o, s:o}", "key", key, "each",
                     (int)row->key.every, "put", (int)row->put, "terms", terms_json(&row->terms), "connections",
                     (json_int_t)row->connections, "half_open", (json_int_t)row->half_open, "resolving",
                     (json_int_t)row->resolving, "waiting", (json_int_t)row->waiting, "admitted",
                     (json_int_t)row->admitted, "refused", (json_int_t)row->refused, "bytes", "up",
                     (json_int_t)row->octets[0], "down", (json_int_t)row->octets[1], "used", used_json(row), "rate",
                     limit_row_rate_json(rate));
}

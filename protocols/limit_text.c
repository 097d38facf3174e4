/* The half of limit_text.h that is about terms; limit_key.c has the keys. */
#include "protocols/limit_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t numerator, denominator; /* octets in one */
};

/* Mbit is 10^6 bits, MB 10^6 octets, MiB 2^20 octets. */
static const struct unit units[] = {
    {"bit", 1, 8},
    {"kbit", 1000, 8},
    {"Mbit", 1000000, 8},
    {"Gbit", 1000000000, 8},
    {"Tbit", 1000000000000, 8},
    {"B", 1, 1},
    {"kB", 1000, 1},
    {"MB", 1000000, 1},
    {"GB", 1000000000, 1},
    {"TB", 1000000000000, 1},
    {"KiB", UINT64_C(1) << 10, 1},
    {"MiB", UINT64_C(1) << 20, 1},
    {"GiB", UINT64_C(1) << 30, 1},
    {"TiB", UINT64_C(1) << 40, 1},
};

static const char *const period_names[LIMIT_PERIODS] = {"hour", "day", "week", "month", ""};

const char *limit_period_name(enum limit_period period)
{
    assert(period < LIMIT_PERIODS);
    return period_names[period];
}

void limit_terms_init(struct limit_terms *terms)
{
    *terms = (struct limit_terms){.connections = LIMIT_CONNECTIONS_NONE,
                                  .half_open = LIMIT_CONNECTIONS_NONE,
                                  .resolving = LIMIT_CONNECTIONS_NONE,
                                  .rate_seconds = 1};
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        terms->quota[d] = LIMIT_QUOTA_NONE;
        terms->period[d] = LIMIT_EVER;
    }
}

bool limit_terms_are_empty(const struct limit_terms *terms)
{
    bool empty = terms->connections == LIMIT_CONNECTIONS_NONE && terms->half_open == LIMIT_CONNECTIONS_NONE &&
                 terms->resolving == LIMIT_CONNECTIONS_NONE && terms->rate == 0;
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        empty &= terms->speed[d] == 0 && terms->quota[d] == LIMIT_QUOTA_NONE;
    return empty;
}

bool limit_terms_equal(const struct limit_terms *a, const struct limit_terms *b)
{
    bool equal = a->connections == b->connections && a->half_open == b->half_open && a->resolving == b->resolving &&
                 a->rate == b->rate && a->rate_seconds == b->rate_seconds && a->burst == b->burst;
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        equal &= a->speed[d] == b->speed[d] && a->speed_burst[d] == b->speed_burst[d] && a->quota[d] == b->quota[d] &&
                 a->period[d] == b->period[d];
    return equal;
}

/* --- numbers --- */

struct span {
    const char *at;
    size_t size;
};

static bool is(struct span text, const char *word)
{
    return strlen(word) == text.size && memcmp(text.at, word, text.size) == 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number with up to three decimals at the front of `text`, which is cut: `*out` of the parts of which 1, 10, 100 or
 * 1000 are a whole. As few as will do: thousandths of a large number would not fit. */
static bool cut_decimal(struct span *text, uint64_t *out, uint32_t *parts)
{
    size_t used = 0, decimals = 0;
    uint64_t value = 0;
    bool point = false;
    for (; used < text->size && (is_digit(text->at[used]) || (text->at[used] == '.' && !point)); used++) {
        if (text->at[used] == '.') {
            point = true;
            continue;
        }
        if (value > LIMIT_QUOTA_MAX / 10 || decimals == 3) return false;
        value = value * 10 + (uint64_t)(text->at[used] - '0');
        decimals += point;
    }
    if (used == 0 || !is_digit(text->at[0]) || (point && decimals == 0)) return false;
    for (; decimals > 0 && value % 10 == 0; decimals--) value /= 10;
    for (*parts = 1; decimals > 0; decimals--) *parts *= 10;
    text->at += used;
    text->size -= used;
    *out = value;
    return true;
}

static bool read_count(struct span text, uint32_t least, uint32_t *out)
{
    uint64_t value = 0;
    if (text.size == 0 || text.size > 10) return false;
    for (size_t i = 0; i < text.size; i++) {
        if (!is_digit(text.at[i])) return false;
        value = value * 10 + (uint64_t)(text.at[i] - '0');
    }
    if (value < least || value > LIMIT_COUNT_MAX) return false;
    *out = (uint32_t)value;
    return true;
}

static const struct unit *find_unit(struct span text)
{
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (is(text, units[i].name)) return &units[i];
    return NULL;
}

/* What stands behind the last slash; empty without one. `text` is cut before it. */
static struct span cut_period(struct span *text)
{
    const char *slash = memchr(text->at, '/', text->size);
    if (!slash) return (struct span){text->at + text->size, 0};
    struct span behind = {slash + 1, text->size - (size_t)(slash - text->at) - 1};
    text->size = (size_t)(slash - text->at);
    return behind;
}

/* A number and a unit, in octets, rounded down. */
static bool read_octets(struct span text, uint64_t most, uint64_t *out)
{
    uint64_t value, product;
    uint32_t parts;
    if (!cut_decimal(&text, &value, &parts)) return false;
    const struct unit *unit = find_unit(text);
    if (!unit || __builtin_mul_overflow(value, unit->numerator, &product)) return false;
    product /= parts * unit->denominator;
    if (product > most) return false;
    *out = product;
    return true;
}

/* --- terms --- */

static const char *set_connections(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    (void)direction;
    return read_count(value, 0, &terms->connections) ? NULL : "connections: give a number, 0 to 1000000000";
}

static const char *set_half_open(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    (void)direction;
    return read_count(value, 1, &terms->half_open) ? NULL : "half-open: give a number of handshakes, 1 to 1000000000";
}

static const char *set_resolving(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    (void)direction;
    return read_count(value, 1, &terms->resolving) ? NULL : "resolving: give a number of names, 1 to 1000000000";
}

static const char *set_rate(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    static const char wrong[] = "rate: give new connections per second, minute or hour, such as 50/s, 50/min, 50/h";
    bool slash = memchr(value.at, '/', value.size) != NULL;
    struct span period = cut_period(&value);
    uint32_t rate, seconds = 1;
    (void)direction;
    if (slash && is(period, "min"))
        seconds = 60;
    else if (slash && (is(period, "h") || is(period, "hour")))
        seconds = 3600;
    else if (slash && !is(period, "s"))
        return wrong;
    if (!read_count(value, 1, &rate)) return wrong;
    terms->rate = rate;
    terms->rate_seconds = seconds;
    return NULL;
}

static const char *set_burst(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    (void)direction;
    return read_count(value, 1, &terms->burst) ? NULL : "burst: give a number of connections, 1 to 1000000000";
}

static const char *set_speed(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    struct span period = cut_period(&value);
    uint64_t octets;
    if (!is(period, "s") || !read_octets(value, LIMIT_SPEED_MAX, &octets) || octets == 0)
        return "up, down, both: give a speed such as 100Mbit/s or 20MiB/s, 1 octet to 1 Tbit per second";
    terms->speed[direction] = octets;
    return NULL;
}

static const char *set_speed_burst(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    uint64_t octets;
    if (!read_octets(value, LIMIT_SPEED_MAX, &octets) || octets == 0)
        return "up-burst, down-burst, both-burst: give octets such as 256KiB";
    terms->speed_burst[direction] = octets;
    return NULL;
}

static const char *set_quota(struct limit_terms *terms, enum limit_direction direction, struct span value)
{
    static const char wrong[] =
        "quota: give octets, in all or per period, such as 5GiB or 100GiB/month (hour, day, week)";
    bool slash = memchr(value.at, '/', value.size) != NULL;
    struct span name = cut_period(&value);
    unsigned period = slash ? 0 : LIMIT_EVER;
    while (period < LIMIT_EVER && !is(name, period_names[period])) period++;
    if (slash && period == LIMIT_EVER) return wrong;
    uint64_t octets;
    if (!read_octets(value, LIMIT_QUOTA_MAX, &octets)) return wrong;
    terms->quota[direction] = octets;
    terms->period[direction] = (uint8_t)period;
    return NULL;
}

typedef const char *term_setter(struct limit_terms *terms, enum limit_direction direction, struct span value);

#define TERM(name, set, direction)                                                                                     \
    {                                                                                                                  \
        name, name ": is given twice", set, direction                                                                  \
    }

static const struct {
    const char *name, *twice;
    term_setter *set;
    enum limit_direction direction;
} all_terms[] = {
    TERM("connections", set_connections, LIMIT_BOTH),
    TERM("half-open", set_half_open, LIMIT_BOTH),
    TERM("resolving", set_resolving, LIMIT_BOTH),
    TERM("rate", set_rate, LIMIT_BOTH),
    TERM("burst", set_burst, LIMIT_BOTH),
    TERM("up", set_speed, LIMIT_UP),
    TERM("down", set_speed, LIMIT_DOWN),
    TERM("both", set_speed, LIMIT_BOTH),
    TERM("up-burst", set_speed_burst, LIMIT_UP),
    TERM("down-burst", set_speed_burst, LIMIT_DOWN),
    TERM("both-burst", set_speed_burst, LIMIT_BOTH),
    TERM("quota-up", set_quota, LIMIT_UP),
    TERM("quota-down", set_quota, LIMIT_DOWN),
    TERM("quota", set_quota, LIMIT_BOTH),
};

#define TERMS (sizeof all_terms / sizeof *all_terms)

static_assert(TERMS <= 16, "limit_terms.given has a bit for each");

static const char *set_term(struct limit_terms *terms, struct span name, struct span value)
{
    size_t i = 0;
    while (i < TERMS && !is(name, all_terms[i].name)) i++;
    if (i == TERMS)
        return "an unknown term; give connections, half-open, resolving, rate, burst, up, down, both, quota, quota-up, "
               "quota-down, up-burst, down-burst or both-burst";
    if (terms->given & 1u << i) return all_terms[i].twice;
    const char *wrong = all_terms[i].set(terms, all_terms[i].direction, value);
    if (!wrong) terms->given |= (uint16_t)(1u << i);
    return wrong;
}

const char *limit_terms_set(struct limit_terms *terms, const char *name, size_t name_size, const char *value,
                            size_t value_size)
{
    char plain[16];
    if (name_size > sizeof plain) name_size = sizeof plain; /* no term is so long: unknown either way */
    for (size_t i = 0; i < name_size; i++) plain[i] = name[i] == '_' ? '-' : name[i];
    return set_term(terms, (struct span){plain, name_size}, (struct span){value, value_size});
}

const char *limit_terms_check(const struct limit_terms *terms)
{
    if (terms->burst > 0 && terms->rate == 0) return "burst: give a rate, too";
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (terms->speed_burst[d] > 0 && terms->speed[d] == 0)
            return "up-burst, down-burst, both-burst: give the speed of that direction, too";
    return limit_terms_are_empty(terms) ? "nothing is bounded; give connections, rate, up, down, both or quota" : NULL;
}

/* Before its request a client is known by its address alone. */
const char *limit_check(const struct limit_key *key, const struct limit_terms *terms)
{
    bool early = terms->half_open != LIMIT_CONNECTIONS_NONE || terms->resolving != LIMIT_CONNECTIONS_NONE;
    return early && key->kind != LIMIT_SOURCE ? "half-open, resolving: only a source can have them" : NULL;
}

/* --- whole texts --- */

static void skip_blanks(struct span *text)
{
    while (text->size > 0 && (*text->at == ' ' || *text->at == '\t')) {
        text->at++;
        text->size--;
    }
}

static struct span cut_word(struct span *text)
{
    struct span word = {text->at, 0};
    while (word.size < text->size && text->at[word.size] != ' ' && text->at[word.size] != '\t') word.size++;
    text->at += word.size;
    text->size -= word.size;
    return word;
}

static const char *read_terms(struct span text, struct limit_terms *terms)
{
    limit_terms_init(terms);
    for (skip_blanks(&text); text.size > 0; skip_blanks(&text)) {
        struct span word = cut_word(&text);
        const char *equals = memchr(word.at, '=', word.size);
        if (!equals) return "a term has no value; give terms such as connections=200 or down=100Mbit/s";
        size_t name = (size_t)(equals - word.at);
        const char *wrong = limit_terms_set(terms, word.at, name, equals + 1, word.size - name - 1);
        if (wrong) return wrong;
    }
    return limit_terms_check(terms);
}

const char *limit_terms_parse(const char *text, size_t size, struct limit_terms *terms)
{
    struct limit_terms read;
    const char *wrong = read_terms((struct span){text, size}, &read);
    if (!wrong) *terms = read;
    return wrong;
}

const char *limit_parse(const char *text, size_t size, struct limit_key *key, struct limit_terms *terms)
{
    struct span rest = {text, size};
    struct limit_key read;
    skip_blanks(&rest);
    struct span word = cut_word(&rest);
    if (word.size < 2 || word.at[word.size - 1] != ':') return "give KEY: TERMS, such as source: connections=200";
    const char *wrong = limit_key_parse(word.at, word.size - 1, &read);
    struct limit_terms values;
    if (!wrong) wrong = limit_terms_parse(rest.at, rest.size, &values);
    if (!wrong) wrong = limit_check(&read, &values);
    if (wrong) return wrong;
    *key = read;
    *terms = values;
    return NULL;
}

/* --- to text --- */

struct writer {
    char *out;
    size_t size, used;
};

static void write_term(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void write_term(struct writer *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (w->used > 0) w->out[w->used++] = ' ';
    w->used += (size_t)vsnprintf(w->out + w->used, w->size - w->used, format, arguments);
    va_end(arguments);
    assert(w->used < w->size);
}

static void write_direction(struct writer *w, const struct limit_terms *terms, enum limit_direction direction)
{
    static const char *const speeds[] = {"up", "down", "both"}, *const quotas[] = {"quota-up", "quota-down", "quota"};
    const char *period = period_names[terms->period[direction]];
    if (terms->speed[direction] > 0) write_term(w, "%s=%" PRIu64 "B/s", speeds[direction], terms->speed[direction]);
    if (terms->speed_burst[direction] > 0)
        write_term(w, "%s-burst=%" PRIu64 "B", speeds[direction], terms->speed_burst[direction]);
    if (terms->quota[direction] != LIMIT_QUOTA_NONE)
        write_term(w, "%s=%" PRIu64 "B%s%s", quotas[direction], terms->quota[direction], *period ? "/" : "", period);
}

size_t limit_terms_format(const struct limit_terms *terms, char *out, size_t size)
{
    struct writer w = {.out = out, .size = size};
    const char *per = terms->rate_seconds == 1 ? "s" : terms->rate_seconds == 60 ? "min" : "h";
    assert(size >= LIMIT_TERMS_TEXT_SIZE);
    out[0] = '\0';
    if (terms->connections != LIMIT_CONNECTIONS_NONE) write_term(&w, "connections=%" PRIu32, terms->connections);
    if (terms->half_open != LIMIT_CONNECTIONS_NONE) write_term(&w, "half-open=%" PRIu32, terms->half_open);
    if (terms->resolving != LIMIT_CONNECTIONS_NONE) write_term(&w, "resolving=%" PRIu32, terms->resolving);
    if (terms->rate > 0) write_term(&w, "rate=%" PRIu32 "/%s", terms->rate, per);
    if (terms->burst > 0) write_term(&w, "burst=%" PRIu32, terms->burst);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) write_direction(&w, terms, (enum limit_direction)d);
    return w.used;
}

#include "protocols/group_text.h"

#include <string.h>

#define PREFIX      "group:"
#define PREFIX_SIZE (sizeof PREFIX - 1)

static const char *const policy_names[] = {[GROUP_ROUND] = "round", [GROUP_LEAST] = "least", [GROUP_HASH] = "hash"};
static const char *const check_names[] = {[GROUP_CHECK_NONE] = "none",
                                          [GROUP_CHECK_TCP] = "tcp",
                                          [GROUP_CHECK_HTTP] = "http",
                                          [GROUP_CHECK_SOCKS5] = "socks5"};

const char *group_policy_name(enum group_policy policy)
{
    return policy_names[policy];
}

const char *group_check_name(enum group_check check)
{
    return check_names[check];
}

/* --- values --- */

static bool is_text(const char *text, size_t size, const char *wanted)
{
    return strlen(wanted) == size && memcmp(text, wanted, size) == 0;
}

static bool read_word(const char *text, size_t size, const char *const *words, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_text(text, size, words[i])) continue;
        *out = (uint8_t)i;
        return true;
    }
    return false;
}

/* Digits alone, `least` to `most`. */
static bool read_number(const char *text, size_t size, uint32_t least, uint32_t most, uint32_t *out)
{
    uint32_t value = 0;
    if (size == 0 || size > 9) return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    if (value < least || value > most) return false;
    *out = value;
    return true;
}

/* Seconds, with up to three digits behind a point, as milliseconds of `least` to `most`. */
static bool read_seconds(const char *text, size_t size, uint32_t least, uint32_t most, uint32_t *out)
{
    static const uint32_t scale[] = {1000, 100, 10, 1};
    const char *point = size > 0 ? memchr(text, '.', size) : NULL;
    size_t whole_size = point ? (size_t)(point - text) : size, digits = point ? size - whole_size - 1 : 0;
    uint32_t whole, part = 0;
    if (point && (digits == 0 || digits > 3)) return false;
    if (!read_number(text, whole_size, 0, 86400, &whole)) return false;
    if (point && !read_number(point + 1, digits, 0, 999, &part)) return false;
    uint32_t value = whole * 1000 + part * scale[digits];
    if (value < least || value > most) return false;
    *out = value;
    return true;
}

/* --- terms --- */

enum term {
    TERM_POLICY,
    TERM_CHECK,
    TERM_PATH,
    TERM_INTERVAL,
    TERM_CHECK_TIMEOUT,
    TERM_RISE,
    TERM_FALL,
    TERM_FAILS,
    TERM_WINDOW,
    TERM_EJECT,
    TERM_TRIES,
    TERM_TIMEOUT,
    TERM_WEIGHT, /* from here on: of a member */
    TERM_BACKUP,
    TERM_MAX,
    TERM_COUNT
};

static const struct {
    const char *name, *wrong;
} terms[TERM_COUNT] = {
    [TERM_POLICY] = {"policy", "policy: give round, least or hash"},
    [TERM_CHECK] = {"check", "check: give tcp, http, socks5 or none"},
    [TERM_PATH] = {"path", "path: give one of printable characters that begins with /, 127 octets at most"},
    [TERM_INTERVAL] = {"interval", "interval: give 0.1 to 3600 seconds"},
    [TERM_CHECK_TIMEOUT] = {"check-timeout", "check-timeout: give 0.1 to 60 seconds"},
    [TERM_RISE] = {"rise", "rise: give 1 to 100"},
    [TERM_FALL] = {"fall", "fall: give 1 to 100"},
    [TERM_FAILS] = {"fails", "fails: give 0 to 16"},
    [TERM_WINDOW] = {"window", "window: give 0.1 to 86400 seconds"},
    [TERM_EJECT] = {"eject", "eject: give 0.1 to 3600 seconds"},
    [TERM_TRIES] = {"tries", "tries: give 1 to 8"},
    [TERM_TIMEOUT] = {"timeout", "timeout: give 0.1 to 300 seconds"},
    [TERM_WEIGHT] = {"weight", "weight: give 1 to 256, behind a member"},
    [TERM_BACKUP] = {"backup", "backup: give yes or no, behind a member"},
    [TERM_MAX] = {"max", "max: give 0 (no bound) to 1000000, behind a member"},
};

/* TERM_COUNT: there is none of that name. */
static unsigned find_term(const char *name, size_t size)
{
    unsigned i = 0;
    for (; i < TERM_COUNT; i++) {
        size_t at = 0;
        if (strlen(terms[i].name) != size) continue;
        while (at < size && (name[at] == terms[i].name[at] || (name[at] == '_' && terms[i].name[at] == '-'))) at++;
        if (at == size) break;
    }
    return i;
}

static bool set_small(const char *value, size_t size, uint32_t least, uint32_t most, uint8_t *out)
{
    uint32_t number;
    if (!read_number(value, size, least, most, &number)) return false;
    *out = (uint8_t)number;
    return true;
}

static bool set_path(struct group_plan *plan, const char *value, size_t size)
{
    if (size == 0 || size > GROUP_PATH_MAX || value[0] != '/') return false;
    for (size_t i = 0; i < size; i++)
        if (value[i] <= ' ' || value[i] > '~') return false;
    memcpy(plan->path, value, size);
    plan->path[size] = '\0';
    return true;
}

static bool set_of_member(struct group_member_plan *member, enum term term, const char *value, size_t size)
{
    uint32_t number;
    if (term == TERM_BACKUP) {
        bool yes = is_text(value, size, "yes") || is_text(value, size, "true");
        if (!yes && !is_text(value, size, "no") && !is_text(value, size, "false")) return false;
        member->backup = yes;
        return true;
    }
    if (term == TERM_MAX) return read_number(value, size, 0, 1000000, &member->most);
    if (!read_number(value, size, 1, GROUP_WEIGHT_MAX, &number)) return false;
    member->weight = (uint16_t)number;
    return true;
}

static bool set_of_group(struct group_plan *plan, enum term term, const char *value, size_t size)
{
    switch (term) {
    case TERM_POLICY: return read_word(value, size, policy_names, 3, &plan->policy);
    case TERM_CHECK: return read_word(value, size, check_names, 4, &plan->check);
    case TERM_PATH: return set_path(plan, value, size);
    case TERM_INTERVAL: return read_seconds(value, size, 100, 3600000, &plan->interval_ms);
    case TERM_CHECK_TIMEOUT: return read_seconds(value, size, 100, 60000, &plan->check_timeout_ms);
    case TERM_RISE: return set_small(value, size, 1, 100, &plan->rise);
    case TERM_FALL: return set_small(value, size, 1, 100, &plan->fall);
    case TERM_FAILS: return set_small(value, size, 0, GROUP_FAILS_MAX, &plan->fails);
    case TERM_WINDOW: return read_seconds(value, size, 100, 86400000, &plan->window_ms);
    case TERM_EJECT: return read_seconds(value, size, 100, 3600000, &plan->eject_ms);
    case TERM_TRIES: return set_small(value, size, 1, GROUP_TRIES_MAX, &plan->tries);
    case TERM_TIMEOUT: return read_seconds(value, size, 100, 300000, &plan->timeout_ms);
    default: return false;
    }
}

const char *group_plan_set(struct group_plan *plan, const char *name, size_t name_size, const char *value,
                           size_t value_size)
{
    unsigned term = find_term(name, name_size);
    if (term == TERM_COUNT)
        return "unknown term, give policy, check, path, interval, check-timeout, rise, fall, fails, window, eject, "
               "tries, timeout, or behind a member weight, backup, max";
    bool of_member = term >= TERM_WEIGHT;
    if (of_member && plan->count == 0) return terms[term].wrong;
    struct group_member_plan *member = of_member ? &plan->members[plan->count - 1] : NULL;
    uint32_t *given = of_member ? &member->given : &plan->given;
    if (*given & 1u << term) return "a term is given twice";
    bool good = of_member ? set_of_member(member, (enum term)term, value, value_size)
                          : set_of_group(plan, (enum term)term, value, value_size);
    if (!good) return terms[term].wrong;
    *given |= 1u << term;
    return NULL;
}

bool group_term_is_of_member(const char *name, size_t size)
{
    unsigned term = find_term(name, size);
    return term >= TERM_WEIGHT && term < TERM_COUNT;
}

/* --- names and members --- */

#define WRONG_NAME "the name of a group is 1 to 31 letters, digits, -, _ and ., and begins with a letter"

/* It begins with a letter: `group:80` is a host and its port. */
static bool is_name(const char *name, size_t size)
{
    if (size == 0 || size > GROUP_NAME_MAX) return false;
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool inner = (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (!letter && (i == 0 || !inner)) return false;
    }
    return true;
}

void group_plan_init(struct group_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->tries = 3;
    plan->timeout_ms = 5000;
    plan->fails = 3;
    plan->window_ms = 30000;
    plan->eject_ms = 10000;
    plan->interval_ms = 10000;
    plan->check_timeout_ms = 3000;
    plan->rise = 2;
    plan->fall = 3;
    memcpy(plan->path, "/", 2);
}

const char *group_plan_name(struct group_plan *plan, const char *name, size_t size)
{
    if (!is_name(name, size)) return WRONG_NAME;
    memcpy(plan->name, name, size);
    plan->name[size] = '\0';
    return NULL;
}

/* It stands in URLs, labels and logs as it is. */
static bool is_plain_host(const struct address *address)
{
    if (address->kind != ADDRESS_NAME) return true;
    for (const char *at = address->name; *at; at++) {
        bool letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z');
        if (!letter && !(*at >= '0' && *at <= '9') && *at != '-' && *at != '_' && *at != '.') return false;
    }
    return true;
}

static bool has_scheme(const char *text, size_t size)
{
    return size >= 3 && memmem(text, size, "://", 3) != NULL;
}

const char *group_plan_add(struct group_plan *plan, const char *member, size_t size)
{
    struct group_member_plan fresh = {.weight = 1};
    const char *wrong = NULL;
    bool target = !has_scheme(member, size);
    if (plan->count == GROUP_MEMBERS_MAX) return "a group has 64 members at most";
    if (!target)
        wrong = proxy_uri_parse(member, size, &fresh.uri);
    else if (!address_parse(member, size, ADDRESS_PORT_REQUIRED, 0, &fresh.uri.address) || fresh.uri.address.port == 0)
        wrong = "a member is neither a proxy's URI nor host:port";
    if (wrong) return wrong;
    if (!is_plain_host(&fresh.uri.address)) return "a member's host is an address, or letters, digits, -, _ and .";
    if (plan->count > 0 && target != plan->targets) return "a group has proxies or targets (host:port), not both";
    for (unsigned i = 0; i < plan->count; i++)
        if (address_equal(&plan->members[i].uri.address, &fresh.uri.address))
            return "two members have the same host and port";
    plan->targets = target;
    plan->members[plan->count++] = fresh;
    return NULL;
}

const char *group_plan_check(const struct group_plan *plan)
{
    bool checked = plan->check != GROUP_CHECK_NONE, plain = true;
    uint32_t of_checks =
        1u << TERM_PATH | 1u << TERM_INTERVAL | 1u << TERM_CHECK_TIMEOUT | 1u << TERM_RISE | 1u << TERM_FALL;
    if (plan->name[0] == '\0') return "the name is missing";
    if (plan->count == 0) return "a group needs a member: a proxy's URI, or host:port";
    for (unsigned i = 0; i < plan->count; i++) plain = plain && plan->members[i].backup;
    if (plain) return "all members are backups, leave one without";
    if (!checked && plan->given & of_checks)
        return "path, interval, check-timeout, rise and fall are of checks, give check";
    if (plan->given & 1u << TERM_PATH && (!plan->targets || plan->check != GROUP_CHECK_HTTP))
        return "path is of HTTP checks of targets, leave it out";
    if (plan->targets && plan->check == GROUP_CHECK_SOCKS5) return "targets are no proxies, give check=tcp or http";
    for (unsigned i = 0; i < plan->count && checked && !plan->targets; i++) {
        enum proxy_scheme scheme = plan->members[i].uri.scheme;
        if (plan->check == GROUP_CHECK_SOCKS5 && scheme != PROXY_SOCKS5)
            return "check=socks5 is for members that are socks5://, give check=tcp";
        if (plan->check == GROUP_CHECK_HTTP && scheme != PROXY_HTTP)
            return "check=http is for members that are http://, give check=tcp or socks5";
    }
    return NULL;
}

/* --- the whole text --- */

/* The size of a term's name at the front of a piece that is one, or 0: it is a member. */
static size_t term_size(const char *piece, size_t size)
{
    size_t at = 0;
    while (at < size && ((piece[at] >= 'a' && piece[at] <= 'z') || piece[at] == '-' || piece[at] == '_')) at++;
    return at < size && piece[at] == '=' ? at : 0;
}

static const char *take_piece(struct group_plan *plan, const char *piece, size_t size)
{
    while (size > 0 && *piece == ' ') piece++, size--;
    while (size > 0 && piece[size - 1] == ' ') size--;
    if (size == 0) return "there is nothing between two commas";
    size_t name = term_size(piece, size);
    if (name > 0) return group_plan_set(plan, piece, name, piece + name + 1, size - name - 1);
    return group_plan_add(plan, piece, size);
}

const char *group_parse(const char *text, size_t size, struct group_plan *plan)
{
    group_plan_init(plan);
    const char *equals = size > 0 ? memchr(text, '=', size) : NULL, *end = text + size;
    if (!equals) return "write NAME=MEMBER,MEMBER,...";
    const char *wrong = group_plan_name(plan, text, (size_t)(equals - text));
    for (const char *at = equals + 1; !wrong; at++) {
        const char *comma = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL, *stop = comma ? comma : end;
        wrong = take_piece(plan, at, (size_t)(stop - at));
        if (!comma) break;
        at = comma;
    }
    return wrong ? wrong : group_plan_check(plan);
}

/* --- where a group is used --- */

bool group_address_parse(const char *text, size_t size, struct address *out)
{
    if (size <= PREFIX_SIZE || memcmp(text, PREFIX, PREFIX_SIZE) != 0) return false;
    if (!is_name(text + PREFIX_SIZE, size - PREFIX_SIZE)) return false;
    *out = (struct address){.kind = ADDRESS_GROUP, .name_size = (uint8_t)(size - PREFIX_SIZE)};
    memcpy(out->name, text + PREFIX_SIZE, size - PREFIX_SIZE);
    return true;
}

const char *group_hop_parse(const char *text, size_t size, struct proxy_uri *out)
{
    struct address group;
    bool named = size >= PREFIX_SIZE && memcmp(text, PREFIX, PREFIX_SIZE) == 0;
    if (!named) return proxy_uri_parse(text, size, out);
    if (!group_address_parse(text, size, &group)) return WRONG_NAME;
    *out = (struct proxy_uri){.address = group};
    return NULL;
}

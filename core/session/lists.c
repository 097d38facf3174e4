#include "core/session/lists.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/idn.h"
#include "core/session/lists_private.h"
#include "core/session/policy.h"
#include "protocols/subnet.h"

/* --- holding --- */

size_t list_side_entries(const struct list_side *side)
{
    return side ? side->entries : 0;
}

struct list_side *list_side_hold(struct list_side *side)
{
    if (side) side->holders++;
    return side;
}

void list_side_release(struct list_side *side)
{
    if (!side || --side->holders > 0) return;
    for (size_t i = 0; i < sizeof side->memory / sizeof *side->memory; i++) free(side->memory[i]);
    free(side->rows);
    free(side->ranges);
    free(side);
}

size_t lists_entries(const struct lists *lists)
{
    size_t sum = 0;
    for (unsigned subject = 0; lists && subject < LIST_SUBJECTS; subject++)
        for (unsigned scope = 0; scope < LIST_SCOPES; scope++) sum += list_side_entries(lists->sides[subject][scope]);
    return sum;
}

static void meters_release(struct list_meters *meters)
{
    if (meters && --meters->holders == 0) free(meters);
}

struct lists *lists_new(void)
{
    struct lists *lists = calloc(1, sizeof *lists);
    struct list_meters *meters = calloc(1, sizeof *meters);
    if (!lists || !meters) {
        free(lists);
        free(meters);
        return NULL;
    }
    lists->holders = meters->holders = 1;
    lists->revision = 1;
    lists->meters = meters;
    return lists;
}

void lists_follow(struct lists *fresh, struct lists *old)
{
    if (!fresh || !old || fresh == old) return;
    meters_release(fresh->meters);
    fresh->meters = old->meters;
    fresh->meters->holders++;
    fresh->revision = old->revision + 1;
}

struct lists *lists_hold(struct lists *lists)
{
    if (lists) lists->holders++;
    return lists;
}

void lists_release(struct lists *lists)
{
    if (!lists || --lists->holders > 0) return;
    for (unsigned subject = 0; subject < LIST_SUBJECTS; subject++)
        for (unsigned scope = 0; scope < LIST_SCOPES; scope++) list_side_release(lists->sides[subject][scope]);
    meters_release(lists->meters);
    free(lists);
    (void)malloc_trim(0); /* a million entries are some 50 MiB, which the C library would keep for later */
}

/* --- what a side says --- */

static const struct list_range *row_find(const struct list_side *side, const struct list_row *row, uint16_t port)
{
    size_t low = row->first, high = row->first + row->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct list_range *range = &side->ranges[middle];
        if (port < range->from)
            high = middle;
        else if (port > range->to)
            low = middle + 1;
        else
            return range;
    }
    return NULL;
}

/* Rows around rows are of networks around networks: there is an end. */
static uint32_t says_of_port(const struct list_side *side, uint32_t says, uint16_t port)
{
    while (says >= SAYS_BY_PORT) {
        const struct list_row *row = &side->rows[says - SAYS_BY_PORT];
        const struct list_range *range = row_find(side, row, port);
        says = range ? range->says : row->around;
    }
    return says;
}

static uint32_t says_of_name(const struct list_side *side, const char *name, size_t size, uint16_t port)
{
    uint32_t says = says_of_port(side, side->all, port);
    const uint8_t *found;
    bool whole;
    if (side->names.mask == 0) return says;
    struct name_walk walk = name_walk_begin(&side->names, name, size);
    while ((found = name_walk_next(&walk, &whole)) != NULL) { /* a longer one takes the place of those before */
        struct list_payload payload;
        memcpy(&payload, found, sizeof payload);
        uint32_t suffix = says_of_port(side, payload.suffix, port);
        uint32_t exact = whole ? says_of_port(side, payload.exact, port) : SAYS_NOTHING;
        if (suffix != SAYS_NOTHING) says = suffix;
        if (exact != SAYS_NOTHING) says = exact;
    }
    return says;
}

static uint32_t says_of_ipv4(const struct list_side *side, const uint8_t octets[4], uint16_t port)
{
    return says_of_port(side, prefix_table_find(&side->ipv4, number_of_octets(octets, 4)), port);
}

static uint32_t says_of_ipv6(const struct list_side *side, const uint8_t octets[16], uint16_t port)
{
    return says_of_port(side, prefix_table_find(&side->ipv6, number_of_octets(octets, 16)), port);
}

static bool is_mapped(const uint8_t octets[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(octets, prefix, sizeof prefix) == 0;
}

/* carries: what is inside counts, too. */
static uint32_t says_of_address(const struct list_side *side, const struct address *address, bool carries)
{
    uint8_t inside[4];
    uint32_t says;
    if (address->kind == ADDRESS_IPV4) {
        says = says_of_ipv4(side, address->ipv4, address->port);
    } else if (is_mapped(address->ipv6)) {
        says = says_of_ipv4(side, address->ipv6 + 12, address->port);
    } else {
        says = says_of_ipv6(side, address->ipv6, address->port);
        if (carries && policy_carried(address, inside)) {
            uint32_t other = says_of_ipv4(side, inside, address->port);
            says = says > other ? says : other; /* a denial of either is one */
        }
    }
    return says != SAYS_NOTHING ? says : says_of_port(side, side->all, address->port);
}

/* A name of a client is what the DNS would be asked for: without the dot at its end, and in ASCII where it can be. */
static uint32_t says_of_host(const struct list_side *side, const struct address *target)
{
    char ascii[IDN_NAME_SIZE];
    const char *name = target->name;
    size_t size = target->name_size;
    bool foreign = false;
    if (size > 0 && name[size - 1] == '.') size--;
    for (size_t i = 0; i < size; i++) foreign |= (unsigned char)name[i] >= 0x80;
    if (foreign && idn_to_ascii(name, size, ascii)) {
        name = ascii;
        size = strlen(ascii);
    }
    return says_of_name(side, name, size, target->port);
}

/* --- what comes of it --- */

static const struct list_side *side_at(const struct lists *lists, enum list_subject subject, unsigned scope)
{
    assert(scope < LIST_SCOPES);
    return lists->sides[subject][scope];
}

/* Returns `passes`, and counts where it does not. */
static bool meter(const struct lists *lists, enum list_subject subject, unsigned scope, bool passes)
{
    if (!passes) atomic_fetch_add_explicit(&lists->meters->denied[subject][scope], 1, memory_order_relaxed);
    return passes;
}

static bool side_admits_client(const struct list_side *side, const struct address *client)
{
    if (!side) return true;
    uint32_t says = says_of_address(side, client, false);
    return says == SAYS_ALLOW || (says == SAYS_NOTHING && !side->selects);
}

bool lists_admit_client(const struct lists *lists, unsigned listener, const struct address *client)
{
    if (!lists) return true;
    assert(client->kind == ADDRESS_IPV4 || client->kind == ADDRESS_IPV6);
    for (unsigned i = 0; i < 2; i++) {
        unsigned scope = i == 0 ? LIST_SCOPE_PROCESS : listener;
        bool passes = side_admits_client(side_at(lists, LIST_CLIENTS, scope), client);
        if (!meter(lists, LIST_CLIENTS, scope, passes)) return false;
    }
    return true;
}

static uint32_t says_of_target(const struct list_side *side, const struct address *target)
{
    return target->kind == ADDRESS_NAME ? says_of_host(side, target) : says_of_address(side, target, true);
}

static bool side_admits_target(const struct list_side *side, const struct address *target, bool *allowed, bool last)
{
    bool named = target->kind == ADDRESS_NAME;
    if (!side) return true;
    uint32_t says = says_of_target(side, target);
    if (says == SAYS_DENY) return false;
    *allowed |= says == SAYS_ALLOW;
    return *allowed || !side->selects || !(last || (named && !side->by_place));
}

bool lists_admit_target(const struct lists *lists, unsigned listener, const struct address *target, uint8_t *allowed,
                        bool last)
{
    if (!lists) return true;
    assert(target->kind == ADDRESS_NAME || target->kind == ADDRESS_IPV4 || target->kind == ADDRESS_IPV6);
    for (unsigned i = 0; i < 2; i++) {
        unsigned scope = i == 0 ? LIST_SCOPE_PROCESS : listener;
        bool here = (*allowed >> i & 1) != 0;
        bool passes = side_admits_target(side_at(lists, LIST_TARGETS, scope), target, &here, last);
        if (here) *allowed |= (uint8_t)(1u << i);
        if (!meter(lists, LIST_TARGETS, scope, passes)) return false;
    }
    return true;
}

enum list_word lists_say(const struct lists *lists, enum list_subject subject, unsigned scope,
                         const struct address *address, enum list_verdict *verdict)
{
    static const enum list_word words[] = {
        [SAYS_NOTHING] = LIST_WORD_NONE, [SAYS_ALLOW] = LIST_WORD_ALLOW, [SAYS_DENY] = LIST_WORD_DENY};
    const struct list_side *side = lists ? side_at(lists, subject, scope) : NULL;
    *verdict = LIST_ALLOWED;
    if (!side) return LIST_WORD_NONE;
    bool allowed = false, targets = subject == LIST_TARGETS;
    if (!targets && !side_admits_client(side, address)) *verdict = LIST_DENIED;
    if (targets && !side_admits_target(side, address, &allowed, true)) {
        allowed = false;
        bool later = address->kind == ADDRESS_NAME && side_admits_target(side, address, &allowed, false);
        *verdict = later ? LIST_BY_ADDRESS : LIST_DENIED;
    }
    return words[targets ? says_of_target(side, address) : says_of_address(side, address, false)];
}

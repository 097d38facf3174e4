/* A side is built in two walks over its parts: one that judges and counts, so that each table has its memory, and one
 * that fills. Entries without ports say what they say at once; those with ports wait until all of their group, the same
 * network or name, are there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/idn.h"
#include "core/session/lists.h"
#include "core/session/lists_private.h"
#include "protocols/list_text.h"

#define ENTRIES_MAX (UINT32_MAX / 8) /* of a side: what counts them has room, and so have their tables */
#define GROUP_ALL   0u               /* of entries for everything: no name stands at that place of the text */
#define PORT_EDGES  (LIST_PORT_MAX + 2u)

/* An entry with ports. group  of names: the place of the payload's member in the table's text. */
struct list_item {
    uint64_t group;
    uint16_t from, to;
    bool denies;
};

/* How many entries with ports begin, less those that have ended, at each port. */
struct port_sweep {
    int32_t change[2][PORT_EDGES]; /* allow, deny */
};

struct list_build {
    struct list_side *side;
    bool targets;
    size_t counts[LIST_ENTRY_ALL + 1]; /* by enum list_entry_kind */
    size_t with_ports;
    struct name_room room;
    struct prefix *networks[2]; /* IPv4, IPv6. Their tags: SAYS_ALLOW, SAYS_DENY, or SAYS_BY_PORT + index of items */
    size_t network_count[2];
    struct list_item *items, *name_items; /* with ports: of networks; of names and of everything */
    size_t item_count, name_item_count;
    struct list_item *group; /* of a network, as they lie scattered */
    uint32_t *edges;
    struct port_sweep *sweep;
};

/* --- entries with ports --- */

static int compare_edges(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Ports at which something begins or has ended, ascending; the sweep knows what. */
static size_t sweep_fill(struct list_build *b, const struct list_item *items, size_t count)
{
    size_t edges = 0, kept = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t *change = b->sweep->change[items[i].denies];
        uint32_t behind = items[i].to + UINT32_C(1);
        change[items[i].from]++;
        change[behind]--;
        b->edges[edges++] = items[i].from;
        b->edges[edges++] = behind;
    }
    qsort(b->edges, edges, sizeof *b->edges, compare_edges);
    for (size_t i = 0; i < edges; i++)
        if (i == 0 || b->edges[i] != b->edges[kept - 1]) b->edges[kept++] = b->edges[i];
    return kept;
}

/* Makes a row of a group: where two say something of the same port, deny holds. */
static uint32_t settle_ports(struct list_build *b, const struct list_item *items, size_t count, uint32_t around)
{
    struct list_side *side = b->side;
    struct list_row *row = &side->rows[side->row_count];
    size_t edges = sweep_fill(b, items, count);
    int32_t held[2] = {0, 0};
    *row = (struct list_row){.first = (uint32_t)side->range_count, .around = around};
    for (size_t i = 0; i < edges; i++) {
        for (unsigned denies = 0; denies < 2; denies++) {
            held[denies] += b->sweep->change[denies][b->edges[i]];
            b->sweep->change[denies][b->edges[i]] = 0;
        }
        if (held[0] + held[1] == 0) continue; /* as it is behind the last edge */
        side->ranges[side->range_count++] = (struct list_range){.from = (uint16_t)b->edges[i],
                                                                .to = (uint16_t)(b->edges[i + 1] - 1),
                                                                .says = held[1] > 0 ? SAYS_DENY : SAYS_ALLOW};
    }
    row->count = (uint32_t)side->range_count - row->first;
    return SAYS_BY_PORT + (uint32_t)side->row_count++;
}

/* base  what those of the group say that have no ports. */
static uint32_t settle(struct list_build *b, const struct list_item *items, size_t count, uint32_t base,
                       uint32_t around)
{
    if (count == 0 || base == SAYS_DENY) return base;
    return settle_ports(b, items, count, base == SAYS_NOTHING ? around : base);
}

static uint32_t network_value(void *context, const struct prefix *same, size_t count, uint32_t around)
{
    struct list_build *b = context;
    uint32_t base = SAYS_NOTHING;
    size_t with_ports = 0;
    for (size_t i = 0; i < count; i++) {
        if (same[i].tag >= SAYS_BY_PORT)
            b->group[with_ports++] = b->items[same[i].tag - SAYS_BY_PORT];
        else if (same[i].tag > base)
            base = same[i].tag;
    }
    return settle(b, b->group, with_ports, base, around);
}

static int compare_items(const void *a, const void *b)
{
    const struct list_item *left = a, *right = b;
    return left->group < right->group ? -1 : left->group > right->group;
}

static void settle_names(struct list_build *b)
{
    struct list_side *side = b->side;
    qsort(b->name_items, b->name_item_count, sizeof *b->name_items, compare_items);
    for (size_t i = 0, same; i < b->name_item_count; i += same) {
        const struct list_item *items = &b->name_items[i];
        for (same = 1; i + same < b->name_item_count && items[same].group == items[0].group;) same++;
        uint32_t says;
        void *place = items[0].group == GROUP_ALL ? (void *)&side->all : side->names.text + items[0].group;
        memcpy(&says, place, sizeof says);
        says = settle(b, items, same, says, SAYS_NOTHING);
        memcpy(place, &says, sizeof says);
    }
}

/* --- the walks --- */

/* The name as the DNS knows it; NULL: it has no such form. */
static const char *ascii_name(const struct list_entry *entry, char ascii[IDN_NAME_SIZE], size_t *size)
{
    *size = entry->name_size;
    if (!entry->foreign) return entry->name;
    if (!idn_to_ascii(entry->name, entry->name_size, ascii)) return NULL;
    *size = strlen(ascii);
    return ascii;
}

static const char *count_entry(struct list_build *b, const struct list_entry *entry, bool denies)
{
    char ascii[IDN_NAME_SIZE];
    size_t size;
    bool named = entry->kind == LIST_ENTRY_NAME || entry->kind == LIST_ENTRY_SUFFIX;
    if (named && !ascii_name(entry, ascii, &size)) return "this name has no form that the DNS knows (IDNA)";
    if (named) name_room_add(&b->room, size, sizeof(struct list_payload));
    b->counts[entry->kind]++;
    b->with_ports += list_entry_has_ports(entry);
    b->side->entries++;
    b->side->selects |= !denies;
    b->side->by_place |= !denies && !named;
    return NULL;
}

static void fill_payload(struct list_build *b, const struct list_entry *entry, const struct list_item *item)
{
    char ascii[IDN_NAME_SIZE];
    size_t size;
    uint32_t says, fresh = item->denies ? SAYS_DENY : SAYS_ALLOW;
    uint8_t *place = (uint8_t *)&b->side->all;
    if (entry->kind != LIST_ENTRY_ALL) {
        const char *name = ascii_name(entry, ascii, &size);
        place = name_table_add(&b->side->names, name, size);
        place += entry->kind == LIST_ENTRY_NAME ? offsetof(struct list_payload, exact) : 0;
    }
    if (list_entry_has_ports(entry)) {
        struct list_item *kept = &b->name_items[b->name_item_count++];
        *kept = *item;
        kept->group = entry->kind == LIST_ENTRY_ALL ? GROUP_ALL : (uint64_t)(place - b->side->names.text);
        return;
    }
    memcpy(&says, place, sizeof says);
    if (fresh > says) memcpy(place, &fresh, sizeof fresh);
}

static void fill_entry(struct list_build *b, const struct list_entry *entry, bool denies)
{
    struct list_item item = {.from = entry->from, .to = entry->to, .denies = denies};
    if (entry->kind != LIST_ENTRY_IPV4 && entry->kind != LIST_ENTRY_IPV6) {
        fill_payload(b, entry, &item);
        return;
    }
    uint32_t tag = denies ? SAYS_DENY : SAYS_ALLOW;
    if (list_entry_has_ports(entry)) {
        tag = SAYS_BY_PORT + (uint32_t)b->item_count;
        b->items[b->item_count++] = item;
    }
    unsigned table = entry->kind == LIST_ENTRY_IPV6;
    b->networks[table][b->network_count[table]++] =
        (struct prefix){.first = entry->first, .tag = tag, .bits = entry->bits};
}

/* Everything is judged in the first walk: the second finds no fault. */
static int walk_part(struct list_build *b, struct list_part *part, bool fills, struct list_fault *fault)
{
    const char *at = part->text, *end = part->text + part->size, *line;
    struct list_entry entry;
    size_t size;
    if (!fills) b->side->selects |= !part->denies; /* a list without entries, too */
    for (unsigned number = 1; (line = list_next_line(&at, end, &size)) != NULL; number++) {
        if (size == 0) continue;
        const char *wrong = list_parse_entry(line, size, b->targets, &entry);
        if (!wrong && fills)
            fill_entry(b, &entry, part->denies);
        else if (!wrong)
            wrong = count_entry(b, &entry, part->denies);
        if (wrong) {
            *fault = (struct list_fault){.line = number, .entry = line, .entry_size = size, .wrong = wrong};
            return -EINVAL;
        }
        if (!fills && b->side->entries > ENTRIES_MAX) return -E2BIG;
        part->entries += !fills;
    }
    return 0;
}

static int walk(struct list_build *b, struct list_part *parts, size_t count, bool fills, struct list_fault *fault)
{
    for (size_t i = 0; i < count; i++) {
        int error = walk_part(b, &parts[i], fills, fault);
        if (error < 0) {
            if (error == -EINVAL) fault->part = i;
            return error;
        }
    }
    return 0;
}

/* --- memory --- */

static void *reserve(size_t count, size_t size)
{
    return calloc(count + 1, size); /* at least one: none is no failure */
}

static bool reserve_side(struct list_build *b)
{
    struct list_side *side = b->side;
    size_t slots = name_room_slots(&b->room);
    side->memory[0] = malloc(prefix_table_size(b->counts[LIST_ENTRY_IPV4]));
    side->memory[1] = malloc(prefix_table_size(b->counts[LIST_ENTRY_IPV6]));
    if (!side->memory[0] || !side->memory[1]) return false;
    side->rows = reserve(b->with_ports, sizeof *side->rows);
    side->ranges = reserve(2 * b->with_ports, sizeof *side->ranges);
    if (!side->rows || !side->ranges) return false;
    if (b->room.count == 0) return true;
    side->memory[2] = slots < SIZE_MAX ? malloc(slots) : NULL;
    side->memory[3] = malloc(b->room.text);
    if (!side->memory[2] || !side->memory[3]) return false;
    name_table_init(&side->names, &b->room, sizeof(struct list_payload), side->memory[2], side->memory[3]);
    return true;
}

static bool reserve_build(struct list_build *b)
{
    b->networks[0] = reserve(b->counts[LIST_ENTRY_IPV4], sizeof *b->networks[0]);
    b->networks[1] = reserve(b->counts[LIST_ENTRY_IPV6], sizeof *b->networks[1]);
    b->items = reserve(b->with_ports, sizeof *b->items);
    b->name_items = reserve(b->with_ports, sizeof *b->name_items);
    b->group = reserve(b->with_ports, sizeof *b->group);
    b->edges = reserve(2 * b->with_ports, sizeof *b->edges);
    b->sweep = reserve(1, sizeof *b->sweep);
    return b->networks[0] && b->networks[1] && b->items && b->name_items && b->group && b->edges && b->sweep;
}

static void build_free(struct list_build *b)
{
    free(b->networks[0]);
    free(b->networks[1]);
    free(b->items);
    free(b->name_items);
    free(b->group);
    free(b->edges);
    free(b->sweep);
}

static int build(struct list_build *b, struct list_part *parts, size_t count, struct list_fault *fault)
{
    struct list_side *side = b->side;
    int error = walk(b, parts, count, false, fault);
    if (error == 0 && b->room.count > 0 && name_room_slots(&b->room) == SIZE_MAX) error = -E2BIG;
    if (error == 0 && (!reserve_side(b) || !reserve_build(b))) error = -ENOMEM;
    if (error < 0) return error;
    (void)walk(b, parts, count, true, fault);
    prefix_table_build(&side->ipv4, side->memory[0], b->networks[0], b->network_count[0], network_value, b);
    prefix_table_build(&side->ipv6, side->memory[1], b->networks[1], b->network_count[1], network_value, b);
    settle_names(b);
    return 0;
}

int list_side_build(enum list_subject subject, struct list_part *parts, size_t count, struct list_side **side,
                    struct list_fault *fault)
{
    struct list_build b = {.targets = subject == LIST_TARGETS, .room = name_room_begin()};
    *side = NULL;
    if (count == 0) return 0;
    b.side = calloc(1, sizeof *b.side);
    if (!b.side) return -ENOMEM;
    b.side->holders = 1;
    int error = build(&b, parts, count, fault);
    build_free(&b);
    if (error < 0)
        list_side_release(b.side);
    else
        *side = b.side;
    return error;
}

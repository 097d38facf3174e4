#include "core/io/name_table.h"

#include <string.h>
#include <sys/random.h>

#define FACTOR_LEAST UINT64_C(0x100000001) /* odd, and never small */

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet + 32) : octet;
}

static uint64_t hash_octet(const struct name_table *t, uint64_t state, uint8_t octet)
{
    return (state ^ lower(octet)) * t->factor;
}

/* The low bits of a product know only the low bits of what went into it. */
static uint32_t hash_end(uint64_t state)
{
    return (uint32_t)((state ^ state >> 32) * 0xd6e8feb86659fd93u >> 32);
}

static uint32_t hash_name(const struct name_table *t, const uint8_t *name, size_t size)
{
    uint64_t state = t->start;
    while (size > 0) state = hash_octet(t, state, name[--size]);
    return hash_end(state);
}

const char *name_trim(const char *name, size_t *size)
{
    if (*size > 0 && *name == '.') name++, (*size)--;
    if (*size > 0 && name[*size - 1] == '.') (*size)--;
    return name;
}

/* --- room --- */

void name_room_add(struct name_room *room, size_t name_size, uint32_t payload)
{
    room->count++;
    room->text += 1 + name_size + payload;
}

static size_t room_slots(const struct name_room *room)
{
    size_t slots = 8;
    while (slots < room->count * 2) slots *= 2;
    return slots;
}

size_t name_room_slots(const struct name_room *room)
{
    if (room->count > UINT32_MAX / 8 || room->text > UINT32_MAX) return SIZE_MAX;
    return room_slots(room) * sizeof(struct name_slot);
}

void name_table_init(struct name_table *table, const struct name_room *room, uint32_t payload, void *slots,
                     uint8_t *text)
{
    uint64_t random[2] = {(uintptr_t)table, (uintptr_t)slots};
    (void)!getrandom(random, sizeof random, GRND_NONBLOCK);
    *table = (struct name_table){.start = random[0],
                                 .factor = random[1] | FACTOR_LEAST,
                                 .mask = (uint32_t)(room_slots(room) - 1),
                                 .payload = payload,
                                 .slots = slots,
                                 .text = text,
                                 .text_used = 1,
                                 .text_size = room->text};
    memset(slots, 0, room_slots(room) * sizeof *table->slots);
}

/* --- slots --- */

static bool slot_is(const struct name_table *t, const struct name_slot *slot, const uint8_t *name, size_t size)
{
    const uint8_t *text = t->text + slot->offset;
    if (text[0] != size) return false;
    for (size_t i = 0; i < size; i++)
        if (text[1 + i] != lower(name[i])) return false;
    return true;
}

/* The slot of that name, or the free one where it would stand. */
static struct name_slot *slot_find(const struct name_table *t, const uint8_t *name, size_t size, uint32_t hash)
{
    for (uint32_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        struct name_slot *slot = &t->slots[i];
        if (slot->offset == 0 || (slot->hash == hash && slot_is(t, slot, name, size))) return slot;
    }
}

static uint8_t *slot_payload(const struct name_table *t, const struct name_slot *slot)
{
    uint8_t *text = t->text + slot->offset;
    return text + 1 + text[0];
}

static unsigned count_labels(const char *name, size_t size)
{
    unsigned labels = 1;
    for (size_t i = 0; i < size; i++) labels += name[i] == '.';
    return labels;
}

uint8_t *name_table_add(struct name_table *t, const char *name, size_t size)
{
    const uint8_t *octets = (const uint8_t *)name;
    uint32_t hash = hash_name(t, octets, size);
    struct name_slot *slot = slot_find(t, octets, size, hash);
    if (slot->offset != 0) return slot_payload(t, slot);
    if (1 + size + t->payload > t->text_size - t->text_used || t->count > t->mask / 2) return NULL;
    *slot = (struct name_slot){hash, (uint32_t)t->text_used};
    t->text[t->text_used++] = (uint8_t)size;
    for (size_t i = 0; i < size; i++) t->text[t->text_used++] = lower(octets[i]);
    memset(t->text + t->text_used, 0, t->payload);
    t->text_used += t->payload;
    t->count++;
    unsigned labels = count_labels(name, size);
    if (labels > t->labels) t->labels = labels;
    return slot_payload(t, slot);
}

/* --- looking up --- */

struct name_walk name_walk_begin(const struct name_table *table, const char *host, size_t size)
{
    size_t stop = size > NAME_TABLE_NAME_MAX ? size - NAME_TABLE_NAME_MAX : 0; /* no name is longer */
    return (struct name_walk){
        .table = table, .host = (const uint8_t *)host, .at = size, .stop = stop, .size = size, .state = table->start};
}

const uint8_t *name_walk_next(struct name_walk *walk, bool *whole)
{
    const struct name_table *t = walk->table;
    while (walk->at > walk->stop && walk->labels < t->labels) {
        size_t at = --walk->at;
        walk->state = hash_octet(t, walk->state, walk->host[at]);
        if (at > 0 && walk->host[at - 1] != '.') continue;
        walk->labels++;
        const struct name_slot *slot = slot_find(t, walk->host + at, walk->size - at, hash_end(walk->state));
        if (slot->offset == 0) continue;
        *whole = at == 0;
        return slot_payload(t, slot);
    }
    return NULL;
}

#include "core/control/list_find.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/control/list_load.h"
#include "core/control/read_file.h"
#include "core/io/idn.h"
#include "core/session/policy.h"
#include "protocols/list_text.h"
#include "protocols/subnet.h"

/* What is looked for, in all the forms in which an entry may mean it. */
struct wanted {
    enum list_subject subject;
    uint16_t port;
    struct number numbers[2]; /* the address, and the one inside */
    uint8_t kinds[2];         /* enum list_entry_kind */
    unsigned number_count;
    char name[IDN_NAME_SIZE]; /* "": it is an address */
    unsigned best;            /* how long the match so far is; 0: there is none */
    struct list_found *found;
};

/* --- what is looked for --- */

static void want_number(struct wanted *w, uint8_t kind, struct number number)
{
    w->kinds[w->number_count] = kind;
    w->numbers[w->number_count++] = number;
}

static void want_address(struct wanted *w, const struct address *address)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t inside[4];
    if (address->kind == ADDRESS_IPV4) {
        want_number(w, LIST_ENTRY_IPV4, number_of_octets(address->ipv4, 4));
    } else if (memcmp(address->ipv6, mapped, sizeof mapped) == 0) {
        want_number(w, LIST_ENTRY_IPV4, number_of_octets(address->ipv6 + 12, 4));
    } else {
        want_number(w, LIST_ENTRY_IPV6, number_of_octets(address->ipv6, 16));
        if (w->subject == LIST_TARGETS && policy_carried(address, inside))
            want_number(w, LIST_ENTRY_IPV4, number_of_octets(inside, 4));
    }
}

static_assert(ADDRESS_NAME_MAX < IDN_NAME_SIZE, "each name of a target fits");

/* As the DNS knows it, without the dot at its end. */
static void want_name(struct wanted *w, const char *text, size_t size)
{
    bool foreign = false;
    if (size > 0 && text[size - 1] == '.') size--;
    for (size_t i = 0; i < size; i++) foreign |= (unsigned char)text[i] >= 0x80;
    if (!foreign || !idn_to_ascii(text, size, w->name)) snprintf(w->name, sizeof w->name, "%.*s", (int)size, text);
}

/* --- one entry --- */

static bool is_within(struct number number, const struct list_entry *entry)
{
    unsigned bits = entry->bits;
    uint64_t high = bits >= 64 ? UINT64_MAX : bits > 0 ? UINT64_MAX << (64 - bits) : 0;
    uint64_t low = bits <= 64 ? 0 : UINT64_MAX << (128 - bits);
    return ((number.high ^ entry->first.high) & high) == 0 && ((number.low ^ entry->first.low) & low) == 0;
}

/* How long the match is: more for what is longer; the name alone is longer than all below it. */
static unsigned match_name(const struct wanted *w, const struct list_entry *entry)
{
    char ascii[IDN_NAME_SIZE];
    const char *name = entry->name;
    size_t size = entry->name_size, whole = strlen(w->name);
    if (entry->foreign && idn_to_ascii(entry->name, entry->name_size, ascii)) {
        name = ascii;
        size = strlen(ascii);
    }
    if (size > whole || strncasecmp(w->name + whole - size, name, size) != 0) return 0;
    if (size == whole) return 2 * (unsigned)size + (entry->kind == LIST_ENTRY_NAME) + 2;
    bool below = entry->kind == LIST_ENTRY_SUFFIX && w->name[whole - size - 1] == '.';
    return below ? 2 * (unsigned)size + 2 : 0;
}

static unsigned match(const struct wanted *w, const struct list_entry *entry)
{
    if (list_entry_has_ports(entry) && (w->port < entry->from || w->port > entry->to)) return 0;
    if (entry->kind == LIST_ENTRY_ALL) return 1;
    if (entry->kind == LIST_ENTRY_NAME || entry->kind == LIST_ENTRY_SUFFIX) return *w->name ? match_name(w, entry) : 0;
    for (unsigned i = 0; i < w->number_count; i++)
        if (w->kinds[i] == entry->kind && is_within(w->numbers[i], entry)) return entry->bits + 2u;
    return 0;
}

/* --- all of them --- */

static void look_through(struct wanted *w, const struct list_option *option, const char *text, size_t size)
{
    const char *at = text, *end = text + size, *line;
    struct list_entry entry;
    size_t length;
    for (unsigned number = 1; (line = list_next_line(&at, end, &length)) != NULL; number++) {
        if (length == 0 || list_parse_entry(line, length, w->subject == LIST_TARGETS, &entry)) continue;
        unsigned how = match(w, &entry);
        if (how <= w->best) continue;
        w->best = how;
        w->found->option = option;
        w->found->line = list_path(option) ? number : 0;
        snprintf(w->found->entry, sizeof w->found->entry, "%.*s", (int)length, line);
    }
}

static void look_at_member(struct wanted *w, const struct list_option *option)
{
    char *memory;
    size_t size;
    const char *path = list_path(option);
    if (!path) {
        look_through(w, option, option->text, strlen(option->text));
    } else if (!read_file_whole(path, &memory, &size)) {
        look_through(w, option, memory, size);
        free(memory);
    }
}

void list_find(const struct config *config, enum list_subject subject, unsigned scope, const struct address *address,
               enum list_word word, struct list_found *found)
{
    enum list_kind allow = subject == LIST_CLIENTS ? LIST_ALLOW_CLIENT : LIST_ALLOW_TARGET;
    enum list_kind deny = subject == LIST_CLIENTS ? LIST_DENY_CLIENT : LIST_DENY_TARGET;
    struct wanted wanted = {.subject = subject, .port = address->port, .found = found};
    *found = (struct list_found){.option = NULL};
    if (word == LIST_WORD_NONE) return;
    if (address->kind == ADDRESS_NAME)
        want_name(&wanted, address->name, address->name_size);
    else
        want_address(&wanted, address);
    for (uint32_t i = 0; i < config->list_count; i++) {
        const struct list_option *option = &config->lists_given[i];
        if (option->scope == scope && option->kind == (word == LIST_WORD_DENY ? deny : allow))
            look_at_member(&wanted, option);
    }
}

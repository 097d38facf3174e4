/* Circular doubly linked lists without memory of their own: each link lies in the struct that it puts on a list,
 * and the list's head is one more link. */
#ifndef SLUICE_CORE_IO_LIST_H
#define SLUICE_CORE_IO_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next, *prev;
};

/* The struct of that `type` whose `member` the link is. */
#define link_owner(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Makes an empty list, or a link that is on no list; removing such a link does nothing. */
static inline void link_init(struct link *head)
{
    head->next = head->prev = head;
}

static inline bool link_is_empty(const struct link *head)
{
    return head->next == head;
}

static inline void link_append(struct link *head, struct link *link)
{
    link->next = head;
    link->prev = head->prev;
    head->prev->next = link;
    head->prev = link;
}

static inline void link_remove(struct link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
    link_init(link);
}

/* Takes the first one out; the list is not empty. */
static inline struct link *link_take_first(struct link *head)
{
    struct link *first = head->next;
    head->next = first->next;
    first->next->prev = head;
    link_init(first);
    return first;
}

/* Puts all that is in `from` behind what is in `to`. */
static inline void link_move_all(struct link *from, struct link *to)
{
    while (!link_is_empty(from)) link_append(to, link_take_first(from));
}

#endif

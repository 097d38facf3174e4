/* What the process itself listens on ("doors"), and which of its own outgoing connections might come back to it, so
 * that no client is led into the API, a listener or a script's socket, and no connection runs in a circle.
 *
 *     doors      written by the main thread: listeners and API at the start, sockets of scripts while they last
 *     returns    written by workers, each its own: connections to a door of ours, and every connection where a
 *                listener takes connections that were meant for others (-f, --tproxy): a firewall may lead them back
 *
 * Every thread reads both, without a lock. A full table is an answer: a script that wants one door too many is refused;
 * one return too many takes the place of another, and a circle then takes one more round to be noticed. */
#ifndef SLUICE_CORE_SESSION_OWN_H
#define SLUICE_CORE_SESSION_OWN_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/address.h"

struct own;

/* 0 or -ENOMEM. */
int own_open(struct own **out);
void own_close(struct own *own);

/* --- doors --- */

#define OWN_NO_LISTENER 0xffu

/* A bound TCP or UDP socket; `listener`: its index, or OWN_NO_LISTENER; `redirects`: connections arrive there that were
 * meant for somebody else. A number for own_remove(), -1 for a family without ports, or -ENOBUFS. Main thread. */
int own_add(struct own *own, int fd, uint8_t listener, bool redirects);
void own_remove(struct own *own, int door); /* -1: nothing */
/* Whether a connection to `to` (IPv4 or IPv6; mapped forms and zero hosts as the kernel takes them) would
 * arrive at a door; then *listener is the one that it belongs to, or OWN_NO_LISTENER. Costs a question to the kernel if
 * the port is that of a door on all addresses, else a comparison. `machine`: of machine_open(). */
bool own_is(const struct own *own, int machine, const struct address *to, uint8_t *listener);
/* Sockets of UDP associations by their port. Any thread. */
void own_add_datagrams(struct own *own, uint16_t port);
void own_remove_datagrams(struct own *own, uint16_t port);
/* Whether a datagram to `to` would arrive at one of those, on whatever address of this machine, or at a door for them.
 */
bool own_is_datagrams(const struct own *own, int machine, const struct address *to);

/* --- returns --- */

/* What a connection has passed on its way here: a bit for each listener, and how many sessions. */
struct own_trail {
    uint32_t listeners;
    uint8_t depth;
};

/* Whether a connection to `to` is worth a note. */
bool own_may_return(const struct own *own, const struct address *to);
/* A connection of ours from `from` to `to`, noted for ten seconds: whoever accepts it asks at once. A number
 * for own_forget(). */
uint32_t own_note(struct own *own, const struct address *from, const struct address *to, struct own_trail trail,
                  uint64_t now_ms);
/* The connection of that note is about to be closed: its port may soon belong to another. */
void own_forget(struct own *own, uint32_t note);
#define OWN_NO_NOTE UINT32_MAX
/* Whether there are notes at all: else there is no need to ask who a client is. */
bool own_has_notes(const struct own *own);
/* Whether connections of ours come from `from`: else there is no need to ask where this one went. */
bool own_knows(const struct own *own, const struct address *from, uint64_t now_ms);
/* Whether a connection that has come from `from` to `to` is one of ours; from one that went elsewhere a firewall may
 * have turned it: *elsewhere says that the port, at least, is ours. */
bool own_find(const struct own *own, const struct address *from, const struct address *to, uint64_t now_ms,
              struct own_trail *trail, bool *elsewhere);

#endif

/* What a client is told in its own protocol. Everything here is appended to `out` of the setup slot; session_flush()
 * sends it, or the relay does. */
#ifndef SLUICE_CORE_SESSION_REPLY_H
#define SLUICE_CORE_SESSION_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/session.h"

/* SOCKS5: the method that is chosen (RFC 1928 section 3). */
void reply_append_method(struct worker *w, struct session *s, uint8_t method);
/* SOCKS5: user and password are accepted (RFC 1929). */
void reply_append_admission(struct worker *w, struct session *s);
/* What clients and their peers are told in the place of an address of this machine, its port kept: --udp-advertise. */
void reply_advertise(const struct worker *w, const struct session *s, struct address *bound);
/* SOCKS5: "succeeded" with that address. */
void reply_append_address(struct worker *w, struct session *s, const struct address *bound);
/* The upstream is connected. Nothing for protocols that have no reply (plain HTTP, forwarders). */
void reply_append_success(struct worker *w, struct session *s);
/* The refusal that fits the failure and the session's state; false when the protocol has none there: close silently. */
bool reply_append_refusal(struct worker *w, struct session *s, enum failure failure);
/* Where the peer of a BIND is to connect. False: the session does not listen. */
bool reply_find_listener(const struct worker *w, const struct session *s, struct address *out);

#endif

/* The ways to a target: what a client says to a proxy, and what the proxy's replies mean. Octets only, no sockets.
 *
 * "forward" and "http-plain" have no handshake: the one goes to a fixed target, in the other each request names its
 * own. A way with a handshake has up to three steps: methods (SOCKS5), credentials (SOCKS5 with them), and the target.
 */
#ifndef SLUICE_BENCH_VIA_H
#define SLUICE_BENCH_VIA_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VIA_MESSAGE_MAX = 3 + 255 + 255 }; /* octets of the longest message that we send */

enum via {
    VIA_NONE,
    VIA_FORWARD,
    VIA_SOCKS4,
    VIA_SOCKS4A,
    VIA_SOCKS5,
    VIA_SOCKS5_AUTH,
    VIA_HTTP,
    VIA_HTTP_PLAIN,
    VIA_COUNT
};
enum via_step { VIA_GREETING, VIA_CREDENTIALS, VIA_REQUEST };

extern const char *const via_names[VIA_COUNT];

/* Each writes at most VIA_MESSAGE_MAX octets and returns how many. User and password have 1 to 255 octets. */
size_t via_write_greeting(enum via via, uint8_t *to);
size_t via_write_credentials(const char *user, const char *password, uint8_t *to);
/* `name`: of the target, for SOCKS5 alone; NULL: its address. */
size_t via_write_request(enum via via, const struct sockaddr_in *target, const char *name, uint8_t *to);
size_t via_write_associate(uint8_t *to); /* SOCKS5 UDP ASSOCIATE, from any address */

/* Length of the reply whose first `size` octets are in `head`: 0 when it cannot be told yet. */
size_t via_reply_size(enum via via, enum via_step step, const uint8_t *head, size_t size);
bool via_reply_is_good(enum via via, enum via_step step, const uint8_t *head, size_t size); /* of a whole reply */
/* Where a whole good reply of SOCKS5 says that the proxy waits. What it leaves open (0.0.0.0, another family) stays. */
void via_read_bound(const uint8_t *head, struct sockaddr_in *bound);

#endif

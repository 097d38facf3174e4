/* Judges the head of a request: who asks, for what, and whether its body may come. */
#ifndef SLUICE_API_JUDGE_H
#define SLUICE_API_JUDGE_H

#include "api/call.h"

/* Finds the call's endpoint, method and token. 0, or the status to refuse with; then the endpoint may be a stand-in.
 * url, method, version  as libmicrohttpd gives them; borrowed for the call. */
unsigned judge_head(struct call *call, const char *url, const char *method, const char *version);
/* The tokens may have been replaced while the body came: 0 if those in force now let the call in, or 401 or 403. */
unsigned judge_again(struct call *call);
/* Answers with a status and the words that go with it. */
void judge_refuse(struct call *call, unsigned status);
/* Whether the body of a refused request is read and dropped before the answer goes out: a connection that ends with
 * unread data ends with a reset, and a client that is still sending would see that instead of the answer. Not where it
 * is too large, its length unknown or doubtful, or where the client holds it back until we say so. */
bool judge_drops_body(struct call *call, unsigned refused);

#endif

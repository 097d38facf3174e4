/* An answer as it goes out: its body, packed where the client takes that, and its fields. */
#ifndef SLUICE_API_RESPONSE_H
#define SLUICE_API_RESPONSE_H

#include "api/call.h"

struct MHD_Response;

/* Makes the response of a call that is answered and has its connection. Takes the body out of the call; its size as it
 * goes out is in call->answer_size. NULL: no memory. */
struct MHD_Response *response_make(struct call *call);

#endif

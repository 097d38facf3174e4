/* How many octets an answer's head takes on the wire: libmicrohttpd tells the size of a request's head only. */
#ifndef SLUICE_API_ANSWER_SIZE_H
#define SLUICE_API_ANSWER_SIZE_H

#include <stdbool.h>
#include <stddef.h>

struct MHD_Response;

/* persists: the connection lives on behind it.   body_size: what Content-Length says. */
size_t answer_head_size(struct MHD_Response *response, unsigned status, bool persists, size_t body_size);

#endif

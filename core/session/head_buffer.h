/* Room for HTTP heads: small at first, within the slot of a setup or an exchange, where nearly every head fits. The few
 * that do not fit borrow a large buffer from the worker's pool, once, and give it back when it is empty again. */
#ifndef SLUICE_CORE_SESSION_HEAD_BUFFER_H
#define SLUICE_CORE_SESSION_HEAD_BUFFER_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/http_head.h"

struct worker;

/* A head of the largest size, or what is made of it: an octet more for each line that had no CR and each colon that had
 * no blank behind it, Via, Connection and framing. */
#define HEAD_BUFFER_SIZE (HTTP_RESPONSE_HEAD_SIZE_MAX + 1u + 4096u)

struct head_buffer {
    uint8_t *data;
    uint32_t size; /* octets that fit */
    uint32_t slot; /* of worker.heads; POOL_NONE: `data` is the small one */
};

void head_buffer_init(struct head_buffer *buffer, uint8_t *small, uint32_t size);
/* Makes it large, with the first `used` octets of what it held. False: none is to be had. Requests may take half of the
 * pool, so that clients who go no further cannot keep responses out. */
bool head_buffer_grow(struct worker *w, struct head_buffer *buffer, uint32_t used, bool is_request);
/* The buffer is empty from here on, and small again if it was large. */
void head_buffer_shrink(struct worker *w, struct head_buffer *buffer, uint8_t *small, uint32_t size);

#endif

#include "core/session/head_buffer.h"

#include <assert.h>
#include <string.h>

#include "core/session/worker.h"

void head_buffer_init(struct head_buffer *buffer, uint8_t *small, uint32_t size)
{
    *buffer = (struct head_buffer){.data = small, .size = size, .slot = POOL_NONE};
}

bool head_buffer_grow(struct worker *w, struct head_buffer *buffer, uint32_t used, bool is_request)
{
    assert(used <= buffer->size);
    if (buffer->slot != POOL_NONE) return true;
    if (is_request && w->heads.used >= w->heads.count / 2) return false;
    uint32_t slot = pool_take(&w->heads);
    if (slot == POOL_NONE) return false;
    uint8_t *large = pool_at(&w->heads, slot);
    memcpy(large, buffer->data, used);
    *buffer = (struct head_buffer){.data = large, .size = HEAD_BUFFER_SIZE, .slot = slot};
    return true;
}

void head_buffer_shrink(struct worker *w, struct head_buffer *buffer, uint8_t *small, uint32_t size)
{
    if (buffer->slot == POOL_NONE) return;
    pool_give(&w->heads, buffer->slot);
    pool_trim(&w->heads);
    head_buffer_init(buffer, small, size);
}

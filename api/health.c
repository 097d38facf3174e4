#include "api/health.h"

#include <stdio.h>

#include "api/parts.h"
#include "core/control/supervisor.h"

bool health_is_stuck(const struct api_parts *parts, char *message, size_t size)
{
    char who[HEARTBEAT_TEXT_SIZE];
    uint64_t stuck_ms = supervisor_stuck_ms(parts->supervisor, who, sizeof who);
    if (stuck_ms == 0) return false;
    snprintf(message, size, "Lua is stuck: %s has been running for %.1f s", who, (double)stuck_ms / 1000);
    return true;
}

void health_live(struct call *call)
{
    const struct api_parts *parts = call->parts;
    char message[HEALTH_TEXT_SIZE];
    if (health_is_stuck(parts, message, sizeof message))
        call_reply_text(call, 503, message);
    else if (coordinator_revision(parts->coordinator) == 0 || coordinator_is_over(parts->coordinator))
        call_reply_octets(call, 200, CALL_TEXT, "", 0);
}

void health_ready(struct call *call)
{
    const struct api_parts *parts = call->parts;
    char message[HEALTH_TEXT_SIZE];
    switch (supervisor_phase(parts->supervisor)) {
    case SUPERVISOR_STARTING: call_reply_text(call, 503, "starting"); return;
    case SUPERVISOR_STOPPING: call_reply_text(call, 503, "stopping"); return;
    case SUPERVISOR_SERVING: break;
    }
    if (health_is_stuck(parts, message, sizeof message))
        call_reply_text(call, 503, message);
    else
        call_reply_text(call, 200, "ready");
}

#include "core/session/egress.h"

#include "core/io/log.h"
#include "core/io/net.h"

void egress_prepare(const struct config *config, int fd)
{
    if (!config->netdev || net_set_device(fd, config->netdev) >= 0) return;
    LOGW("-i %s: the socket could not be bound to the interface; does it exist, and is CAP_NET_RAW there?",
         config->netdev);
}

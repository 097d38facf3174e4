/* What a worker and the coordinator tell each other in struct message.
 *
 *   worker --ROUTE, CANCEL, ROUTED, ERRAND, STOPPED--> coordinator
 *   worker <--ROUTE, ERRAND-- coordinator
 *
 * ROUTE and ERRAND are lent by one side and come back from the other. Names go to the resolver (resolve_request.h). */
#ifndef SLUICE_CORE_SESSION_MESSAGE_H
#define SLUICE_CORE_SESSION_MESSAGE_H

enum message_kind {
    MESSAGE_ROUTE = 1, /* body: struct route_request */
    MESSAGE_CANCEL,    /* nobody waits for the verdict on this session's question any more */
    MESSAGE_ROUTED,    /* a ROUTE_TRY has ended. result 0: the relay runs; else the session is gone */
    MESSAGE_ERRAND,    /* body: struct errand */
    MESSAGE_STOPPED,   /* the worker's last message */
};

#endif

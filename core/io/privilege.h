/* The one right that outlives -u: CAP_NET_RAW, with which packets are marked (SO_MARK, from Linux 5.17 on) and sockets
 * are bound to interfaces. Rights are each thread's own; threads inherit those of their maker. */
#ifndef SLUICE_CORE_IO_PRIVILEGE_H
#define SLUICE_CORE_IO_PRIVILEGE_H

#include <stdbool.h>

/* This thread keeps its rights when the process becomes another user, but cannot use them then without
 * privilege_raise(). on  false: it does not. */
void privilege_keep(bool on);
/* Of all rights that this thread has, none but that one is left, and it is in force. False: it does not have it, and
 * nothing has changed. */
bool privilege_raise(void);
/* This thread gives up that right, and all others. */
void privilege_drop(void);

#endif

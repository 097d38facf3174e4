/* The calls of engine.h: what a peer, or who takes a profile, waits for. */
#ifndef SLUICE_LUA_MODULES_CALL_H
#define SLUICE_LUA_MODULES_CALL_H

void call_stop(void); /* ends those that wait; each is told */

#endif

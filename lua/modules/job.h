/* The jobs of engine.h: what a peer, or who takes a profile, waits for. */
#ifndef SLUICE_LUA_MODULES_JOB_H
#define SLUICE_LUA_MODULES_JOB_H

void job_stop(void); /* ends those that wait; each is told */

#endif

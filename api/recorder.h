/* Takes a sample for the history every second, on the coordinator's thread. */
#ifndef SLUICE_API_RECORDER_H
#define SLUICE_API_RECORDER_H

#include "api/parts.h"

struct recorder;

/* Begins, and makes parts->history, which lives until recorder_close(). NULL: no memory. `parts` outlives it. */
struct recorder *recorder_open(struct api_parts *parts);
void recorder_close(struct recorder *r); /* NULL is fine */

#endif

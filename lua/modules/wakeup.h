/* Opening and closing of what wakeup.c has in the root. */
#ifndef SLUICE_LUA_MODULES_WAKEUP_H
#define SLUICE_LUA_MODULES_WAKEUP_H

struct engine;

int wakeup_open(struct engine *root); /* 0, or -1: too many wait, or no memory */
void wakeup_close(struct engine *root);

#endif

/* What the rest of boot/ does with scripts that run by themselves; engine.h has what others do. */
#ifndef SLUICE_LUA_BOOT_SCRIPT_H
#define SLUICE_LUA_BOOT_SCRIPT_H

struct config;
struct engine;
struct script;

/* After each entry into a script's state: if nothing of it waits any more, it has ended. */
void script_settle(struct script *s);
void script_obey_all(struct engine *root, const struct config *config); /* SIGHUP has brought other settings */
void script_tend_all(struct engine *root);                              /* task_tend_all() for each */
void script_close_all(struct engine *root);

#endif

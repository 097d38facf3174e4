/* One user's line in the file of --users, written so that whoever reads it, after a crash too, finds the whole file of
 * before or the whole one of after. All other lines, comments among them, stay as they are. Sleeps: for a thread of the
 * checkers. */
#ifndef SLUICE_CORE_CONTROL_USERS_WRITE_H
#define SLUICE_CORE_CONTROL_USERS_WRITE_H

#include <stddef.h>

/* line: in the place of that user's, or behind the last one; NULL: the user's line goes, and it is no fault when there
 * is none. Mode, owner and group of the file are kept as far as this user may. 0; or -1, why[size] says what is wrong,
 * and the file is as it was. */
int users_write(const char *path, const char *name, const char *line, char *why, size_t size);

#endif

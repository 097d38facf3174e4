/* The table of all options. One row is all that an option needs: reading it, its line in the help, its key in the table
 * of a -c script, in --dump-config and in neosocksd.config() follow from the row. Its default stands in
 * config_defaults(). */
#ifndef SLUICE_CORE_PROCESS_OPTION_TABLE_H
#define SLUICE_CORE_PROCESS_OPTION_TABLE_H

#include "core/process/option.h"

extern const struct option_row option_rows[]; /* within a group, in the order of the help */
extern const size_t option_row_count;

/* The option that is spelled so, "-l" or "--listen"; NULL: none. */
const struct option_row *option_find(const char *word, size_t size);
/* The setting that a -c table calls so; NULL: none. */
const struct option_row *option_find_key(const char *key);

#endif

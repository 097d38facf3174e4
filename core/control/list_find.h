/* Which member, and which entry of it, decides: for people. What holds is in the tables (lists.h), which do not know.
 */
#ifndef SLUICE_CORE_CONTROL_LIST_FIND_H
#define SLUICE_CORE_CONTROL_LIST_FIND_H

#include "core/session/lists.h"

#define LIST_ENTRY_TEXT_SIZE 300u

struct list_found {
    const struct list_option *option; /* NULL: no entry was found */
    unsigned line;                    /* of its file; 0: it stands in the option itself */
    char entry[LIST_ENTRY_TEXT_SIZE];
};

/* The longest of the entries that deny, or of those that allow, which match in that scope, as the files are now. Reads
 * them: some 0.2 s for a million entries. */
void list_find(const struct config *config, enum list_subject subject, unsigned scope, const struct address *address,
               enum list_word word, struct list_found *found);

#endif

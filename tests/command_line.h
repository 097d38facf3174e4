/* Runs the command line's parser as main() does, and keeps what it says: for test_options.c and test_config.c. */
#ifndef SLUICE_TESTS_COMMAND_LINE_H
#define SLUICE_TESTS_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/process/options.h"
#include "core/session/config.h"

#define WORDS_MAX 80 /* of a line */

/* What the last run left behind. */
extern struct config config;
extern char out[16384], err[4096];

/* Runs `line`, words separated by one blank ('' is an empty word); with check, config_check() too. */
enum config_action run(const char *line, bool check);
void accepts(const char *line);
/* Exactly one line on stderr, nothing on stdout, and the line holds `part`. */
void refuses(const char *line, const char *part);
int count_lines(const char *text);

/* What is written to `stream`, whose descriptor is `fd`, goes to a file from here on: the file. *saved: for restore().
 */
int redirect(int fd, FILE *stream, int *saved);
/* As it was before; `text` is what has been written meanwhile. */
void restore(int fd, FILE *stream, int saved, int file, char *text, size_t size);

#endif

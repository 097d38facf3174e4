#include "tests/command_line.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/process/config_check.h"
#include "tests/support.h"

struct config config;
char out[16384], err[4096];

int redirect(int fd, FILE *stream, int *saved)
{
    int file = memfd_create("captured", MFD_CLOEXEC);
    assert_true(file >= 0);
    fflush(stream);
    *saved = dup(fd);
    assert_true(dup2(file, fd) == fd);
    return file;
}

void restore(int fd, FILE *stream, int saved, int file, char *text, size_t size)
{
    fflush(stream);
    dup2(saved, fd);
    close(saved);
    ssize_t n = pread(file, text, size - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    close(file);
}

enum config_action run(const char *line, bool check)
{
    static char words[2048];
    char *argv[WORDS_MAX + 1] = {"sluice"};
    int argc = 1, saved_out, saved_err;

    assert_true(strlen(line) < sizeof(words));
    strcpy(words, line);
    for (char *word = words, *end; *word; word = end) {
        end = word + strcspn(word, " ");
        if (*end) *end++ = '\0';
        assert_true(argc < WORDS_MAX);
        argv[argc++] = strcmp(word, "''") == 0 ? "" : word;
    }
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    config_defaults(&config);
    int file_out = redirect(STDOUT_FILENO, stdout, &saved_out);
    int file_err = redirect(STDERR_FILENO, stderr, &saved_err);
    enum config_action action = config_parse(&config, argc, argv);
    if (check && action == CONFIG_RUN && config_check(&config) < 0) action = CONFIG_EXIT_FAILURE;
    if (check && action == CONFIG_RUN) config_warn_open(&config);
    restore(STDERR_FILENO, stderr, saved_err, file_err, err, sizeof(err));
    restore(STDOUT_FILENO, stdout, saved_out, file_out, out, sizeof(out));
    return action;
}

void accepts(const char *line)
{
    if (run(line, false) != CONFIG_RUN) fail_msg("\"%s\" was refused: %s", line, err);
    assert_string_equal(out, "");
}

int count_lines(const char *text)
{
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

void refuses(const char *line, const char *part)
{
    if (run(line, true) != CONFIG_EXIT_FAILURE) fail_msg("\"%s\" was accepted", line);
    if (!strstr(err, part)) fail_msg("\"%s\" said: %s instead of: %s", line, err, part);
    if (count_lines(err) != 1) fail_msg("\"%s\" said more than a line: %s", line, err);
    assert_string_equal(out, "");
}

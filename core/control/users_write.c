#include "core/control/users_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/control/read_file.h"
#include "protocols/users_text.h"

/* The file that is made beside the other one. */
struct draft {
    char path[PATH_MAX + 16];
    FILE *file;
};

/* --- its content --- */

static bool is_line_of(const char *text, size_t size, const char *name)
{
    struct users_line line;
    size_t mark =
        size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* some editors put it in front of a file */
    text += mark;
    size -= mark;
    if (users_parse_line(text, size, &line) != NULL) return false; /* nobody's: it stays */
    return line.name.size == strlen(name) && memcmp(line.name.text, name, line.name.size) == 0;
}

/* fwrite() and so on remember their errors, which finish() looks at. */
static void copy_lines(struct draft *draft, const char *text, size_t size, const char *name, const char *line)
{
    const char *end = text + size;
    for (const char *at = text, *next; at < end; at = next) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        next = stop ? stop + 1 : end;
        if (!is_line_of(at, (size_t)((stop ? stop : end) - at), name)) {
            fwrite(at, 1, (size_t)(next - at), draft->file);
            if (!stop) fputc('\n', draft->file);
        } else if (line) {
            fprintf(draft->file, "%s\n", line);
            line = NULL;
        }
    }
    if (line) fprintf(draft->file, "%s\n", line);
}

/* --- its place --- */

/* Beside it, for a file can be renamed within its file system only. One that a crash has left is in nobody's way. */
static int begin(struct draft *draft, const char *path)
{
    struct stat status;
    snprintf(draft->path, sizeof draft->path, "%s.sluice-new", path);
    if (stat(path, &status) < 0) return -1;
    unlink(draft->path);
    int fd = open(draft->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    if (fchown(fd, status.st_uid, status.st_gid) < 0) (void)!fchown(fd, (uid_t)-1, status.st_gid);
    draft->file = fchmod(fd, status.st_mode & 0777) == 0 ? fdopen(fd, "w") : NULL;
    if (draft->file) return 0;
    close(fd);
    unlink(draft->path);
    return -1;
}

/* The folder is on the disk, too: else the new name may be lost, and with it nothing but this change. */
static void settle_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash && slash > path ? (int)(slash - path) : 1, path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    close(fd);
}

/* In this order: what has the name is whole. */
static int finish(struct draft *draft, const char *path)
{
    bool whole = fflush(draft->file) == 0 && !ferror(draft->file) && fsync(fileno(draft->file)) == 0;
    int error = errno;
    if (fclose(draft->file) != 0 && whole) {
        error = errno;
        whole = false;
    }
    if (whole && rename(draft->path, path) == 0) {
        settle_folder(path);
        return 0;
    }
    if (whole) error = errno;
    unlink(draft->path);
    errno = error;
    return -1;
}

int users_write(const char *path, const char *name, const char *line, char *why, size_t size)
{
    static struct draft draft; /* one at a time, see checkers.c */
    char *text = NULL, real[PATH_MAX];
    size_t text_size;
    if (!realpath(path, real)) { /* a link stays one */
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return -1;
    }
    const char *wrong = read_file_whole(real, &text, &text_size);
    if (!wrong && begin(&draft, real) < 0) wrong = strerror(errno);
    if (!wrong) {
        copy_lines(&draft, text, text_size, name, line);
        if (finish(&draft, real) < 0) wrong = strerror(errno);
    }
    if (wrong) snprintf(why, size, "%s: %s; let the user that sluice runs as write it, and its folder", path, wrong);
    if (text) explicit_bzero(text, text_size);
    free(text);
    return wrong ? -1 : 0;
}

#include "core/control/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_SIZE_MAX ((size_t)256 << 20) /* a million entries of a list are about 20 MiB, a million users 150 */

/* All of it; grows while it is read, should somebody write it meanwhile. */
static char *read_all(int fd, size_t room, size_t *size)
{
    char *memory = malloc(room);
    *size = 0;
    while (memory) {
        ssize_t part = read(fd, memory + *size, room - *size);
        if (part < 0 && errno == EINTR) continue;
        if (part == 0) return memory;
        if (part < 0) break;
        *size += (size_t)part;
        if (*size < room) continue;
        char *more = room <= FILE_SIZE_MAX ? realloc(memory, room * 2) : NULL;
        if (!more) {
            errno = room > FILE_SIZE_MAX ? EFBIG : ENOMEM;
            break;
        }
        memory = more;
        room *= 2;
    }
    free(memory);
    return NULL;
}

/* The path of a FIFO or a device would be read for ever. */
const char *read_file_whole(const char *path, char **memory, size_t *size)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return strerror(errno);
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        return "this is no regular file";
    }
    size_t room = status.st_size > 0 && (size_t)status.st_size <= FILE_SIZE_MAX ? (size_t)status.st_size + 1 : 4096;
    *memory = (size_t)status.st_size <= FILE_SIZE_MAX ? read_all(fd, room, size) : (errno = EFBIG, NULL);
    int error = errno;
    close(fd);
    if (*memory) return NULL;
    return error == EFBIG ? "the file is larger than 256 MiB" : strerror(error);
}

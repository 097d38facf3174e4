/* `sim [FIRST [COUNT [JOBS]]]`: runs COUNT seeds from FIRST on, shared among JOBS processes, and says how fast. A seed
 * that fails is named on stderr; `SIM_TRACE=1 sim SEED 1` shows what happens in it. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim_world.h"

static uint64_t running; /* the seed, for the line behind a failed assertion */

static void on_abort(int number)
{
    char text[64];
    (void)number;
    int size = snprintf(text, sizeof text, "sim: stopped at seed %" PRIu64 "\n", running);
    if (write(STDERR_FILENO, text, (size_t)size) != size) _exit(1);
    _exit(1);
}

static void run(uint64_t first, uint64_t count, uint64_t step)
{
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);
    for (running = first; running < first + count; running += step) sim_world_run(running, NULL, 0);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t argument(int argc, char **argv, int index, uint64_t otherwise)
{
    return argc > index ? strtoull(argv[index], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t first = argument(argc, argv, 1, 1), count = argument(argc, argv, 2, 100000);
    uint64_t jobs = argument(argc, argv, 3, count < 100 ? 1 : cpus > 0 ? (uint64_t)cpus : 1);
    double start = seconds();
    int failed = 0, status;
    for (uint64_t job = 0; job < jobs; job++) {
        pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1;
        }
        if (child == 0) {
            if (job < count) run(first + job, count - job, jobs);
            exit(0);
        }
    }
    while (wait(&status) > 0) failed += status != 0;
    double took = seconds() - start;
    if (failed == 0)
        printf("sim: %" PRIu64 " seeds from %" PRIu64 " on in %.1f s, %.0f seeds/s\n", count, first, took,
               (double)count / took);
    return failed > 0;
}

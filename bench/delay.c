/* A path with latency between two network namespaces, for kernels without netem.
 *
 *   namespace NEAR: device path >-- packets, each held for the delay --> device path: namespace FAR
 *                               <-- packets, each held for the delay --<
 *
 * Two TUN devices; what one sends, the other receives later, in order. Whole IP packets pass, up to 64 KiB with the
 * kernel's offloads, so that TCP sees a long path: its handshake, slow start and windows take the time they would take
 * there. There is no limit of bandwidth and no loss, unless a ring is full: that is counted and told at the end. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX ((size_t)65536 + 64)
#define RING_SIZE  ((size_t)256 << 20) /* octets in flight one way; memory is taken when it is used */
#define BATCH      64                  /* packets of one direction in one turn */

struct packet {
    uint64_t release_ns;
    size_t size; /* 0: the ring goes on at its beginning */
};

/* One direction. Packets lie behind each other, none crosses the end. */
struct lane {
    int from, to;
    uint8_t *ring;
    size_t head, tail; /* octets ever written and taken, so that they differ by what is held */
    uint64_t packets, refused;
};

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static int fail(const char *what)
{
    fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
    return -1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A device `path` in that namespace; it is there as long as the descriptor. Leaves us in the namespace. */
static int open_device(const char *namespace)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    int space = open(namespace, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0) return fail(namespace);
    close(space);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return fail("/dev/net/tun");
    memcpy(request.ifr_name, "path", sizeof "path");
    if (ioctl(fd, TUNSETIFF, &request) < 0) return fail("TUNSETIFF");
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0)
        return fail("TUNSETOFFLOAD");
    return fd;
}

static size_t round_up(size_t size)
{
    return (size + sizeof(struct packet) - 1) / sizeof(struct packet) * sizeof(struct packet);
}

static struct packet *packet_at(const struct lane *l, size_t position)
{
    return (struct packet *)(void *)(l->ring + position % RING_SIZE);
}

/* Room for a packet of any size and what marks the ring's end; NULL: none. */
static struct packet *lane_reserve(struct lane *l)
{
    size_t wanted = sizeof(struct packet) + round_up(PACKET_MAX), left = RING_SIZE - l->head % RING_SIZE;
    if (l->head - l->tail + wanted + (left < wanted ? left : 0) > RING_SIZE) return NULL;
    if (left < wanted) {
        packet_at(l, l->head)->size = 0;
        l->head += left;
    }
    return packet_at(l, l->head);
}

static bool lane_is_full(struct lane *l)
{
    if (lane_reserve(l)) return false;
    l->refused++;
    return true;
}

/* Takes in what the device sends. What does not fit stays in the device's queue. */
static void lane_read(struct lane *l, uint64_t delay_ns)
{
    for (int i = 0; i < BATCH && !lane_is_full(l); i++) {
        struct packet *p = packet_at(l, l->head);
        ssize_t got = read(l->from, p + 1, PACKET_MAX);
        if (got <= 0) return;
        p->release_ns = now_ns() + delay_ns;
        p->size = (size_t)got;
        l->head += sizeof *p + round_up(p->size);
        l->packets++;
    }
}

/* The oldest packet; NULL: none. */
static const struct packet *lane_first(struct lane *l)
{
    if (l->tail == l->head) return NULL;
    if (packet_at(l, l->tail)->size == 0) l->tail += RING_SIZE - l->tail % RING_SIZE;
    return l->tail == l->head ? NULL : packet_at(l, l->tail);
}

/* Lets go what is due; returns when the next one is. */
static uint64_t lane_write(struct lane *l)
{
    const struct packet *p;
    uint64_t now = now_ns();
    while ((p = lane_first(l)) && p->release_ns <= now) {
        if (write(l->to, p + 1, p->size) < 0) l->refused++; /* as a network would: it is lost */
        l->tail += sizeof *p + round_up(p->size);
    }
    return p ? p->release_ns : UINT64_MAX;
}

static int lane_open(struct lane *l, int from, int to)
{
    *l = (struct lane){.from = from, .to = to};
    l->ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return l->ring == MAP_FAILED ? fail("memory") : 0;
}

static void wait_until(struct lane lanes[2], uint64_t release_ns)
{
    struct pollfd fds[2];
    struct timespec wait;
    uint64_t now = now_ns(), left = release_ns > now ? release_ns - now : 0;
    for (int i = 0; i < 2; i++) fds[i] = (struct pollfd){.fd = lanes[i].from, .events = POLLIN};
    wait = (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
    (void)ppoll(fds, 2, release_ns == UINT64_MAX ? NULL : &wait, NULL);
}

static void run(struct lane lanes[2], uint64_t delay_ns)
{
    while (!stopping) {
        uint64_t next = UINT64_MAX;
        for (int i = 0; i < 2; i++) {
            lane_read(&lanes[i], delay_ns);
            uint64_t release = lane_write(&lanes[i]);
            next = release < next ? release : next;
        }
        wait_until(lanes, next);
    }
}

int main(int count, char **words)
{
    struct lane lanes[2];
    struct sigaction action = {.sa_handler = on_signal};
    char *end = NULL;
    double ms = count == 4 ? strtod(words[3], &end) : -1;
    if (!(ms >= 0 && ms <= 10000) || *end != '\0') {
        fprintf(stderr, "usage: delay NEAR FAR MILLISECONDS   (files of two network namespaces; one way)\n");
        return 2;
    }
    int near = open_device(words[1]), far = near < 0 ? -1 : open_device(words[2]);
    if (near < 0 || far < 0) return 1;
    if (lane_open(&lanes[0], near, far) < 0 || lane_open(&lanes[1], far, near) < 0) return 1;
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    printf("ready\n");
    fflush(stdout);
    run(lanes, (uint64_t)(ms * 1e6));
    printf("packets %llu %llu lost or late %llu %llu\n", (unsigned long long)lanes[0].packets,
           (unsigned long long)lanes[1].packets, (unsigned long long)lanes[0].refused,
           (unsigned long long)lanes[1].refused);
    return 0;
}

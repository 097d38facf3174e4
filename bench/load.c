/* load: both ends of every measurement in one program.
 *
 *   load origin --port P      echo on P, sink on P+1, source on P+2, idle on P+3, HTTP on P+4, verify on P+5,
 *                             fill on P+6, echo of datagrams on UDP P+7, paced source on P+8
 *   load names --listen A:P   a name server for --by-name, see names.h
 *   load bulk|rtt|connect|idle|verify|http|udp --via WAY --proxy A:P --target A:P ...
 *
 * Client and origin usually share one core while the proxy has the other, so both are built to be cheap: one thread,
 * one epoll set, one static block of bytes to send, MSG_TRUNC to throw away what arrives without copying it.
 *
 * Here are the client's loop and its result. A result is one line of JSON on stdout. Nothing waits for ever: flows have
 * a time limit, and SIGALRM ends the program when the loop itself should stall. */
#include "bench/client.h"
#include "bench/names.h"
#include "bench/origin.h"
#include "bench/pace.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum {
    OPENING_MAX = 64,      /* handshakes in flight while a set of flows is opened */
    LOOP_TICK_MS = 20,     /* how often limits are looked at */
    WATCHDOG_SECONDS = 60, /* on top of all limits, before SIGALRM ends us */
};

#define TICK_NS (LOOP_TICK_MS * UINT64_C(1000000))

/* Connections at a rate: each takes a slot when it is due. */
static void client_open_due(struct client *c)
{
    uint64_t now = clock_ns(), due;
    while (!c->stopping && c->closed_count > 0 && (due = pace_due(c, now)) != 0) {
        pace_step(c);
        flow_open(c, &c->flows[c->closed[--c->closed_count]], due);
    }
}

static bool client_opens_at_rate(const struct client *c)
{
    return c->o.mode == &mode_connect && c->pace.interval_ns > 0;
}

static void client_open_flows(struct client *c)
{
    if (client_opens_at_rate(c)) {
        client_open_due(c);
        return;
    }
    size_t limit = c->o.mode->churns ? c->total : OPENING_MAX;
    size_t todo = c->stopping ? 0 : c->closed_count; /* a flow that fails at once is for the next round */
    if (!c->o.mode->churns && todo > c->total - c->opened) todo = c->total - c->opened;
    while (todo-- > 0 && c->opening < limit) flow_open(c, &c->flows[c->closed[--c->closed_count]], clock_ns());
}

/* Operations of open flows at a rate. */
static void client_start_due(struct client *c)
{
    uint64_t now = clock_ns(), due;
    struct flow *f;
    if (client_opens_at_rate(c) || c->stopping) return;
    while ((f = TAILQ_FIRST(&c->pace.resting)) && (due = pace_due(c, now)) != 0) {
        pace_step(c);
        pace_leave(c, f);
        f->sent = due;
        c->o.mode->start(c, f);
    }
}

static void client_check_limits(struct client *c)
{
    uint64_t now = clock_ns(), limit = (uint64_t)(c->o.timeout * 1e9);
    for (size_t i = 0; i < c->total; i++) {
        struct flow *f = &c->flows[i];
        if (f->phase == PHASE_RUN && c->o.mode->tick) c->o.mode->tick(c, f);
        bool waits = f->phase != PHASE_CLOSED && (f->phase < PHASE_PARKED || c->o.mode->churns) && !f->rests;
        if (!waits || now - f->opened < limit || f->opened > now) continue;
        c->timeouts++;
        flow_fail(c, f, "timeout");
    }
}

/* Until the next operation is due that can begin, a tick at most. */
static struct timespec client_wait_time(const struct client *c)
{
    uint64_t ns = TICK_NS;
    bool opens = !c->stopping && c->closed_count > 0;
    if (client_opens_at_rate(c) ? opens : !TAILQ_EMPTY(&c->pace.resting)) {
        double left = c->pace.next_ns - (double)clock_ns();
        if (left < (double)ns) ns = left > 0 ? (uint64_t)left : 0;
    } else if (opens && (c->o.mode->churns || c->opened < c->total)) {
        ns = 1000000;
    }
    return (struct timespec){.tv_nsec = (long)ns};
}

/* One turn: wait for events at most a tick, serve them, and look at the limits now and then. */
static void client_turn(struct client *c)
{
    static uint64_t checked;
    struct epoll_event events[EVENTS_MAX];
    struct timespec wait = client_wait_time(c);
    int count = epoll_pwait2(c->epoll, events, EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < count; i++) {
        uint32_t key = events[i].data.u32;
        if (key & KEY_ASSOCIATION)
            association_on_event(c, &c->flows[key & ~KEY_ASSOCIATION]);
        else
            flow_on_event(c, &c->flows[key], events[i].events);
    }
    client_open_flows(c);
    client_start_due(c);
    if (clock_ns() - checked < TICK_NS) return;
    client_check_limits(c);
    checked = clock_ns();
}

static void client_open_all(struct client *c)
{
    if (c->o.mode->churns) return;
    client_open_flows(c);
    while (c->opened < c->total || c->opening > 0) {
        client_turn(c);
        client_open_flows(c);
    }
    for (size_t i = 0; i < c->total; i++)
        if (c->flows[i].phase == PHASE_PARKED) flow_run(c, &c->flows[i]);
}

static void client_forget(struct client *c)
{
    c->bytes = c->rounds = c->lost = c->pace.begun = 0;
    if (c->o.mode->churns) c->unseen = c->opened;
    memset(&c->times, 0, sizeof c->times);
}

static void client_run_for(struct client *c, double seconds)
{
    uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);
    while (clock_ns() < end && (c->o.mode->churns || c->open > 0)) client_turn(c);
}

static void client_announce(const struct client *c)
{
    if (!c->o.announce) return;
    printf("{\"event\":\"ready\",\"open\":%zu,\"filled\":%llu,\"errors\":%llu,\"first_error\":\"%s\"}\n", c->open,
           (unsigned long long)c->bytes, (unsigned long long)c->errors, c->first_error);
    fflush(stdout);
}

/* Orderly: flows on their way may end, so that their number is not cut off into resets the proxy has to clean up. */
static void client_drain(struct client *c)
{
    uint64_t end = clock_ns() + SECOND_NS;
    c->stopping = true;
    while (c->o.mode == &mode_connect && c->opening + c->open > 0 && clock_ns() < end) client_turn(c);
}

/* Holds what is open until stdin ends; the descriptors still get their events, to notice what is lost. */
static void client_hold(struct client *c)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = c->epoll, .events = POLLIN}};
    char discarded[256];
    alarm(0);
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        if (fds[1].revents) client_turn(c);
        if (fds[0].revents && read(STDIN_FILENO, discarded, sizeof discarded) <= 0) return;
    }
}

static void client_print_times(const struct client *c, double seconds)
{
    printf(",\"count\":%llu,\"rate\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f",
           (unsigned long long)c->rounds, (double)c->rounds / seconds, histogram_quantile_us(&c->times, 0.5),
           histogram_quantile_us(&c->times, 0.99), histogram_quantile_us(&c->times, 0.999));
}

static void client_print(const struct client *c, double seconds)
{
    const struct mode *mode = c->o.mode;
    printf("{\"mode\":\"%s\",\"via\":\"%s\",\"flows\":%u,\"seconds\":%.4f,\"open\":%zu,\"opened\":%zu", mode->name,
           via_names[c->o.via], c->o.flows, seconds, c->open, c->opened - c->unseen);
    if (mode == &mode_bulk || mode == &mode_verify)
        printf(",\"bytes\":%llu,\"gb\":%.4f,\"gbit_s\":%.3f", (unsigned long long)c->bytes, (double)c->bytes / 1e9,
               (double)c->bytes * 8 / 1e9 / seconds);
    else if (mode != &mode_idle)
        client_print_times(c, seconds);
    if (mode == &mode_verify) printf(",\"verified\":%zu", c->finished);
    if (c->o.rate > 0) printf(",\"begun\":%llu", (unsigned long long)c->pace.begun);
    if (mode == &mode_udp) printf(",\"lost\":%llu", (unsigned long long)c->lost);
    printf(",\"mismatches\":%llu,\"errors\":%llu,\"timeouts\":%llu,\"first_error\":\"%s\"}\n",
           (unsigned long long)c->mismatches, (unsigned long long)c->errors, (unsigned long long)c->timeouts,
           c->first_error);
    fflush(stdout);
}

static void client_init(struct client *c)
{
    c->epoll = epoll_make();
    c->total = (size_t)c->o.flows + c->o.idle_flows;
    c->flows = calloc(c->total, sizeof *c->flows);
    c->closed = calloc(c->total, sizeof *c->closed);
    if (!c->flows || !c->closed) die("out of memory");
    TAILQ_INIT(&c->pace.resting);
    for (size_t i = 0; i < c->total; i++) {
        c->flows[i].fd = -1;
        c->closed[c->closed_count++] = (uint32_t)(c->total - 1 - i);
    }
}

static bool client_succeeded(const struct client *c, size_t open)
{
    if (c->o.mode == &mode_verify) return c->finished == c->total && !c->mismatches && !c->errors;
    if (c->o.mode == &mode_idle) return open == c->total;
    return c->bytes + c->rounds > 0 && !c->mismatches;
}

static int client_main(struct client *c)
{
    client_init(c);
    pace_begin(c, clock_ns());
    client_open_all(c);
    bool timed = c->o.mode != &mode_idle && c->o.mode != &mode_verify;
    c->pace.next_ns = (double)clock_ns();
    if (timed) client_run_for(c, c->o.warmup);
    if (timed) client_forget(c);
    uint64_t start = clock_ns();
    client_announce(c);
    if (c->o.mode == &mode_idle)
        client_hold(c);
    else
        client_run_for(c, c->o.seconds);
    double seconds = (double)(clock_ns() - start) / 1e9;
    size_t open = c->open;
    client_print(c, seconds);
    client_drain(c);
    return client_succeeded(c, open) ? 0 : 1;
}

/* ---- The program ---- */

/* One descriptor a flow: take what the administrator allows. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_alarm(int signal_number)
{
    static const char text[] = "load: the watchdog ended a run that did not end itself\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(4);
    _exit(3);
}

int main(int count, char **arguments)
{
    static struct client client;
    parse_options(&client.o, count, arguments);
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* operations at a rate are to begin when they should */
    wire_fill();
    const struct options *o = &client.o;
    if (o->role == ROLE_ORIGIN) origin_run(o->port, o->device);
    if (o->role == ROLE_NAMES) names_run(&o->listen);
    unsigned rounds = (unsigned)o->flows / OPENING_MAX + 1; /* of opening flows */
    double opening = o->timeout * rounds;
    alarm((unsigned)(o->seconds + o->warmup + (opening < 3600 ? opening : 3600)) + WATCHDOG_SECONDS);
    return client_main(&client);
}

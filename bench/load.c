/* load: both ends of every measurement in one program.
 *
 *   load origin --port P      echo on P, sink on P+1, source on P+2, idle on P+3, HTTP on P+4, verify on P+5
 *   load bulk|rtt|connect|idle|verify --via WAY --proxy A:P --target A:P ...
 *
 * Client and origin usually share one core while the proxy has the other, so both are built to be cheap: one thread,
 * one epoll set, one static block of bytes to send, MSG_TRUNC to throw away what arrives without copying it.
 *
 * Here are the client's loop and its result. A result is one line of JSON on stdout. Nothing waits for ever: flows have
 * a time limit, and SIGALRM ends the program when the loop itself should stall. */
#include "bench/client.h"
#include "bench/origin.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    OPENING_MAX = 64,      /* handshakes in flight while a set of flows is opened */
    LOOP_TICK_MS = 20,     /* how often limits are looked at */
    WATCHDOG_SECONDS = 60, /* on top of all limits, before SIGALRM ends us */
};

static void client_open_flows(struct client *c)
{
    size_t limit = c->o.mode->churns ? c->o.flows : OPENING_MAX;
    size_t todo = c->stopping ? 0 : c->closed_count; /* a flow that fails at once is for the next round */
    if (!c->o.mode->churns && todo > c->o.flows - c->opened) todo = c->o.flows - c->opened;
    while (todo-- > 0 && c->opening < limit) flow_open(c, &c->flows[c->closed[--c->closed_count]]);
}

static void client_check_limits(struct client *c)
{
    uint64_t now = clock_ns(), limit = (uint64_t)(c->o.timeout * 1e9);
    for (unsigned i = 0; i < c->o.flows; i++) {
        struct flow *f = &c->flows[i];
        bool waits = f->phase != PHASE_CLOSED && (f->phase < PHASE_PARKED || c->o.mode->churns);
        if (!waits || now - f->opened < limit) continue;
        c->timeouts++;
        flow_fail(c, f, "timeout");
    }
}

/* One turn: wait for events at most a tick, serve them, and look at the limits now and then. */
static void client_turn(struct client *c)
{
    static uint64_t checked;
    struct epoll_event events[EVENTS_MAX];
    bool has_work = !c->stopping && c->closed_count > 0 && (c->o.mode->churns || c->opened < c->o.flows);
    int count = epoll_wait(c->epoll, events, EVENTS_MAX, has_work ? 1 : LOOP_TICK_MS);
    for (int i = 0; i < count; i++) flow_on_event(c, &c->flows[events[i].data.u32], events[i].events);
    client_open_flows(c);
    if (clock_ns() - checked < LOOP_TICK_MS * UINT64_C(1000000)) return;
    client_check_limits(c);
    checked = clock_ns();
}

static void client_open_all(struct client *c)
{
    if (c->o.mode->churns) return;
    client_open_flows(c);
    while (c->opened < c->o.flows || c->opening > 0) {
        client_turn(c);
        client_open_flows(c);
    }
    for (unsigned i = 0; i < c->o.flows; i++)
        if (c->flows[i].phase == PHASE_PARKED) flow_run(c, &c->flows[i]);
}

static void client_forget(struct client *c)
{
    c->bytes = c->rounds = 0;
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
    printf("{\"event\":\"ready\",\"open\":%zu,\"errors\":%llu,\"first_error\":\"%s\"}\n", c->open,
           (unsigned long long)c->errors, c->first_error);
    fflush(stdout);
}

/* Orderly: flows on their way may end, so that their number is not cut off into resets the proxy has to clean up. */
static void client_drain(struct client *c)
{
    uint64_t end = clock_ns() + SECOND_NS;
    c->stopping = true;
    while (c->o.mode->churns && c->opening + c->open > 0 && clock_ns() < end) client_turn(c);
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

static void client_print(const struct client *c, double seconds)
{
    const struct options *o = &c->o;
    printf("{\"mode\":\"%s\",\"via\":\"%s\",\"flows\":%u,\"seconds\":%.4f,\"open\":%zu", o->mode->name,
           via_names[o->via], o->flows, seconds, c->open);
    if (o->mode == &mode_bulk || o->mode == &mode_verify)
        printf(",\"bytes\":%llu,\"gb\":%.4f,\"gbit_s\":%.3f", (unsigned long long)c->bytes, (double)c->bytes / 1e9,
               (double)c->bytes * 8 / 1e9 / seconds);
    if (o->mode == &mode_rtt || o->mode == &mode_connect)
        printf(",\"count\":%llu,\"rate\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f", (unsigned long long)c->rounds,
               (double)c->rounds / seconds, histogram_quantile_us(&c->times, 0.5),
               histogram_quantile_us(&c->times, 0.99));
    if (o->mode == &mode_verify)
        printf(",\"verified\":%zu,\"mismatches\":%llu", c->finished, (unsigned long long)c->mismatches);
    printf(",\"errors\":%llu,\"timeouts\":%llu,\"first_error\":\"%s\"}\n", (unsigned long long)c->errors,
           (unsigned long long)c->timeouts, c->first_error);
    fflush(stdout);
}

static void client_init(struct client *c)
{
    c->epoll = epoll_make();
    c->flows = calloc(c->o.flows, sizeof *c->flows);
    c->closed = calloc(c->o.flows, sizeof *c->closed);
    if (!c->flows || !c->closed) die("out of memory");
    for (unsigned i = 0; i < c->o.flows; i++) {
        c->flows[i].fd = -1;
        c->closed[c->closed_count++] = c->o.flows - 1 - i;
    }
}

static bool client_succeeded(const struct client *c, size_t open)
{
    if (c->o.mode == &mode_verify) return c->finished == c->o.flows && !c->mismatches && !c->errors;
    if (c->o.mode == &mode_idle) return open == c->o.flows;
    return c->bytes + c->rounds > 0;
}

static int client_main(struct client *c)
{
    client_init(c);
    client_open_all(c);
    bool timed = c->o.mode != &mode_idle && c->o.mode != &mode_verify;
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
    memset(wire_block, 'x', sizeof wire_block);
    if (!client.o.mode) origin_run(client.o.port);
    const struct options *o = &client.o;
    unsigned rounds = (unsigned)o->flows / OPENING_MAX + 1; /* of opening flows */
    double opening = o->timeout * rounds;
    alarm((unsigned)(o->seconds + o->warmup + (opening < 3600 ? opening : 3600)) + WATCHDOG_SECONDS);
    return client_main(&client);
}

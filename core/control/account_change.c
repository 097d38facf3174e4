#include "core/control/account_change.h"

#include "core/control/coordinator.h"
#include "core/control/coordinator_private.h"

/* What has been made elsewhere comes into force here. */
static void on_change(struct letter *letter)
{
    struct checkers_order *order = link_owner(letter, struct checkers_order, letter);
    struct account_change *change = (struct account_change *)order;
    const struct users_job *job = &order->job;
    const char *wrong = order->stopped ? "the server stops" : *job->why ? job->why : NULL;
    const struct users_change to = {.hash = job->texts.hash,
                                    .groups = change->has_groups ? job->texts.groups : NULL,
                                    .limit = change->has_limit ? job->texts.limit : NULL};
    if (!wrong && job->removes)
        (void)users_remove(change->users, job->name);
    else if (!wrong)
        wrong = users_put(change->users, job->name, &to);
    change->done(change, wrong);
}

/* On the desk's thread. */
static void on_order_done(struct checkers_order *order, struct ring *ring)
{
    struct account_change *change = (struct account_change *)order;
    order->letter.deliver = on_change;
    coordinator_post(change->coordinator, ring, &order->letter);
}

void coordinator_change_user(struct coordinator *c, struct account_change *change)
{
    change->coordinator = c;
    change->order.done = on_order_done;
    checkers_take_order(c->checkers, &change->order);
}

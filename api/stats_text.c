#include "api/stats_text.h"

#include <math.h>
#include <stdio.h>

/* Three digits, more where the unit has no larger one. */
static void write_scaled(char *out, double value, const char *unit)
{
    double magnitude = fabs(value);
    int decimals = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : 2;
    snprintf(out, STATS_TEXT_SIZE, "%.*f%s", decimals, value, unit);
}

/* A unit is left when it would show 2048 or more. */
char *stats_text_bytes(char out[STATS_TEXT_SIZE], double octets)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    if (octets == 0) {
        snprintf(out, STATS_TEXT_SIZE, "0");
        return out;
    }
    while (fabs(octets) >= 2048 && unit + 1 < sizeof units / sizeof *units) {
        octets /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(out, STATS_TEXT_SIZE, "%.0fB", octets);
    else
        write_scaled(out, octets, units[unit]);
    return out;
}

char *stats_text_count(char out[STATS_TEXT_SIZE], double count)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    size_t unit = 0;
    while (fabs(count) >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        count /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(out, STATS_TEXT_SIZE, "%.0f", count);
    else
        write_scaled(out, count, units[unit]);
    return out;
}

/* Minutes and more, as clocks show them. */
static void write_clock(char *out, double seconds)
{
    unsigned long long whole = (unsigned long long)seconds;
    unsigned hours = (unsigned)(whole / 3600 % 24), minutes = (unsigned)(whole / 60 % 60),
             rest = (unsigned)(whole % 60);
    if (seconds >= 86400)
        snprintf(out, STATS_TEXT_SIZE, "%llud%02u:%02u:%02u", whole / 86400, hours, minutes, rest);
    else if (seconds >= 3600)
        snprintf(out, STATS_TEXT_SIZE, "%u:%02u:%02u", hours, minutes, rest);
    else if (seconds >= 600)
        snprintf(out, STATS_TEXT_SIZE, "%u:%02u", minutes, rest);
    else
        snprintf(out, STATS_TEXT_SIZE, "%u:%04.1f", minutes, seconds - minutes * 60.0);
}

char *stats_text_duration(char out[STATS_TEXT_SIZE], double seconds)
{
    if (!(seconds > 0))
        snprintf(out, STATS_TEXT_SIZE, "0");
    else if (seconds >= 60)
        write_clock(out, seconds);
    else if (seconds >= 10)
        snprintf(out, STATS_TEXT_SIZE, "%.2fs", seconds);
    else if (seconds >= 1)
        snprintf(out, STATS_TEXT_SIZE, "%.0fms", seconds * 1e3);
    else if (seconds >= 0.1)
        snprintf(out, STATS_TEXT_SIZE, "%.1fms", seconds * 1e3);
    else if (seconds >= 0.01)
        snprintf(out, STATS_TEXT_SIZE, "%.2fms", seconds * 1e3);
    else if (seconds >= 0.001)
        snprintf(out, STATS_TEXT_SIZE, "%.3fms", seconds * 1e3);
    else if (seconds >= 100e-6)
        snprintf(out, STATS_TEXT_SIZE, "%.1f\302\265s", seconds * 1e6);
    else if (seconds >= 10e-6)
        snprintf(out, STATS_TEXT_SIZE, "%.2f\302\265s", seconds * 1e6);
    else
        snprintf(out, STATS_TEXT_SIZE, "%.0fns", seconds * 1e9);
    return out;
}

#include "core/process/option_help.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/process/option_table.h"

#define HELP_COLUMN 30 /* where the descriptions begin */
#define HELP_WIDTH  80

static const char *const group_titles[] = {
    [GROUP_LISTENERS] = "Listeners (-l, --http and -f may be repeated)",
    [GROUP_OUTBOUND] = "Outgoing connections",
    [GROUP_SCRIPTS] = "Scripts and API",
    [GROUP_LIMITS] = "Limits",
    [GROUP_RELAY] = "Threads and relay",
    [GROUP_LOG] = "Log",
    [GROUP_PROCESS] = "Process",
    [GROUP_INFORMATION] = "Information",
};

/* Prints the words of `text` in lines that end before HELP_WIDTH, all beginning at HELP_COLUMN. */
static void print_wrapped(const char *text)
{
    int column = HELP_COLUMN - 1;

    while (*text) {
        int size = (int)strcspn(text, " ");
        if (column + 1 + size > HELP_WIDTH) {
            printf("\n%*s", HELP_COLUMN - 1, "");
            column = HELP_COLUMN - 1;
        }
        column += printf(" %.*s", size, text);
        text += size + (text[size] ? 1 : 0);
    }
    putchar('\n');
}

static void print_row(const struct option_row *row)
{
    char left[64], short_name[] = {'-', row->short_name, row->long_name ? ',' : '\0', '\0'};

    int used =
        snprintf(left, sizeof(left), "  %-3s%s%s%s%s", row->short_name ? short_name : "", row->long_name ? " --" : "",
                 row->long_name ? row->long_name : "", row->operand ? " " : "", row->operand ? row->operand : "");
    assert(used > 0 && used < (int)sizeof(left));
    if (used > HELP_COLUMN - 2) { /* no room: the description begins on a line of its own */
        puts(left);
        left[0] = '\0';
    }
    printf("%-*s", HELP_COLUMN - 1, left); /* each word brings its blank along */
    print_wrapped(row->help);
}

void option_print_help(void)
{
    puts("sluice " SLUICE_VERSION "\n"
         "A proxy for SOCKS4, SOCKS4A, SOCKS5 and HTTP, a TCP forwarder and a transparent\n"
         "proxy, on io_uring.\n\n"
         "Usage: sluice -l ADDRESS [OPTION]...");
    for (size_t group = 0; group < GROUP_HIDDEN; group++) {
        printf("\n%s:\n", group_titles[group]);
        for (size_t i = 0; i < option_row_count; i++)
            if (option_rows[i].group == group) print_row(&option_rows[i]);
    }
    puts("\nExamples:\n"
         "  sluice -l 127.0.0.1:1080                    SOCKS and HTTP on one port\n"
         "  sluice -l :1080 -x socks5://192.0.2.1:1080  through another proxy\n"
         "  sluice -l :2222 -f 192.0.2.7:22             forward a port");
}

void option_print_version(void)
{
    puts("sluice " SLUICE_VERSION " (needs Linux 6.1 or newer with io_uring)");
}

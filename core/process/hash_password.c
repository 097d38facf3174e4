#include "core/process/hash_password.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "core/control/users.h"

#define PASSWORD_SIZE 1024u /* longer ones are refused by their length */

static int complain(const char *text)
{
    fprintf(stderr, "sluice: --hash-password: %s\n", text);
    return -1;
}

static int read_line(char out[PASSWORD_SIZE])
{
    if (!fgets(out, PASSWORD_SIZE, stdin)) return complain("there is no password on standard input, type or pipe one");
    size_t size = strcspn(out, "\r\n");
    if (size == strlen(out) && !feof(stdin)) return complain("the password is too long, give at most 255 octets");
    out[size] = '\0';
    return 0;
}

static struct termios usual; /* how the terminal was */

/* Whoever gives up in the middle gets the echo back first. */
static void on_signal(int number)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &usual);
    signal(number, SIG_DFL);
    raise(number);
}

static int read_silently(const char *prompt, char out[PASSWORD_SIZE])
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
    struct termios silent;
    if (tcgetattr(STDIN_FILENO, &usual) < 0) return complain(strerror(errno));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) signal(numbers[i], on_signal);
    signal(SIGTSTP, SIG_IGN);
    silent = usual;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    silent.c_lflag |= ECHONL;
    int result = tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) < 0 ? complain(strerror(errno)) : 0;
    fputs(prompt, stderr);
    if (result == 0) result = read_line(out);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &usual);
    return result;
}

static int read_password(char out[PASSWORD_SIZE])
{
    char again[PASSWORD_SIZE];
    if (!isatty(STDIN_FILENO)) return read_line(out);
    int result = read_silently("Password: ", out);
    if (result == 0) result = read_silently("Once more: ", again);
    if (result == 0 && strcmp(out, again) != 0) result = complain("the two are not the same, try again");
    explicit_bzero(again, sizeof again);
    return result;
}

int hash_password_run(void)
{
    char password[PASSWORD_SIZE], hash[USERS_SETTING_SIZE];
    int result = read_password(password);
    const char *wrong = result == 0 ? users_hash_password(password, hash) : NULL;
    explicit_bzero(password, sizeof password);
    if (wrong) return complain(wrong);
    if (result == 0) puts(hash);
    return result;
}

/* --hash-password: a password becomes a line for a file of users. */
#ifndef SLUICE_CORE_PROCESS_HASH_PASSWORD_H
#define SLUICE_CORE_PROCESS_HASH_PASSWORD_H

/* Asks for it twice on the terminal, without echo, or reads the first line of standard input where that is none. Prints
 * the hash on standard output. 0, or -1 after one line on stderr. */
int hash_password_run(void);

#endif

/* What the parts of the guest agent share: fixed limits, and functions that either do a thing or say why not.
 *
 * Every function that can fail returns NULL for success, else a few words for the server. Nothing is allocated;
 * whatever comes from outside has a limit below.
 */
#ifndef GATEHOUSE_AGENT_H
#define GATEHOUSE_AGENT_H

#include <stddef.h>

/* The longest request with its newline, in bytes. */
#define LINE_MAX_BYTES (16 * 1024)
/* The largest of /etc/passwd, /etc/shadow and /etc/group that can be changed. */
#define TABLE_MAX_BYTES (64 * 1024)
#define USER_MAX 32
#define PASSWORD_MAX 512
#define HASH_MAX 256
#define HOSTNAME_CHARS_MAX 63

/* The user of the image before it is set up. */
#define ENDPOINT "endpoint"

typedef const char *failure;

/* account.c */

/* Makes the one user of this machine and locks the endpoint; works once.
 * hash is in crypt(3) form; keys is the text of an authorized_keys file of keys_length bytes, or NULL. */
failure account_setup(const char *user, const char *hash, const char *port, const char *keys, size_t keys_length);
/* Hashes a password for account_setup. Returns NULL in *hash's place only with a failure. */
failure account_hash(const char *password, char hash[HASH_MAX]);
/* Replaces the authorized_keys of the user that was set up. */
failure account_keys(const char *keys, size_t keys_length);
/* Whether this TCP port has a listener. */
int port_listens(unsigned port);

/* identity.c */

failure identity_entropy(const unsigned char *seed, size_t length);
failure identity_clock(const char *nanos);
failure identity_hostname(const char *name);
failure identity_machine_id(const char *id);
failure identity_mac(const char *address);
failure identity_host_key(const unsigned char *key, size_t length);

/* files.c */

/* Replaces the file at path by these bytes at once: nobody sees half of it. */
failure file_replace(const char *path, const void *bytes, size_t length, unsigned mode);
/* Reads a whole file of less than size bytes and ends it with a NUL. Returns its length, or -1. */
long file_read(const char *path, char *bytes, size_t size);
/* Writes all bytes to a descriptor. Returns 0, or -1. */
int write_all(int fd, const void *bytes, size_t length);
/* Decodes standard, padded base64 in place. Returns the number of bytes, or -1. */
long base64_decode(char *text);
/* Reads a decimal number of 1 to digits_max digits, at most max. Returns 0, or -1. */
int number_read(const char *text, unsigned digits_max, unsigned long long max, unsigned long long *number);

#endif

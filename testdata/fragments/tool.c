/* What busybox lacks: sockets, capabilities of files, and holes. The base of the fragments has it in
 * /bin/tool. Linked without shared libraries, since the base has none.
 *
 *   tool socket PATH           makes a socket
 *   tool setcap PATH           gives a file the capability to bind low ports
 *   tool getcap PATH           prints the attribute's bytes, or `none`
 *   tool setattr PATH NAME VALUE
 *   tool blocks PATH           prints `sparse` if a file holds fewer blocks than its size needs
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

static const char CAPABILITY[] = "security.capability";
/* Version 2, effective; permitted: CAP_NET_BIND_SERVICE (10). See linux/capability.h. */
static const unsigned char VALUE[20] = {1, 0, 0, 2, 0, 4};

static int make_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    return made < 0 || bind(made, (struct sockaddr *)&address, sizeof address) != 0;
}

static int get_capability(const char *path) {
    unsigned char value[64];
    ssize_t length = getxattr(path, CAPABILITY, value, sizeof value);
    /* In a user namespace the kernel may add whose root it is; what it permits stands in front. */
    if (length < 8)
        return puts("none") < 0;
    return printf("%02x%02x%02x%02x\n", value[4], value[5], value[6], value[7]) < 0;
}

int main(int count, char **words) {
    int failed = 1;
    struct stat found;
    if (count == 3 && !strcmp(words[1], "socket"))
        failed = make_socket(words[2]);
    else if (count == 3 && !strcmp(words[1], "setcap"))
        failed = setxattr(words[2], CAPABILITY, VALUE, sizeof VALUE, 0) != 0;
    else if (count == 3 && !strcmp(words[1], "getcap"))
        failed = get_capability(words[2]);
    else if (count == 5 && !strcmp(words[1], "setattr"))
        failed = setxattr(words[2], words[3], words[4], strlen(words[4]), 0) != 0;
    else if (count == 3 && !strcmp(words[1], "blocks") && stat(words[2], &found) == 0)
        failed = puts(found.st_blocks * 512 < found.st_size ? "sparse" : "full") < 0;
    if (failed)
        perror(count > 1 ? words[1] : "tool");
    return failed;
}

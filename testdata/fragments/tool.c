/* What busybox lacks: sockets, capabilities of files, and holes. The base of the fragments has it in
 * /bin/tool. Linked without shared libraries, since the base has none.
 *
 *   tool socket PATH           makes a socket
 *   tool setcap PATH           gives a file the capability to bind low ports
 *   tool getcap PATH           prints the attribute's bytes, or `none`
 *   tool setattr PATH NAME VALUE
 *   tool blocks PATH           prints `sparse` if a file holds fewer blocks than its size needs
 *   tool list                  prints all that a step can see of the image's files
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

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

/* A file's bytes in one number; FNV-1a. */
static unsigned long digest(const char *path) {
    unsigned long sum = 0xcbf29ce484222325;
    FILE *file = fopen(path, "r");
    for (int byte; file && (byte = fgetc(file)) != EOF;)
        sum = (sum ^ (unsigned char)byte) * 0x100000001b3;
    if (file)
        fclose(file);
    return sum;
}

static void list_attributes(const char *path) {
    char names[4096], value[4096];
    ssize_t length = llistxattr(path, names, sizeof names);
    for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = lgetxattr(path, name, value, sizeof value);
        if (strncmp(name, "user.", 5) || !strncmp(name, "user.overlay.", 13))
            continue;
        printf(" %s=", name);
        for (ssize_t at = 0; at < size; at++)
            printf("%02x", (unsigned char)value[at]);
    }
}

/* The first name of a file that has several, if this is not it. */
static void list_first_name(const char *path, const struct stat *found) {
    static struct { dev_t device; ino_t inode; char *path; } known[1000];
    static int count;
    for (int at = 0; at < count; at++) {
        if (known[at].device == found->st_dev && known[at].inode == found->st_ino) {
            printf(" is %s", known[at].path);
            return;
        }
    }
    if (count < 1000) {
        known[count].device = found->st_dev;
        known[count].inode = found->st_ino;
        known[count++].path = strdup(path);
    }
}

static int list(const char *path) {
    /* These are no files of the image's. */
    for (const char **own = (const char *[]){"/dev", "/proc", "/sys", "/etc/hosts", "/etc/resolv.conf", NULL}; *own; own++)
        if (!strcmp(path, *own))
            return 0;
    struct stat found;
    struct dirent **names;
    if (lstat(*path ? path : "/", &found) != 0)
        return 1;
    printf("%s %o %u:%u %ld.%ld", path, found.st_mode, found.st_uid, found.st_gid, (long)found.st_mtim.tv_sec,
           (long)found.st_mtim.tv_nsec);
    if (S_ISREG(found.st_mode))
        printf(" %ld %lx", (long)found.st_size, digest(path));
    if (S_ISLNK(found.st_mode)) {
        char target[4096];
        ssize_t length = readlink(path, target, sizeof target);
        printf(" %.*s", (int)length, target);
    }
    list_attributes(*path ? path : "/");
    if (!S_ISDIR(found.st_mode)) {
        if (found.st_nlink > 1)
            list_first_name(path, &found);
        return puts("") < 0;
    }
    puts("");
    int count = scandir(*path ? path : "/", &names, NULL, alphasort), failed = count < 0;
    for (int at = 0; at < count; at++) {
        char *below;
        if (strcmp(names[at]->d_name, ".") && strcmp(names[at]->d_name, "..") &&
            asprintf(&below, "%s/%s", path, names[at]->d_name) > 0)
            failed |= list(below);
    }
    return failed;
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
    else if (count == 2 && !strcmp(words[1], "list"))
        failed = list("");
    if (failed)
        perror(count > 1 ? words[1] : "tool");
    return failed;
}

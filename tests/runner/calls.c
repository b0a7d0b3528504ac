/* A step that asks for sockets, and for System V and POSIX objects: each with its errno or 0. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>

#define TRY(name, call) do { errno = 0; long done = (call); printf("%s %d\n", name, done < 0 ? errno : 0); } while (0)

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "sockets")) {
        TRY("packet", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
        TRY("packet-datagram", socket(AF_PACKET, SOCK_DGRAM, 0x300));
        TRY("old-packet", socket(AF_INET, 10, 0x300));
        TRY("xdp", socket(44, SOCK_RAW, 0));
        TRY("raw", socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, 1));
        TRY("raw6", socket(AF_INET6, SOCK_RAW, 58));
        TRY("stream", socket(AF_INET, SOCK_STREAM, 0));
        TRY("datagram", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        TRY("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
        TRY("unix", socket(AF_UNIX, SOCK_RAW, 0));
    } else {
        struct mq_attr attributes = {0, 1, 1, 0};
        int id;
        TRY("shmget", id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
        TRY("shmctl", shmctl(id, IPC_RMID, 0));
        TRY("semget", id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600));
        TRY("semctl", semctl(id, 0, IPC_RMID));
        TRY("msgget", id = msgget(IPC_PRIVATE, IPC_CREAT | 0600));
        TRY("msgctl", msgctl(id, IPC_RMID, 0));
        TRY("mq_open", mq_open("/pyats-image-build-test", O_CREAT | O_RDWR, 0600, &attributes));
        TRY("mq_unlink", mq_unlink("/pyats-image-build-test"));
    }
    return 0;
}

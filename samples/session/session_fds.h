// THE place where descriptors are left out of the comparison. A session keeps four of its own open in every process, at
// numbers that cost it nothing. Natively these numbers are free.
#ifndef SESSION_FDS_H
#define SESSION_FDS_H

#define SESSION_FD_MIN (sizeof(long) == 8 ? 56 : 26)
#define SESSION_FD_MAX (SESSION_FD_MIN + 3)
// The second of them is the image.
#define SESSION_FD_IMAGE (SESSION_FD_MIN + 1)
static inline int of_session(long fd) { return fd >= SESSION_FD_MIN && fd <= SESSION_FD_MAX; }

#endif

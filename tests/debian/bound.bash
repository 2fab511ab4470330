# Programs, libraries and scripts of a directory that is the host's, beside those of the image: from their own files.
#= own text: 1
#= /tmp/busybox
#= BusyB0x
#= own bash: 1
#= xip from /tmp/busybox
#= own library: 1
#= from /tmp, by perl: 3 a b
#= by python: 42
#= of the image: 1
#= 100
#= replaced
# How often the text of a file is mapped in what /proc/PID/maps says.
text_of() {
    grep -c "r-xp.* $1\$" || true
}
cp /bin/busybox-static busybox
echo own text: $(./busybox cat /proc/self/maps | text_of /tmp/busybox)
./busybox readlink /proc/self/exe
LC_ALL=C sed 's/BusyBox v/BusyB0x v/' busybox > busybox-changed
chmod 755 busybox-changed
./busybox-changed | sed -n '1s/ .*//p'
cp /bin/bash shell
echo own bash: $(./shell -c 'cat /proc/$$/maps; :' | text_of /tmp/shell)
./shell -c 'exec -a busybox-named ./busybox sh -c "echo \$(/bin/cat /etc/hostname) from \$(readlink /proc/\$\$/exe)"'
mkdir lib
cp /lib/*/libtinfo.so.6 lib
echo own library: $(LD_LIBRARY_PATH=/tmp/lib /bin/bash -c 'cat /proc/$$/maps; :' | text_of /tmp/lib/libtinfo.so.6)
printf '#!/usr/bin/perl\nprint "from /tmp, by perl: ", scalar @ARGV, " @ARGV[0, 1]\n";\n' > script
chmod 755 script
env -C / PATH=/tmp script a b c
printf '#!/tmp/busybox sh\n/usr/bin/python3 -c "print(\\"by python:\\", 6 * 7)"\n' > script
./script
./busybox sh -c 'exec /bin/bash -c "exec ./script"'
# The interpreter by name, from the one place and the other.
cp /lib*/ld-linux*.so.* ld.so
./ld.so ./shell -c 'echo by the loader: $0 $BASH_VERSINFO'
./ld.so /bin/bash -c 'echo of the image: $((BASH_VERSINFO > 3))'
for n in {1..100}; do ./busybox true; done
echo $n
# What is written to a file shows in the programs that are started then.
printf '#!/bin/sh\necho replaced\n' > new
chmod 755 new
mv new busybox
./busybox
rm -r busybox busybox-changed shell lib script ld.so

# Scripts and the programs that they name, and all that execve(2) says to them.
#= ./sh: 2 a b c
#= ./found: 0
#= /tmp/sh: 3 inner ./nested outer
#= no interpreter: ./none
#= missing: 127
#= own: 126
#= deleted
#= by descriptor
#= by the loader
#= libc.so.6 =>
script() {
    cat > "$1"
    chmod 755 "$1"
}
script sh <<< $'#!/bin/sh\necho $0: $# "$@"'
./sh
./sh 'a b' c
cp sh found
PATH=/no/such:.:$PATH bash -c found
sh -c 'exec ./found'
script spaces <<< $'#!  \t /bin/sh   -e  \nfalse; echo not reached'
./spaces || echo spaces: $?
script one-argument <<< $'#!/usr/bin/env -S python3 -B\nimport sys; print(sys.argv, sys.flags.dont_write_bytecode)'
./one-argument x
script awk <<< $'#!/usr/bin/awk -f\nBEGIN { print ARGC, ARGV[1] }'
./awk y
script sed <<< $'#!/bin/sed -nf\n$='
./sed /etc/group
script perl <<< $'#!/usr/bin/perl -w\nprint "$0 @ARGV\n"'
./perl z
script nested <<< $'#!/tmp/sh inner\n'
./nested outer
ln -s sh link
./link
script none <<< 'echo no interpreter: $0'
./none
sh -c ./none
env ./none || echo none: $?
python3 -c 'import subprocess; subprocess.run(["./none"])' 2>&1 | tail -n 1 || true
script missing <<< $'#!/no/such\n'
./missing || echo missing: $?
script empty < /dev/null
./empty
script directory <<< $'#!/etc\n'
./directory || echo directory: $?
script long <<< "#!/bin/$(printf %300s x)"
./long 2>&1 | tr -d ' ' || echo long: $?
script own <<< $'#!/tmp/own\n'
./own || echo own: $?
for n in {1..6}; do script chain$n <<< "#!/tmp/chain$((n - 1))"; done
cp sh chain0
./chain3 links
./chain6 links || echo chain: $?
chmod 644 sh
./sh || echo mode: $?

# Files that are gone, or known by their descriptors only.
chmod 755 sh
bash -c 'exec 3< sh; rm sh; exec bash /proc/self/fd/3 deleted' | sed 's/.*: //'
exec 5< /bin/echo
/proc/self/fd/5 by descriptor
cp /bin/true gone
python3 -c 'import os; fd = os.open("gone", os.O_RDONLY); os.unlink("gone"); os.execve(fd, ["gone"], {})'
python3 -c 'import os; fd = os.open("found", os.O_RDONLY); os.set_inheritable(fd, True); os.execve(fd, ["found", "x"], {})' | sed 's/fd.*:/FD:/'
python3 -c 'import os; fd = os.open("found", os.O_RDONLY); os.execve(fd, ["found"], {})' 2>&1 | sed 's/fd.[0-9]*/FD/' || echo close-on-exec: $?
/lib*/ld-linux*.so.* /bin/echo by the loader
printf '\177ELF' > elf
chmod 755 elf
./elf || echo elf: $?
LD_TRACE_LOADED_OBJECTS=1 /bin/bash | sed 's/(.*//'
ldd /bin/python3 | sed 's/(.*//'
python3 -c 'import os; os.execv("/bin/echo", ["echo", "x" * 131071])' | wc -c
python3 -c 'import os; os.execv("/bin/echo", ["echo", "x" * 131072])' 2>&1 | tail -n 1 || true
python3 -c 'import os; os.execv("/bin/echo", ["echo"] + ["x" * 1000] * 1000)' | wc -c
python3 -c 'import os; os.execv("/bin/echo", ["echo"] + ["x" * 1000] * 10000)' 2>&1 | tail -n 1 || true

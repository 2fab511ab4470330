# The same with the Debian system's own programs: dynamically linked, several libraries.
PATH=/usr/bin:/bin
seq 1 300 | grep 7 | sort -r | head -n 20 | tr '\n' ' '
echo "words: $(wc -w </rig/input)"
paste -sd+ <(seq 10)
while read -r line; do echo "read $line"; done < <(sort /rig/input | uniq | tail -n 3)
ls -l /usr/bin/sort | wc -l
env -i A=b env
(sleep 1000 & kill $!; wait $!; echo "killed: $?") 2>/dev/null
readlink /proc/self/exe /proc/$$/exe
exit 7

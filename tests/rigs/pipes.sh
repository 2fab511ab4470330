#!/bin/sh
# Pipes, substitution, files, signals, jobs: what scripts do.
echo "$# arguments"
seq 1 300 | grep 7 | sort -r | head -n 20 | tr '\n' ' '
words=$(cat /rig/input | wc -w)
echo "words: $words"
for name in a b c; do echo "$name" >>/tmp/list; done
sort -r /tmp/list | md5sum
rm /tmp/list
# The shell may or may not say that it was killed.
(sleep 1000 & kill $!; wait $!; echo "killed: $?") 2>/dev/null
echo "to standard error" >&2
trap 'echo trapped' USR1
kill -USR1 $$
cd /tmp && pwd
/no/such/program
echo "status $?"
exit 7

# Background jobs, and how they end.
#= ended with 5
#= the first to end: 9
#= the other: 143
#= 40 jobs
#= THROUGH A COPROCESS
#= continued
#= timeout: 124
#= timeout: 137
#= another
#= cat
for status in 1 2 3 4 5; do
    (sleep 0.0$status; exit $status) &
    pids+=($!)
done
for pid in ${pids[@]}; do
    wait $pid || echo ended with $?
done
(sleep 0.05; exit 9) &
sleep 20 & long=$!
wait -n || echo the first to end: $?
kill $long
wait $long || echo the other: $?
for n in {1..40}; do (exit $((n % 3))) & done
jobs=0
while wait -n || [ $? != 127 ]; do jobs=$((jobs + 1)); done
echo $jobs jobs

coproc upper { while read -r line; do echo "${line^^}"; done; }
upper_pid=$!
echo through a coprocess >&${upper[1]}
read -r line <&${upper[0]}
echo $line
exec {upper[1]}>&-
wait $upper_pid

sh -c 'kill -STOP $$; echo continued' & stopped=$!
until grep -q '^State:.*stopped' /proc/$stopped/status; do sleep 0.01; done
kill -CONT $stopped
wait $stopped

timeout 0.1 sleep 20 || echo timeout: $?
timeout -s KILL 0.1 sleep 20 || echo timeout: $?
nohup echo nohup 2>&1 | cat
env -i /usr/bin/env
nice -n 5 nice
env -C / pwd
xargs -a /etc/group -n 3 -P 4 true
(echo $BASH_SUBSHELL; (echo $BASH_SUBSHELL))
[ $BASHPID = $$ ] && echo same
(exec true)
exec -a another sh -c 'echo $0; exec cat /proc/self/comm'

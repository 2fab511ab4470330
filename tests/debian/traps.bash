# Traps, and signals that end what they should.
#= got USR1
#= line 22 failed
#= a child ended
#= TERM is ignored
#= SEGV: 139 SEGV
#= SYS: 159 SYS
#= last words
#= 143
#= interrupted
#= deeper
#= 141 0
#= handled
#= perl: 4
#= aborted: 134
#= the end: 0
ulimit -c 0
trap 'echo got USR1' USR1
kill -USR1 $$
trap 'echo line $LINENO failed' ERR
set +e
false
set -e
trap - ERR
trap 'echo a child ended' CHLD
(exit 3) & wait $! || echo its status: $?
trap - CHLD
trap '' TERM
sh -c 'kill -TERM $$; echo TERM is ignored'
trap - TERM
# The shell's own words about it have its number in them.
for signal in HUP INT QUIT ILL TRAP ABRT BUS FPE USR1 SEGV USR2 PIPE ALRM TERM SYS XCPU RTMIN+3; do
    bash -c "kill -s $signal \$\$" || echo $signal: $? $(kill -l $?)
done 2>/dev/null
bash -c 'trap "echo last words" EXIT; kill -TERM $$' 2>/dev/null || echo $?
bash -c 'trap "echo interrupted; exit 5" INT TERM; kill -INT $$; echo not reached' || echo $?
(trap 'echo deep' EXIT; (trap 'echo deeper' EXIT; true))
set +o pipefail
yes | sed 1q
echo ${PIPESTATUS[@]}
(yes; echo never) | sed 1q > /dev/null
echo ${PIPESTATUS[@]}
perl -e '$SIG{TERM} = sub { print "handled\n"; exit 4 }; kill TERM => $$; sleep 5' || echo perl: $?
python3 -c 'import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15); print(signal.sigpending())'
python3 -c 'import os; os.abort()' 2>/dev/null || echo aborted: $?
kill -l | md5sum
trap 'echo the end: $?' EXIT
sh -c 'exit 77' || (exit $?) || exit 0

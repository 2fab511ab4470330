# Programs that execute programs: busybox's shell, find, xargs, env and others; coreutils' env. A line for each scenario,
# as the other drivers print it; `#%` lines are what is known to be answered.
cd /
export PATH=/bin SHOW=process
unset OLDPWD

# scenario NAME SCRIPT: what the script prints, in one line, and its status if that is not 0.
scenario() {
    said=$(sh -c "$2" 2>&1 </dev/null; status=$?; [ $status = 0 ] || echo "; exit $status")
    echo "$1: $(echo "$said" | tr '\n' '/')"
}

#% exec: argv=["show","a b","c"]
scenario exec 'exec show "a b" c'
scenario exec-redirected 'SHOW=fds exec show 5</dev/null 6>&1 7<>/dev/null'
scenario exec-closed 'SHOW=fds exec show <&-'
scenario exec-a-script 'exec /scripts/plain x'
#% exec-missing: sh: exec: line 0: /missing: not found/; exit 127/
scenario exec-missing 'exec /missing'
scenario exec-not-executable 'exec /files/mode-0644'
scenario exec-directory 'exec /bin'
scenario exec-environment 'A=1 B="2 3" exec show'
scenario exec-in-subshell '(exec show a); echo then $?'
scenario missing '/missing; echo $?'
scenario missing-in-path 'missing; echo $?'
scenario not-executable '/files/mode-0644; echo $?'
scenario directory '/bin; echo $?'
#% text: shell text: a b/
scenario text '/elf/text a b'
scenario empty '/elf/empty; echo $?'
scenario garbage '/elf/garbage; echo $?'
scenario missing-interpreter '/scripts/interpreter-missing; echo $?'
scenario missing-loader '/elf/interp-missing; echo $?'
scenario crash '/elf/no-load; echo $?'
scenario long-argument 'x=$(printf %0200000d 1); show $x; echo $?'
scenario too-deep '/scripts/nested-9; echo $?'
scenario link '/links/40 a'
scenario self '/proc/self/exe echo applet; exec /proc/self/exe sh -c "echo again"'
scenario relative 'cd /bin; ./show a; cd /scripts; ./plain a'
scenario removed-directory 'mkdir /tmp/d; cd /tmp/d; rmdir /tmp/d; show a; ./show; echo $?'
scenario copied 'cp /bin/show /tmp/copied; /tmp/copied a; rm /tmp/copied'
scenario made-script 'printf "#!/bin/show made\n" >/tmp/made; chmod 755 /tmp/made; /tmp/made a; chmod 644 /tmp/made; /tmp/made a; echo $?; rm /tmp/made'
scenario made-script-without-line 'echo "show \$0 \$*" >/tmp/made; chmod 755 /tmp/made; /tmp/made a; rm /tmp/made'
scenario noexec '/tmp/noexec/show; echo $?; /tmp/noexec/script; echo $?'

#% pipeline: 3/
scenario pipeline '/scripts/shell a b c | /bin/busybox tr " " "\n" | tail -n +3 | /bin/cat | wc -l'
scenario many 'i=0; while [ $i -lt 100 ]; do /bin/true; SHOW=nothing /bin/show; /scripts/shell >/dev/null; i=$((i + 1)); done; echo $i'
scenario background 'show a & wait $!; echo $?'
scenario background-missing '/missing & wait $!; echo $?'
scenario substitution 'echo "<$(echo $(/scripts/shell x))>"'
scenario trap-ignored 'trap "" USR1 PIPE; SHOW=signals show'
scenario trap-caught 'trap "echo caught" USR1; SHOW=signals show; kill -USR1 $$'
scenario killed 'sh -c "kill -9 \$\$"; echo $?'
scenario limits 'ulimit -n 20; ulimit -s 1024; SHOW=limits show a'
scenario umask 'umask 077; show a'
scenario here-document 'cat <<END
of the shell: $(show | wc -l)
END'

#% find: argv=["show","/scripts/plain"]
scenario find 'find /scripts -name plain -exec show {} \;'
scenario find-many 'find /scripts/plain /elf/text /scripts/tab /files/link -exec show {} +'
scenario find-missing 'find /scripts -name plain -exec /missing {} \;'
scenario find-all 'find /scripts -name "argument*" -exec {} \; | sort | cut -c 1-100'
#% xargs: argv=["show","a","b c","d"]
scenario xargs 'echo "a \"b c\" d" | xargs show'
scenario xargs-one-by-one 'seq 3 | xargs -n 1 show'
scenario xargs-many 'seq 30000 | xargs show'
scenario xargs-missing 'echo a | xargs /missing; echo $?'
scenario xargs-not-executable 'echo a | xargs /files/mode-0644; echo $?'
scenario env 'env show a'
#% env-empty: argv=["/bin/show","a"] env=[] execfn="/bin/show"
scenario env-empty 'env -i /bin/show a'
scenario env-empty-script 'env -i /scripts/plain a'
scenario env-set 'env A=1 -u SHOW B=2 show a'
scenario env-missing 'env missing; echo $?'
scenario env-of-coreutils '/usr/bin/env -i X=1 /bin/show a; /usr/bin/env missing; echo $?; /usr/bin/env /files/mode-0644; echo $?'
scenario env-argv0 '/usr/bin/env --help >/dev/null && /usr/bin/env -S "A=1 show \"b c\" d"'
scenario env-signals '/usr/bin/env --ignore-signal=USR1 --block-signal=USR2 SHOW=signals show; /usr/bin/env --default-signal=PIPE SHOW=signals show'
scenario env-chdir '/usr/bin/env -C /scripts ./plain a'
#% env-script: argv=["show","a","b c","/scripts/env-split","x"]
scenario env-script '/scripts/env-split x'
scenario nohup 'SHOW=signals nohup show a'
scenario nohup-missing 'nohup missing; echo $?'
scenario setsid 'setsid show a'
scenario nice 'nice -n 5 show a; nice -n 5 missing; echo $?'
scenario timeout 'timeout 10 show a; timeout 10 missing; echo $?'
scenario awk 'awk "BEGIN { system(\"show a\"); \"/scripts/shell b\" | getline line; print line; print \"c\" | \"cat\" }"'
scenario start-stop-daemon 'start-stop-daemon -S -x /bin/show -- a b'
scenario setpriv 'setpriv --nnp show a'
if [ $(id -u) = 0 ]; then
    scenario su 'SHOW=ids su -s /bin/show nobody -c x'
    scenario su-private 'cd /private; SHOW=ids su -s /bin/sh nobody -c "show a; ./show; /private/show; echo \$?"'
    scenario start-as-nobody 'SHOW=ids start-stop-daemon -S -c nobody -x /bin/show -- a'
    mkdir -p /tmp/jail/bin && cp /bin/busybox /shows/static /tmp/jail/bin
    scenario chroot 'SHOW=fds chroot /tmp/jail /bin/static a'
    scenario chroot-shell 'chroot /tmp/jail /bin/busybox sh -c "/bin/static a; /bin/static b; ls /bin; /missing; echo \$?"'
    scenario chroot-missing 'chroot /tmp/jail /bin/show; echo $?'
    scenario unshare 'unshare -m /bin/show a; unshare -p -f sh -c "echo \$\$; show b"'
fi

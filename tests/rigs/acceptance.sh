# What every rig must do with an image. The image's programs are the initramfs's too, so that what they print natively is
# what they must print in place.

# A check has this long, in seconds: emulated machines are slow.
limit=60

# check NAME COMMAND…: passes if it succeeds.
check() {
    name=$1
    shift
    "$@" >/tmp/said 2>&1
    status=$?
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        echo "RIG: ok $class: $name$(sed -n 's/^says: /: /p' /tmp/said)"
    else
        failed=$((failed + 1))
        echo "RIG: FAILED $class: $name: status $status"
        head -c 8000 /tmp/said
    fi
}

# same OPTIONS PROGRAM ARG…: does a program, in place, what it does natively: standard output, error and status?
same() {
    options=$1
    shift
    timeout $limit "$@" >/tmp/native.out 2>/tmp/native.err </rig/input
    echo "status $?" >>/tmp/native.err
    # shellcheck disable=SC2086 # words are wanted
    timeout $limit /rig/xip-run --image "$image" $options "$@" >/tmp/place.out 2>/tmp/place.err </rig/input
    echo "status $?" >>/tmp/place.err
    diff /tmp/native.out /tmp/place.out && diff /tmp/native.err /tmp/place.err && [ -s /tmp/native.out ]
}

# exits STATUS COMMAND…
exits() {
    status=$1
    shift
    timeout $limit "$@"
    is=$?
    [ $is = "$status" ] || { echo "status $is, not $status"; return 1; }
}

# in_place KIB COMMAND…: does xip-mem find so much of a running program in place, of the class of this image?
in_place() {
    least=$1
    shift
    "$@" &
    pid=$!
    # It is there once it sleeps.
    for try in 0 1 2 3 4 5 6 7 8 9; do
        [ "$(cat /proc/$pid/comm)" = sleep ] && break
        sleep 0.3
    done
    sleep 0.3
    /rig/xip-mem $pid >/tmp/mem 2>&1
    status=$?
    kill $pid
    wait $pid
    cat /tmp/mem
    [ $status = 0 ] || return 1
    # xip-mem says more of tmpfs: that it is RAM.
    kib=$(sed -n "s/^in place, $class[^:]*: mapped *\([0-9]*\) KiB/\1/p" /tmp/mem)
    echo "says: $kib KiB"
    [ "${kib:-0}" -ge "$least" ]
}

# Nothing of the sessions may be left.
nothing_left() {
    for try in 0 1 2 3 4 5 6 7 8 9; do
        left=$(grep -l '^xip-' /proc/[0-9]*/comm 2>/dev/null)
        [ -z "$left" ] && break
        sleep 0.3
    done
    grep . $left /dev/null
    ! grep fuse.cramfs /proc/mounts && [ -z "$left" ]
}

accept() {
    class=$1 image=$2
    one=--no-root
    all=
    check "the image is sound" /rig/xip-image check "$image"
    check "one program, static" same $one /bin/busybox echo hello from flash
    check "one program's status" exits 42 /rig/xip-run --image "$image" $one /bin/busybox sh -c 'exit 42'
    check "one program, a signal" exits 143 sh -c "/rig/xip-run --image $image $one /bin/busybox sh -c 'kill \$\$'"
    check "one program, verified" same "$one --verify" /bin/busybox seq 1000
    check "one program, copied" same "$one --copy-text" /bin/busybox seq 1000
    check "one program, dynamic" same $one /bin/dash -c 'echo $((6 * 7))'
    check "a shell that starts others" same $one /bin/busybox sh /rig/pipes.sh
    check "in place, one program" in_place $busybox_kib /rig/xip-run --image "$image" $one /bin/busybox sleep 100

    check "a session" same "$all" /bin/busybox echo hello from flash
    check "a session's status" exits 42 /rig/xip-run --image "$image" /bin/busybox sh -c 'exit 42'
    check "a session, static, pipes" same "$all" /bin/busybox sh /rig/pipes.sh
    check "a session, script by #!" same "$all" /rig/pipes.sh
    check "a session, dynamic" same "$all" /bin/dash -c 'echo $((6 * 7))'
    check "a session, dynamic, pipes" same "$all" /bin/bash /rig/pipes.bash
    check "a session, /proc/self/exe" same "$all" /bin/busybox readlink /proc/self/exe
    check "a session, 200 children" same "$all" /bin/busybox sh /rig/children.sh
    check "a session, 200 dynamic children" same "$all" /bin/dash /rig/children.sh dynamic
    check "in place, a session" in_place $busybox_kib /rig/xip-run --image "$image" /bin/busybox sleep 100
    check "in place, a dynamic program" in_place $sleep_kib /rig/xip-run --image "$image" /usr/bin/sleep 100
    check "nothing is left" nothing_left
}

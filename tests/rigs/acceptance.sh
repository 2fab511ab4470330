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

# xip OPTION… [PROGRAM ARG…]: xip-run with the image, as the user whom the checks are for.
xip() {
    # shellcheck disable=SC2086 # words are wanted
    timeout $limit $as /rig/xip-run $named "$@"
}

# same OPTIONS PROGRAM ARG…: does a program, in place, what it does natively: standard output, error and status?
same() {
    options=$1
    shift
    # shellcheck disable=SC2086
    timeout $limit $as "$@" >/tmp/native.out 2>/tmp/native.err </rig/input
    echo "status $?" >>/tmp/native.err
    # shellcheck disable=SC2086
    xip $options "$@" >/tmp/place.out 2>/tmp/place.err </rig/input
    echo "status $?" >>/tmp/place.err
    diff /tmp/native.out /tmp/place.out && diff /tmp/native.err /tmp/place.err && [ -s /tmp/native.out ]
}

# exits STATUS COMMAND…
exits() {
    status=$1
    shift
    "$@"
    is=$?
    [ $is = "$status" ] || { echo "status $is, not $status"; return 1; }
}

# says FILE TEXT…: has a file each of these lines, or in a line?
says() {
    file=$1
    shift
    for text; do
        grep -qF -- "$text" "$file" || { echo "nothing says: $text"; cat "$file"; return 1; }
    done
}

# What xip-run finds out about the image is what the rig says of it.
probe() {
    exits 0 xip --probe >/tmp/probe || return 1
    sed 's/^/probe: /' /tmp/probe >/dev/console
    case $data in
    copy-on-write) says /tmp/probe "yes  private mapping, written to" "data: copied on write from the image" ;;
    descriptor) says /tmp/probe "data: from the page cache: writable, and" ;;
    esac || return 1
    case $class in
    page-cache) from="runs from the page cache" ;;
    *) from="yes  runs from flash" ;;
    esac
    says /tmp/probe "$from" "yes  code executed" "mapped $attribute:" \
        "A session in place, with the image as its root directory: yes" || return 1
    exits 0 xip --probe --json >/tmp/probe || return 1
    says /tmp/probe '"executable": true' "\"attribute\": \"$attribute\"" "\"data_from\": \"$data\"" \
        '"session_in_place": true'
}

# sources MODE: what files the process has mapped so, privately or shared.
sources() { awk -v mode="$1" 'index($2, mode) == 1 && $6 ~ "^/" { print $6 }' /tmp/maps; }

# in_place KIB OPTIONS PROGRAM ARG…: is so much of a program that sleeps in place, of the class of this image; is its text
# mapped from the image, and its data from where it should be?
in_place() {
    least=$1 options=$2
    shift 2
    # shellcheck disable=SC2086
    $as /rig/xip-run $named $options "$@" &
    pid=$!
    # It is there once it has its name.
    for try in 0 1 2 3 4 5 6 7 8 9; do
        case $(cat /proc/$pid/comm) in busybox | sleep) break ;; esac
        sleep 0.3
    done
    sleep 0.3
    cached "/proc/$pid/root$1" >/tmp/cached
    for linker in /proc/$pid/root/lib/ld-linux* /proc/$pid/root/lib64/ld-linux*; do
        [ ! -e "$linker" ] || cached "$linker"
    done >/tmp/cached-linker
    /rig/xip-mem $pid >/tmp/mem 2>&1
    status=$?
    cat /proc/$pid/maps >/tmp/maps
    kill $pid
    wait $pid
    cat /tmp/mem /tmp/maps
    [ $status = 0 ] || return 1
    # A user's view is the user's only.
    case $options:$class:$as in :flash:) keeps_out_of_cache "$least" || return 1 ;; esac
    # xip-mem says more of tmpfs: that it is RAM.
    kib=$(sed -n "s/^in place, ${class/-/ }[^:]*: mapped *\([0-9]*\) KiB/\1/p" /tmp/mem)
    echo "says: $kib KiB"
    [ "${kib:-0}" -ge "$least" ] || return 1
    # Beside the image there is the stub, which is in a memfd.
    sources r-x | grep -v '^/memfd:xip-run' >/tmp/text
    sources rw- >/tmp/data
    # Of every object all but what ends within a page.
    ! grep -vxF "$backing" /tmp/text && [ -s /tmp/text ] && [ -s /tmp/data ] || return 1
    case $data in
    copy-on-write) grep -qxF "$backing" /tmp/data ;;
    descriptor) ! grep -xF "$backing" /tmp/data ;;
    esac
}

# cached FILE: which of its pages are in the page cache, where they begin, KiB.
cached() { /rig/cached "$1" 2>&1 || echo "cached: status $?"; }

# keeps_out_of_cache KIB: of the program in a session, so much of which is in place, no page is in RAM for having been read;
# but where data is not copied on write from the flash, some of that is: at the end, nine tenths of KIB are before it.
keeps_out_of_cache() {
    sed 's/^/in the page cache: KiB /' /tmp/cached
    # Nor are the headers of the dynamic linker.
    grep -x -e 0 -e 'cached: .*' /tmp/cached-linker && return 1
    case $data in
    copy-on-write) ! grep -q . /tmp/cached ;;
    descriptor) [ -s /tmp/cached ] && awk -v least="$1" '$1 * 10 < least * 9 { found = 1 } END { exit found }' /tmp/cached ;;
    esac
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

# refuses WORDS: is the image refused, with words that say why and what to do, in good time?
refuses() {
    for command in "--no-root /bin/busybox true" "/bin/busybox true" --probe; do
        # shellcheck disable=SC2086
        xip $command >/tmp/refusal 2>&1
        status=$?
        case $command:$status in
        --probe:123 | -*:126 | /*:126) ;;
        *) echo "$command: status $status"; cat /tmp/refusal; return 1 ;;
        esac
        says /tmp/refusal "$1" "--copy-text" || return 1
    done
}

# Flash and reserved memory that no driver writes to are pinned; a file is not, unless it is immutable.
pinned() {
    case $image in
    /flash/*) why="chattr +i" ;;
    *)
        why=read-only
        grep -q '^mtd' /proc/mtd 2>/dev/null || { same "$all --pinned" /bin/busybox echo pinned; return; }
        ;;
    esac
    xip --pinned /bin/busybox true >/tmp/refusal 2>&1
    [ $? = 123 ] && says /tmp/refusal EOPNOTSUPP "$why"
}

# take CLASS DATA ATTRIBUTE IMAGE: what the checks are of.
take() {
    class=$1 data=$2 attribute=$3 image=$4
    named="--image $image" as=
    case $image in
    mtd:* | auto) backing=/dev/mem ;;
    *) backing=${image%%@*} ;;
    esac
}

# accept CLASS DATA ATTRIBUTE IMAGE
accept() {
    take "$@"
    one=--no-root
    all=
    check "what can be done with it" probe
    check "the image is sound" /rig/xip-image check "$image"
    check "one program, static" same $one /bin/busybox echo hello from flash
    check "one program's status" exits 42 xip $one /bin/busybox sh -c 'exit 42'
    check "one program, a signal" exits 143 sh -c "/rig/xip-run --image $image $one /bin/busybox sh -c 'kill \$\$'"
    check "one program, verified" same "$one --verify" /bin/busybox seq 1000
    check "one program, copied" same "$one --copy-text" /bin/busybox seq 1000
    check "one program, dynamic" same $one /bin/dash -c 'echo $((6 * 7))'
    check "a shell that starts others" same $one /bin/busybox sh /rig/pipes.sh
    check "in place, one program" in_place $busybox_kib $one /bin/busybox sleep 100

    check "a session" same "$all" /bin/busybox echo hello from flash
    check "a session's status" exits 42 xip /bin/busybox sh -c 'exit 42'
    check "a session, static, pipes" same "$all" /bin/busybox sh /rig/pipes.sh
    check "a session, script by #!" same "$all" /rig/pipes.sh
    check "a session, dynamic" same "$all" /bin/dash -c 'echo $((6 * 7))'
    check "a session, dynamic, pipes" same "$all" /bin/bash /rig/pipes.bash
    check "a session, /proc/self/exe" same "$all" /bin/busybox readlink /proc/self/exe
    check "a session, 30 children" same "$all" /bin/busybox sh /rig/children.sh
    check "a session, 30 dynamic children" same "$all" /bin/dash /rig/children.sh dynamic
    check "in place, a session" in_place $busybox_kib "$all" /bin/busybox sleep 100
    check "in place, a dynamic program" in_place $sleep_kib "$all" /usr/bin/sleep 100
    check "pinned, or why not" pinned
    check "nothing is left" nothing_left
    check "the image is still sound" /rig/xip-image check "$image"
}

# What a user who is not root must be able to do with the image that was accepted last.
accept_user() {
    as="su -- user /rig/exec"
    check "a user, one program" same $one /bin/busybox id -u
    check "a user, in place, one program" in_place $busybox_kib $one /bin/busybox sleep 100
    check "a user, a session" same "$all" /bin/busybox sh /rig/pipes.sh
    check "a user, a session, dynamic" same "$all" /bin/bash /rig/pipes.bash
    check "a user, in place, a session" in_place $sleep_kib "$all" /usr/bin/sleep 100
    as=
    check "a user, nothing is left" nothing_left
}

# The image that was accepted last, if nobody but the kernel's command line, or the device tree, names it.
accept_named() {
    if grep -q xip.image= /proc/cmdline; then
        named=
        check "named by the kernel's command line" same "$all" /bin/busybox sh /rig/pipes.sh
    fi
    named="--image auto"
    check "found" same "$all" /bin/busybox sh /rig/pipes.sh
    check "found, in place" in_place $busybox_kib "$all" /bin/busybox sleep 100
}

# accept_also CLASS DATA ATTRIBUTE IMAGE: the same image, opened in another way.
accept_also() {
    take "$@"
    check "$image, what can be done with it" probe
    check "$image, one program" same --no-root /bin/busybox sh /rig/pipes.sh
    check "$image, a session" same "" /bin/bash /rig/pipes.bash
    check "$image, in place" in_place $sleep_kib "" /usr/bin/sleep 100
}

# accept_refused IMAGE WORDS: an image that can be read, but not be executed.
accept_refused() {
    take refused "" "" "$1"
    check "$1 is sound" /rig/xip-image check "$1"
    check "$1 is refused" refuses "$2"
    check "$1, one program, copied" same "--no-root --copy-text" /bin/busybox sh /rig/pipes.sh
    check "$1, a session, copied" same --copy-text /bin/bash /rig/pipes.bash
    check "nothing is left" nothing_left
}

# accept_failing IMAGE WORDS: what is no image that can be found, with words that say why.
accept_failing() {
    take failing "" "" "$1"
    check "$1" fails "$2"
}

fails() {
    exits 125 xip /bin/busybox true 2>/tmp/refusal || return 1
    says /tmp/refusal "$1"
}

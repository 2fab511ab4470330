# The shell of busybox and its applets, by their links and without.
#= 0000000 32 34 0a
#= 00042
#= 200
#= aBc
#= static
#= root
#= y
#= end
mkdir applets
for applet in $(busybox --list); do ln -s /bin/busybox applets/$applet; done
ls applets | grep -c .
PATH=/tmp/applets
ls /etc | grep -c .
find /usr/include/linux -name 'a*.h' | sort | xargs md5sum | md5sum
awk -F: '{ n += $3 } END { print n }' /etc/passwd
tar -C /usr/include -cf - linux | gzip -c | gunzip -c | tar -tf - | sort | sed -n '1p;$p'
for n in 1 2 3; do (sleep 0.0$n; exit $n) & done
wait
(exit 4) & wait $! || echo $?
echo $(echo $((0x10 + 010))) | od -t x1
printf '%05d\n' 42
expr 3 + 4
cat <<END | sort -r | head -n 1
$(seq 20)
END
dd if=/bin/bash bs=1k count=9 2>/dev/null | sha256sum
sh -c 'kill -9 $$' || echo $?
trap 'echo end' EXIT
cmp /etc/passwd /etc/passwd && echo same
n=0
while [ $n -lt 200 ]; do
    cat /dev/null
    /bin/busybox true
    n=$((n + 1))
done
echo $n
echo abc | sed 's/b/B/' | tee out | wc -c
cat out
cp out copy
rm out
sh -c '/bin/busybox sh -c "/bin/busybox sh -c \"cat /proc/self/comm\""'
env -i /bin/busybox env
/bin/busybox-static sh -c 'echo static; ls / | wc -l'
/bin/busybox nosuchapplet || echo $?
uname -s
id -un
date -u -d @0
xargs -n 2 echo < /etc/debian_version
command -v awk
mkdir -p d/e
find d
set +o pipefail
timeout 5 yes | sed q
rm -r applets d
